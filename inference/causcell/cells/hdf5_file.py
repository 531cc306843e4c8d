"""HDF5 files from strangers: opened only if all that they hold stands in the file itself."""

from __future__ import annotations

import stat
import sys
from pathlib import Path
from typing import Any

from causcell.errors import DataError

_BUILT_IN_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}
_DEEPEST = 64


def open_hdf5(path: Path) -> Any:
    """Open an HDF5 file for reading, after a walk over its objects (not their data); see `check_objects`.

    Raises
    ------
    DataError
        It is no regular file, or an object of it is refused.
    """
    import h5py

    if not stat.S_ISREG(path.stat().st_mode):
        raise DataError(f"{str(path)!r} can't be read as AnnData: it is no file, which an .h5ad is (adata.write_h5ad)")
    file = h5py.File(path, "r")
    try:
        check_objects(file, repr(str(path)))
    except BaseException:
        file.close()
        raise
    return file


def check_objects(file: Any, title: str) -> None:
    """Refuse links, foreign storage, object references and filters of plugins, before a byte of data is read.

    Links and external storage make HDF5 read other files of the machine, whose bytes would pass for cells.

    Raises
    ------
    DataError
        Names the object and what it is.
    """
    from h5py import h5i, h5l, h5o

    links = {h5l.TYPE_SOFT: "a soft link", h5l.TYPE_EXTERNAL: "an external link", h5l.TYPE_HARD: ""}
    seen = set()
    groups = [(file.id, "", 0)]
    while groups:
        group, place, depth = groups.pop()
        if depth > _DEEPEST:
            raise DataError(f"{title} can't be used: {place[:80]!r} lies deeper than {_DEEPEST} groups")
        for raw in group:
            name = f"{place}/{raw.decode(errors='replace')}".lstrip("/")
            kind = links.get(group.links.get_info(raw).type, "a link of an unknown kind")
            if kind:
                raise _refused(title, name, kind)
            object_ = h5o.open(group, raw)
            address = h5o.get_info(object_).addr
            if address in seen:  # by another name
                continue
            seen.add(address)
            what = h5i.get_type(object_)
            if what == h5i.GROUP:
                groups.append((object_, name, depth + 1))
            elif what == h5i.DATASET:
                _check_dataset(object_, title, name)


def _check_dataset(dataset: Any, title: str, name: str) -> None:
    from h5py import h5d, h5t, h5z

    properties = dataset.get_create_plist()
    if properties.get_layout() == h5d.VIRTUAL:
        raise _refused(title, name, "a virtual data set")
    if properties.get_external_count():
        file = properties.get_external(0)[0].decode(errors="replace")
        raise _refused(title, name, f"a data set whose values stand in another file ({file!r})")
    if dataset.get_type().get_class() == h5t.REFERENCE:
        raise _refused(title, name, "a data set of object references")
    for i in range(properties.get_nfilters()):
        code, *_, label = properties.get_filter(i)
        if code in _BUILT_IN_FILTERS or ("hdf5plugin" in sys.modules and h5z.filter_avail(code)):
            continue
        raise DataError(
            f"{title} can't be used: {name!r} is compressed with filter {code} "
            f"({label.decode(errors='replace') or 'without a name'}), which a plugin would have to read; import "
            "hdf5plugin first if you trust the file, or write it again with gzip (adata.write_h5ad(path, "
            "compression='gzip'))"
        )


def _refused(title: str, name: str, what: str) -> DataError:
    return DataError(
        f"{title} can't be used: {name!r} is {what}, and only values that stand in the file itself are read; if you "
        "trust the file, read it with anndata and write it again"
    )
