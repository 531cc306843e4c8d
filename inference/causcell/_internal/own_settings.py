"""Settings of other packages under which files are written, whatever the user's own are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

_ANNDATA = {"auto_shard_zarr_v3": False, "allow_write_nullable_strings": False, "zarr_write_format": 3}
_ZARR = {"default_zarr_format": 3, "array.order": "C", "array.write_empty_chunks": False}


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """Write with settings of anndata and zarr that are always the same; the user's are there again afterwards.

    Examples
    --------
    >>> import zarr
    >>> with zarr.config.set({"array.order": "F"}):
    ...     with own_settings():
    ...         print(zarr.config.get("array.order"))
    ...     print(zarr.config.get("array.order"))
    C
    F
    """
    import anndata
    import zarr

    known = {name: value for name, value in _ANNDATA.items() if hasattr(anndata.settings, name)}
    with anndata.settings.override(**known), zarr.config.set(_ZARR):
        yield
