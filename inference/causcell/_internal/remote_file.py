"""Objects and files of servers, read at any offset by ranges of bytes."""

from __future__ import annotations

import contextlib
import io
import os
from collections import OrderedDict
from importlib import import_module
from pathlib import Path
from typing import Any

from causcell._internal.remote import AnyPath, RemotePath, load_obstore, open_store, telling
from causcell.errors import DataError

_BLOCK = 2**20
_BLOCKS_KEPT = 32


class RemoteFile(io.RawIOBase):
    """An object that is read as a file. Blocks that were read are kept, for what reads many small pieces.

    Parameters
    ----------
    path
        Its URL, or that of what it stands below.
    name
        Its key below ``path``; if not given, it is that of ``path`` itself.
    store
        obstore's store for ``path``.

    Attributes
    ----------
    size
        Its bytes.
    version
        Its ETag, or the time of its last change where the server gives none.

    Raises
    ------
    DataError
        There is none, or the server can't be used.
    """

    def __init__(self, path: RemotePath, name: str = "", store: Any = None) -> None:
        super().__init__()
        self._path = RemotePath(f"{path}/{name}") if name else path
        self._name = self._path.name if store is None else name
        if store is None:
            load_obstore(self._path)  # which names the file where it can't
            store = open_store(self._path.parent)
        self._store = store
        self._place = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        with telling(self._path, DataError):
            try:
                found = self._store.head(self._name)
            except FileNotFoundError:
                raise DataError(f"there is no file {str(self._path)!r}") from None
        self.size = int(found["size"])
        tag = found.get("e_tag")
        self.version = str(tag or found["last_modified"].isoformat())
        self._same = {"if_match": tag} if tag and not tag.startswith("W/") else {}

    def readable(self) -> bool:
        """Return true."""
        return True

    def seekable(self) -> bool:
        """Return true."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place from where to read; see `io.IOBase.seek`."""
        origins = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self.size}
        self._place = origins[whence] + offset
        return self._place

    def tell(self) -> int:
        """Return the place from where the next bytes are read."""
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Read bytes into a buffer, all of it where the object has so many."""
        view = memoryview(buffer).cast("B")
        count = self.read_at(view, self._place)
        self._place += count
        return count

    def read_at(self, view: memoryview, place: int) -> int:
        """Read bytes from a place into a buffer, all of it where the object has so many.

        Raises
        ------
        DataError
            The server does not answer, or the object is another one than when it was opened.
        """
        count = max(0, min(len(view), self.size - place))
        if count > 2 * _BLOCK:
            view[:count] = self._fetch(place, place + count)
            return count
        done = 0
        while done < count:
            number, offset = divmod(place + done, _BLOCK)
            piece = self._block(number)[offset : offset + count - done]
            view[done : done + len(piece)] = piece
            done += len(piece)
        return count

    def _block(self, number: int) -> bytes:
        block = self._blocks.pop(number, None)
        if block is None:
            block = self._fetch(number * _BLOCK, min((number + 1) * _BLOCK, self.size))
        self._blocks[number] = block
        if len(self._blocks) > _BLOCKS_KEPT:
            self._blocks.popitem(last=False)
        return block

    def _fetch(self, start: int, stop: int) -> bytes:
        exceptions: Any = import_module("obstore.exceptions")
        try:
            with telling(self._path, DataError):
                found = bytes(self._store.get(self._name, options={"range": (start, stop), **self._same}).bytes())
        except (exceptions.PreconditionError, FileNotFoundError) as error:
            raise DataError(f"{self._path.url!r} was changed while it was read; run it again") from error
        except DataError as error:
            if isinstance(error.__cause__, exceptions.BaseError) and "range" in str(error.__cause__).lower():
                raise DataError(
                    f"{self._path.url!r} can't be read in slices: its server does not answer requests for parts of a "
                    "file (Range); copy the file here, or take a server that does"
                ) from error
            raise
        if len(found) != stop - start:
            raise DataError(f"{self._path.url!r} was changed while it was read; run it again")
        return found


def state_of(path: AnyPath) -> tuple[int, int | str]:
    """Return the size of a file and what changes when it is written: its time, or a server's ETag.

    Of a zarr store elsewhere they are those of its root's metadata; none where a server does not tell.
    """
    if isinstance(path, Path):
        status = path.stat()
        return status.st_size, status.st_mtime_ns
    if path.suffix != ".zarr":
        file = RemoteFile(path)
        return file.size, file.version
    store = open_store(path)
    for name in ("zarr.json", ".zmetadata", ".zgroup"):
        with contextlib.suppress(DataError):
            file = RemoteFile(path, name, store)
            return file.size, file.version
    return 0, ""
