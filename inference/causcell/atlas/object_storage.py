"""Atlases in object stores: a file is an object, put whole on the condition that nobody else has put it meanwhile.

No rename is needed, since an object is there whole or not at all. What a folder has by ``flock`` is made of puts on a
condition: the lease (`causcell.atlas.lease`), and every put after it. A writer first asks which version of an object is
there, then whether the lease is still its own, then puts on the condition that it is still that version. A writer that
was held up, and lost the lease, so finds out by the lease, or by the version that who took over has put.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import mmap
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from importlib import import_module
from multiprocessing import util
from pathlib import Path
from typing import Any, BinaryIO

from causcell._internal.files import ScratchFolder
from causcell._internal.remote import RemotePath, open_store, telling
from causcell._internal.remote_file import RemoteFile
from causcell.atlas.lease import Lease, put_version
from causcell.atlas.records import FileRecord, record_file
from causcell.atlas.storage import FOLDER, LARGEST_RECORD
from causcell.errors import AtlasError, OutputError, OutputExistsError

_LOCK = f"{FOLDER}/lock"
_AT_ONCE = 8
_MOST_TRIES = 3
_LARGEST_OBJECT = 5 * 10**9
"""Bytes that a store takes in one request, which alone can be put on a condition."""


class ObjectStorage:
    """A store of objects below a URL. See `causcell.atlas.storage.Storage`.

    Parameters
    ----------
    path
        The URL.
    lease
        Token of the run that holds the place, for its workers.
    """

    def __init__(self, path: RemotePath, lease: str = "") -> None:
        self.place = str(path)
        self._path, self._token = path, lease
        self._held: Lease | None = None
        self._scratch: ScratchFolder | None = None

    @cached_property
    def _store(self) -> Any:
        return open_store(self._path)

    @property
    def disk(self) -> str:
        """Place of this machine where files wait until they are put."""
        return tempfile.gettempdir()

    @property
    def work(self) -> Path:
        """Folder of this process for files being written; it goes with the process, at the latest."""
        if self._scratch is None:
            self._scratch = ScratchFolder()
            util.Finalize(self, self._scratch.close, exitpriority=1)  # at the end of a worker, too
        return self._scratch.path

    # -- one writer at a time ------------------------------------------------------------------------------------------

    @property
    def lease(self) -> str:
        """Token of the run that holds the place."""
        return self._held.token if self._held is not None else self._token

    def _make_lease(self) -> Lease:
        store = open_store(self._path, timeout="10s", retries=4)
        return Lease(store, self._path, _LOCK, self._token)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the place against other runs, by a lease."""
        if not any(self.names(FOLDER)):
            self.refuse_existing()
        lease = self._make_lease()
        with lease.held():
            self._held = lease
            try:
                yield
            finally:
                self._held = None
                if self._scratch is not None:
                    self._scratch.close()
                    self._scratch = None

    @contextlib.contextmanager
    def locked_if_writable(self) -> Iterator[bool]:
        """Hold the place where this user may write; tell whether that is so."""
        with contextlib.ExitStack() as stack:
            writable = True
            try:
                stack.enter_context(self.locked())
            except OutputError as error:
                exceptions: Any = import_module("obstore.exceptions")
                if not isinstance(error.__cause__, exceptions.PermissionDeniedError):
                    raise
                writable = False
            yield writable

    def _check_lease(self) -> None:
        if self._held is None:
            if not self._token:
                raise AssertionError(f"{self.place!r} is written to without its lock")
            self._held = self._make_lease()
        self._held.check()

    def refuse_existing(self) -> None:
        """Raise `OutputExistsError` if there are objects."""
        if self.entries():
            raise OutputExistsError(f"{self.place!r} exists already and is not overwritten; remove it, or name another")

    # -- writing -------------------------------------------------------------------------------------------------------

    def write(self, name: str, content: bytes, *, new: bool = False) -> None:
        """Put a small object; a new one on the condition that there is none, or the same."""
        if not new:
            self._put_all({name: lambda mode: self._store.put(name, content, mode=mode)})
            return
        exceptions: Any = import_module("obstore.exceptions")
        self._check_lease()
        with telling(self._path, OutputError):
            try:
                self._store.put(name, content, mode="create")
            except exceptions.AlreadyExistsError:
                if self.read(name) != content:  # else the answer to this very put was lost
                    raise OutputExistsError(
                        f"{self.place}/{name} was written by another run meanwhile; run the same command again"
                    ) from None

    def put(self, files: Mapping[str, Path]) -> dict[str, FileRecord]:
        """Put finished files, and remove them here."""
        for path in files.values():
            if path.stat().st_size > _LARGEST_OBJECT:
                raise OutputError(
                    f"a file of {path.stat().st_size} bytes is more than {self.place!r} takes at once "
                    f"({_LARGEST_OBJECT}); take smaller shards (shard_size=)"
                )
        records = {name: record_file(path) for name, path in files.items()}
        self._put_all({name: _putter(self._store, name, path) for name, path in files.items()})
        for path in files.values():
            path.unlink()
        return records

    def _put_all(self, putters: Mapping[str, Callable[[Any], Any]]) -> None:
        """Put objects on the condition that nobody puts them meanwhile; where somebody did, see whether it was us."""
        exceptions: Any = import_module("obstore.exceptions")

        def attempt(name: str, version: dict[str, str] | None) -> bool:
            with telling(self._path, OutputError):
                try:
                    putters[name](version or "create")
                except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
                    return False
                except FileNotFoundError as error:
                    raise OutputError(f"{self.place!r} can't be written to: its bucket is gone") from error
            return True

        left = list(putters)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in range(_MOST_TRIES):
                versions = list(pool.map(self._version, left))
                self._check_lease()
                done = list(pool.map(attempt, left, versions))
                left = [name for name, put in zip(left, done, strict=True) if not put]
                if not left:
                    return
        raise OutputError(f"{self.place}/{left[0]} is written to by something else than causcell; let that end first")

    def _version(self, name: str) -> dict[str, str] | None:
        with telling(self._path, OutputError):
            try:
                return put_version(self._store.head(name))
            except FileNotFoundError:
                return None

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        self._check_lease()
        with telling(self._path, OutputError), contextlib.suppress(FileNotFoundError):
            self._store.delete(name)

    def remove_folder(self, name: str) -> None:
        """Remove all objects below a name."""
        names = list(self.names(name))
        self._check_lease()
        if names:
            with telling(self._path, OutputError):
                self._store.delete(names)

    # -- reading -------------------------------------------------------------------------------------------------------

    def read(self, name: str) -> bytes | None:
        """Return what a small object holds, `None` where there is none."""
        with telling(self._path, AtlasError):
            try:
                found = self._store.get(name)
            except FileNotFoundError:
                return None
            if found.meta["size"] > LARGEST_RECORD:
                raise ValueError(f"it is no file of up to {LARGEST_RECORD} bytes")
            return bytes(found.bytes())

    def size(self, name: str) -> int | None:
        """Return the size of an object in bytes, `None` where there is none."""
        with telling(self._path, AtlasError):
            try:
                return int(self._store.head(name)["size"])
            except FileNotFoundError:
                return None

    def record(self, name: str) -> FileRecord | None:
        """Read an object and return its record as it is, `None` where there is none."""
        digest, size = hashlib.sha256(), 0
        with telling(self._path, AtlasError):
            try:
                for piece in self._store.get(name):
                    digest.update(piece)
                    size += len(piece)
            except FileNotFoundError:
                return None
        return FileRecord(bytes=size, sha256=digest.hexdigest())

    def open(self, name: str) -> BinaryIO:
        """Open an object for reading at any offset."""
        return io.BufferedReader(RemoteFile(self._path, name, self._store))

    def names(self, folder: str = "") -> Iterator[str]:
        """Return the names of all objects below a folder, those of the journal left out unless asked for."""
        with telling(self._path, AtlasError):
            for batch in self._store.list(folder or None):
                names = (str(each["path"]) for each in batch)
                yield from (name for name in names if folder or not name.startswith(f"{FOLDER}/"))

    def entries(self) -> dict[str, bool]:
        """Return the names at the top of the store, but for the journal's, and tell which are folders."""
        with telling(self._path, AtlasError):
            found = self._store.list_with_delimiter(None)
        folders = {name.rstrip("/"): True for name in found["common_prefixes"]}
        files = {each["path"]: False for each in found["objects"]}
        return {name: is_folder for name, is_folder in (folders | files).items() if name != FOLDER}

    def zarr(self) -> Any:
        """Return zarr's store of the objects."""
        from zarr.storage import ObjectStore

        return ObjectStore(self._store, read_only=True)


def _putter(store: Any, name: str, path: Path) -> Callable[[Any], Any]:
    """Return what puts a file on a condition, from the pages of the file, so that it is not held in memory twice."""

    def put(mode: Any) -> Any:
        if not path.stat().st_size:
            return store.put(name, b"", mode=mode)
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pages:
            return store.put(name, pages, mode=mode)

    return put
