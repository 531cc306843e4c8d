"""Elements of a file beside the cells' annotations and expression: those of ``obsm`` and ``uns``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell._internal.remote import READABLE, AnyPath, any_path
from causcell.cells.guard import IN_MEMORY, damaged, reading
from causcell.cells.hdf5_file import open_hdf5

if TYPE_CHECKING:
    import anndata


def read_elements(source: anndata.AnnData | str | os.PathLike[str], places: Iterable[str]) -> dict[str, Any]:
    """Read elements of an AnnData, or of a file of one, without reading the rest of it.

    Parameters
    ----------
    source
        An AnnData, or a path to ``.h5ad`` or ``.zarr`` that `causcell.cells.collection.Cells` has opened before.
    places
        Such as ``obsm/X_pca`` or ``uns/causcell``.

    Returns
    -------
    By place, those that there are.

    Raises
    ------
    DataError
        An element can't be read.

    Examples
    --------
    >>> import anndata, numpy as np
    >>> cells = anndata.AnnData(np.eye(2, dtype=np.float32), obsm={"X_pca": np.ones((2, 3))})
    >>> {place: found.shape for place, found in read_elements(cells, ["obsm/X_pca", "obsm/X_umap"]).items()}
    {'obsm/X_pca': (2, 3)}
    """
    if not isinstance(source, str | os.PathLike):
        split = [(place, *place.split("/", 1)) for place in places]
        return {place: getattr(source, part)[name] for place, part, name in split if name in getattr(source, part)}
    location = any_path(source, "data", READABLE)
    group, close = _open(location)
    try:
        return {place: _read(group[place], repr(str(source)), place) for place in places if place in group}
    finally:
        close()


def read_embeddings(
    source: anndata.AnnData | str | os.PathLike[str], names: Iterable[str], count: int
) -> dict[str, np.ndarray]:
    """Read embeddings of ``obsm`` by name, float [n x k] each, those that there are.

    Parameters
    ----------
    source
        As for `read_elements`.
    names
        Keys of ``obsm``.
    count
        Number of cells n.

    Raises
    ------
    DataError
        An embedding that is no table of numbers with a row for each cell, or holds NaN or infinite values.
    """
    title = repr(str(source)) if isinstance(source, str | os.PathLike) else IN_MEMORY
    found = {}
    for place, value in read_elements(source, [f"obsm/{name}" for name in names]).items():
        values = np.asarray(value)
        if values.ndim != 2 or len(values) != count or values.dtype.kind not in "iuf":
            raise damaged(title, place, f"it is no table of numbers with a row for each of the {count} rows")
        if not np.isfinite(values).all():
            raise damaged(title, place, "it holds NaN or infinite values")
        found[place.removeprefix("obsm/")] = values
    return found


def _open(location: AnyPath) -> tuple[Any, Any]:
    if location.suffix == ".h5ad":
        return open_hdf5(location)
    from causcell.cells.zarr_file import open_zarr

    group, store = open_zarr(location)
    return group, store.close


def _read(element: Any, title: str, place: str) -> Any:
    from anndata.io import read_elem

    with reading(title, place):
        return read_elem(element)
