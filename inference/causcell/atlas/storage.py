"""Places of atlases: what a journal needs of the place where its store is, and how folders of this machine give it.

An atlas may come from a stranger, so nothing is read or written through a symbolic link inside it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from causcell._internal.files import refuse_existing
from causcell._internal.locks import flush_folder, hold
from causcell.atlas.records import FileRecord, raise_on_full_disk, record_file
from causcell.errors import AtlasError

FOLDER = ".causcell"
"""Folder of the journal in the store."""

LARGEST_RECORD = 64 * 10**6
"""Bytes of a file of the journal that are read at most."""

_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
_FLUSHED_AT_ONCE = 16


class Storage(Protocol):
    """A place where a store is, or will be. Files are named by their paths in the store, with ``/`` between folders.

    Attributes
    ----------
    place
        The place, as messages name it.
    work
        Folder of this machine for files being written.
    disk
        Where `work` is, as messages of a full disk name it.
    lease
        What names the run that holds the place to its workers; empty where the holder's own end is told otherwise.
    """

    @property
    def place(self) -> str: ...  # noqa: D102
    @property
    def work(self) -> Path: ...  # noqa: D102
    @property
    def disk(self) -> str: ...  # noqa: D102
    @property
    def lease(self) -> str: ...  # noqa: D102

    def locked(self) -> AbstractContextManager[None]:
        """Hold the place against other runs, for a ``with`` block; see `causcell.atlas.journal.Journal.locked`."""
        ...

    def locked_if_writable(self) -> AbstractContextManager[bool]:
        """Hold the place where it can be written to; tell whether it can."""
        ...

    def read(self, name: str) -> bytes | None:
        """Return what a small file holds, `None` where there is none.

        Raises
        ------
        ValueError, OSError
            It is larger than `LARGEST_RECORD`, no file, or can't be read.
        """
        ...

    def refuse_existing(self) -> None:
        """Raise `OutputExistsError` if something is there."""
        ...

    def write(self, name: str, content: bytes, *, new: bool = False) -> None:
        """Write a small file, whole or not at all, so that it survives a loss of power from here on.

        Parameters
        ----------
        name, content
            Its name and what it holds.
        new
            Whether there is none yet; one that another run has written nevertheless is refused where a lock alone does
            not keep others out.
        """
        ...

    def put(self, files: Mapping[str, Path]) -> dict[str, FileRecord]:
        """Move finished files from `work` to their places: each is there whole or not at all, whatever happens then.

        Parameters
        ----------
        files
            Where each file is, by its name in the store.

        Returns
        -------
        Record of each file, by its name.
        """
        ...

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        ...

    def remove_folder(self, name: str) -> None:
        """Remove all files below a name, if there are any."""
        ...

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes, `None` where there is none, or something else."""
        ...

    def record(self, name: str) -> FileRecord | None:
        """Read a file and return its record as it is, `None` where there is none."""
        ...

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading at any offset; raises `OSError` where that can't be."""
        ...

    def names(self, folder: str = "") -> Iterator[str]:
        """Return the names of all files below a folder, those of the journal left out unless asked for."""
        ...

    def entries(self) -> dict[str, bool]:
        """Return the names at the top of the store, but for the journal's, and tell which are folders."""
        ...

    def zarr(self) -> Any:
        """Return what `zarr.open_group` opens the store by."""
        ...


class LocalStorage:
    """A store in a folder of this machine. See `Storage`.

    Parameters
    ----------
    path
        The store; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.place, self.disk, self.lease = path, str(path), str(path), ""
        self.folder = path / FOLDER
        self.work = self.folder / "work"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the place against other runs, with an empty `work` folder."""
        if not self.folder.is_dir():
            self.refuse_existing()
        with raise_on_full_disk(self.place):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._refuse_links()
        with hold(self.folder / "lock", self.path):
            shutil.rmtree(self.work, ignore_errors=True)
            self.work.mkdir()
            try:
                yield
            finally:
                shutil.rmtree(self.work, ignore_errors=True)

    @contextlib.contextmanager
    def locked_if_writable(self) -> Iterator[bool]:
        """Hold the place where it can be written to; tell whether it can. Nobody writes to a read-only one."""
        with contextlib.ExitStack() as stack:
            writable = os.access(self.folder, os.W_OK)
            if writable:
                try:
                    stack.enter_context(self.locked())
                except OSError as error:
                    if error.errno not in _READ_ONLY:
                        raise
                    writable = False
            if not writable:
                self._refuse_links()
            yield writable

    def _refuse_links(self) -> None:
        """Raise `AtlasError` for a symbolic link inside the store: what is written there would go elsewhere."""
        pending = [self.path]
        while pending:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_symlink():
                        raise AtlasError(
                            f"{entry.path!r} is a symbolic link; an atlas has none, and what is read or written there "
                            "would be another file: remove it, or copy the atlas with what its links point to (cp -rL)"
                        )
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(Path(entry.path))

    def refuse_existing(self) -> None:
        """Raise `OutputExistsError` if something is there; an empty folder is nothing."""
        refuse_existing(self.path)

    def read(self, name: str) -> bytes | None:
        """Return what a small file holds; no link is followed, no pipe waited for."""
        try:
            handle = os.open(self.path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_RECORD:
                raise ValueError(f"it is no file of up to {LARGEST_RECORD} bytes")
            return file.read()

    def write(self, name: str, content: bytes, *, new: bool = False) -> None:
        """Write a small file beside its place, flush it to disk and rename it; who holds the lock is alone."""
        with raise_on_full_disk(self.place):
            self.work.mkdir(exist_ok=True)
            handle, staged = tempfile.mkstemp(dir=self.work)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            self.put({name: Path(staged)})
            flush_folder((self.path / name).parent)

    def put(self, files: Mapping[str, Path]) -> dict[str, FileRecord]:
        """Rename finished files; all are flushed to disk at once, which a disk does in the time of one or two."""
        with ThreadPoolExecutor(_FLUSHED_AT_ONCE) as pool:
            records = dict(zip(files, pool.map(_flush_file, files.values()), strict=True))
        for name, staged in files.items():
            target = self.path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            staged.chmod(0o644)
            staged.rename(target)
        return records

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        (self.path / name).unlink(missing_ok=True)

    def remove_folder(self, name: str) -> None:
        """Remove a folder and all in it, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.path / name)

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes, `None` where there is none, a link, or something else."""
        try:
            status = os.lstat(f"{self.place}/{name}")  # without a Path: it is asked of every file of an atlas
        except OSError:
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def record(self, name: str) -> FileRecord | None:
        """Read a file and return its record as it is, `None` where there is none, a link, or something else."""
        return None if self.size(name) is None else record_file(self.path / name)

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading."""
        return (self.path / name).open("rb")

    def names(self, folder: str = "") -> Iterator[str]:
        """Return the names of all files below a folder, those of the journal left out unless asked for."""
        for parent, folders, files in os.walk(self.path / folder):
            inside = Path(parent).relative_to(self.path)
            if inside == Path():
                folders[:] = [name for name in folders if name != FOLDER]
            yield from ((inside / name).as_posix() for name in files)

    def entries(self) -> dict[str, bool]:
        """Return the names at the top of the store, but for the journal's, and tell which are folders."""
        return {path.name: path.is_dir() for path in self.path.iterdir() if path.name != FOLDER}

    def zarr(self) -> Path:
        """Return the path."""
        return self.path


def _flush_file(path: Path) -> FileRecord:
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return record_file(path)
