"""HDF5 files from strangers: opened only if all that they hold stands in the file itself."""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from causcell._internal.remote import AnyPath, RemotePath
from causcell._internal.remote_file import RemoteFile
from causcell.errors import DataError

_BUILT_IN_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}
_DEEPEST = 64
_TEXTS_AT_ONCE = 65536
_HEAP, _OBJECT = struct.Struct("<4sB3xQ"), struct.Struct("<HHIQ")


class _LocalFile:
    """A file of this machine, with what `causcell._internal.remote_file.RemoteFile` has of one elsewhere."""

    _handle = -1

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    @property
    def size(self) -> int:
        """Its bytes."""
        return os.fstat(self._handle).st_size

    def read_at(self, view: memoryview, place: int) -> int:
        """Read bytes from a place into a buffer, all of it where the file has so many."""
        count = 0
        while count < len(view) and (more := os.preadv(self._handle, [view[count:]], place + count)):
            count += more
        return count

    def close(self) -> None:
        """Close the file."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __del__(self) -> None:
        self.close()


class _CheckedFile:
    """A file to read, of which HDF5 is not given what would make it read on for ever.

    The library takes an object of size 0 in a heap of texts for one to be read again and again: a file with a page of
    zeros, as a copy that broke off leaves them, would hang.
    """

    def __init__(self, path: AnyPath) -> None:
        self._file = RemoteFile(path) if isinstance(path, RemotePath) else _LocalFile(path)
        self._place = 0

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place from where to read; see `io.IOBase.seek`."""
        origins = {os.SEEK_SET: 0, os.SEEK_CUR: self._place}
        origin = self._file.size if whence == os.SEEK_END else origins[whence]
        self._place = origin + place
        return self._place

    def tell(self) -> int:
        """Return the place from where the next bytes are read."""
        return self._place

    def read(self, size: int = -1) -> bytes:
        """Read bytes, all where no number is given."""
        buffer = bytearray(size if size >= 0 else max(0, self._file.size - self._place))
        return bytes(buffer[: self.readinto(buffer)])

    def readinto(self, buffer: Any) -> int:
        """Read bytes into a buffer, all of it where the file has so many."""
        view = memoryview(buffer)
        count = self._file.read_at(view, self._place)
        self._place += count
        if bytes(view[:4]) == b"GCOL" and _loops(view[:count]):
            raise OSError("a heap of texts holds an object without a size")
        return count

    def flush(self) -> None:
        """Do nothing: no byte is written."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _loops(heap: memoryview) -> bool:
    """Return whether HDF5 would not come to the end of a global heap."""
    if len(heap) < _HEAP.size:
        return False
    end = min(len(heap), _HEAP.unpack_from(heap)[2])
    place = _HEAP.size
    while place + _OBJECT.size <= end:
        index, _, _, size = _OBJECT.unpack_from(heap, place)
        if index == 0 and size == 0:
            return True
        place += size if index == 0 else _OBJECT.size + -(-size // 8) * 8
    return False


def open_hdf5(path: AnyPath) -> tuple[Any, Callable[[], None]]:
    """Open an HDF5 file for reading, after a walk over its objects (not their data); see `check_objects`.

    Returns
    -------
    h5py's file, and the function that closes it.

    Raises
    ------
    DataError
        It is no regular file, or an object of it is refused.
    """
    import h5py

    title = repr(str(path))
    if isinstance(path, Path):
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError(f"{title} can't be read as AnnData: it is no file, which an .h5ad is (adata.write_h5ad)")
        h5py.File(path, "r").close()  # told at once where another process writes it
    with contextlib.ExitStack() as stack:
        raw = stack.enter_context(contextlib.closing(_CheckedFile(path)))
        file = stack.enter_context(h5py.File(raw, "r"))
        check_objects(file, title)
        return file, stack.pop_all().close


def read_texts(file: Any) -> None:
    """Read all texts of a file of `open_hdf5` once, before it is given to what would read it by HDF5's own driver.

    Raises
    ------
    OSError
        HDF5 would not come to the end of them.
    """
    import h5py

    def visit(_: str, item: Any) -> None:
        list(item.attrs.values())
        text = h5py.check_string_dtype(item.dtype) if isinstance(item, h5py.Dataset) else None
        if text is None or text.length is not None:  # no texts, or texts of one length, which stand in no heap
            return
        if not item.shape:
            item[()]
            return
        for start in range(0, item.shape[0], _TEXTS_AT_ONCE):
            item[start : start + _TEXTS_AT_ONCE]

    visit("", file)
    file.visititems(visit)


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
