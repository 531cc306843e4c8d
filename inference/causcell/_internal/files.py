"""Places to write to: taken ones are refused, new ones appear whole or not at all, nothing is left of what was stopped.

What is being written to ``NAME`` stands in the folder ``.NAME.causcell`` beside it, which one process holds at a time.
It goes when the writing ends, well or not; what a killed process leaves, the next one that writes there removes.
Temporary folders are swept likewise.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from causcell._internal.locks import flush_folder, hold
from causcell.errors import ConfigurationError, OutputError, OutputExistsError

_LOCK = "lock"
_SCRATCH = "causcell-scratch-"
_YOUNG = 60.0
"""Seconds in which a temporary folder without a lock may still get it."""

_own_scratch: dict[Path, int] = {}
"""Temporary folders that this process has made or is about to, with its number: a fork has them, too."""


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Fill a folder beside ``path``; it is renamed to ``path`` when the block ends well, removed when it does not.

    Raises
    ------
    OutputExistsError
        Something is at ``path`` already, and would be overwritten.
    OutputBusyError
        Another run is writing there.
    """
    target = local_path(path).absolute()
    refuse_existing(target)
    with staging_folder(target) as folder:
        staging = folder / target.name
        staging.mkdir()
        yield staging
        refuse_existing(target)
        staging.rename(target)
        flush_folder(target.parent)


@contextlib.contextmanager
def new_file(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Write a file beside ``path``; it is renamed to ``path`` when the block ends well, removed when it does not.

    A kill at any moment leaves the file that was there before, or none; never a part of one.

    Parameters
    ----------
    path
        The file.
    overwrite
        Replace a file that is there.

    Yields
    ------
    Path to write to, with the name of ``path``.

    Raises
    ------
    OutputExistsError
        Something is at ``path`` already, and ``overwrite`` is not set.
    OutputBusyError
        Another run is writing there.
    """
    target = local_path(path).absolute()
    if not overwrite:
        refuse_existing(target)
    with staging_folder(target) as folder:
        staging = folder / target.name
        yield staging
        with staging.open("rb") as file:
            os.fsync(file.fileno())
        if not overwrite:
            refuse_existing(target)
        staging.replace(target)
        flush_folder(target.parent)


@contextlib.contextmanager
def staging_folder(target: Path, *, keep: bool = False) -> Iterator[Path]:
    """Hold the folder beside ``target`` in which it is made, for a ``with`` block.

    Parameters
    ----------
    target
        What is made, an absolute path.
    keep
        Keep what the folder holds: before, and after a block that fails. Without it the folder is empty before, and
        gone afterwards.

    Raises
    ------
    OutputBusyError
        Another run is writing there.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = staging_place(target)
    with contextlib.ExitStack() as stack:
        while True:
            folder.mkdir(exist_ok=True)
            if folder.is_symlink():
                raise OutputError(f"{str(folder)!r} is a link, where {str(target)!r} would be made; remove it")
            try:
                stack.enter_context(hold(folder / _LOCK, target))
                break
            except FileNotFoundError:  # who held it ended, and removed it
                continue
        if not keep:
            _empty(folder)
        try:
            yield folder
        except BaseException:
            if not keep or all(_is_lock(path) for path in folder.iterdir()):
                _remove(folder)
            raise
        _remove(folder)


def staging_place(target: Path) -> Path:
    """Return the folder beside ``target`` in which it is made."""
    return target.with_name(f".{target.name}.causcell")


def _is_lock(path: Path) -> bool:
    return path.name.partition(".")[0] == _LOCK


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if _is_lock(path):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _remove(folder: Path) -> None:
    with contextlib.suppress(OSError):
        _empty(folder)
        (folder / _LOCK).unlink(missing_ok=True)
        for rest in folder.glob(f"{_LOCK}.*"):
            rest.unlink(missing_ok=True)
        folder.rmdir()


class ScratchFolder:
    """A folder for temporary files, removed when it is closed; what killed processes left is removed when one is made.

    Attributes
    ----------
    path
        The folder.
    """

    def __init__(self) -> None:
        _sweep_scratch(Path(tempfile.gettempdir()))
        self._stack = contextlib.ExitStack()
        self.path = _make_scratch()
        try:
            self._stack.enter_context(hold(self.path / _LOCK, self.path))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> ScratchFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._stack.close()
        _own_scratch.pop(self.path, None)


def _make_scratch() -> Path:
    """Make a folder for this user alone, which `remove_own_scratch` knows before it is there."""
    while True:
        folder = Path(tempfile.gettempdir()) / f"{_SCRATCH}{secrets.token_hex(4)}"
        _own_scratch[folder] = os.getpid()
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            del _own_scratch[folder]
            continue
        return folder


def remove_own_scratch() -> None:
    """Remove the temporary folders of this process that are left: a signal may come between any two steps.

    For the end of a process alone.
    """
    for folder, process in list(_own_scratch.items()):
        if process == os.getpid():
            shutil.rmtree(folder, ignore_errors=True)


def _sweep_scratch(parent: Path) -> None:
    """Remove this user's temporary folders whose processes have ended."""
    for folder in parent.glob(f"{_SCRATCH}*"):
        with contextlib.suppress(OSError, OutputError):
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
                continue
            if not (folder / _LOCK).exists() and time.time() - status.st_mtime < _YOUNG:
                continue
            with hold(folder / _LOCK, folder):
                shutil.rmtree(folder, ignore_errors=True)


def local_path(path: str | os.PathLike[str], what: str = "out") -> Path:
    """Return a path with ``~`` replaced by the home folder; what is no path of this machine is refused.

    Parameters
    ----------
    path
        A path, perhaps one that was a URL: ``Path("s3://bucket")`` is ``s3:/bucket``.
    what
        Name of the argument, for the message.

    Raises
    ------
    ConfigurationError
        A URL, such as ``s3://bucket/atlas.zarr``, or the home of a user that there is not.

    Examples
    --------
    >>> local_path("atlas.zarr")
    PosixPath('atlas.zarr')
    >>> local_path("s3://bucket/atlas.zarr")
    Traceback (most recent call last):
        ...
    causcell.errors.ConfigurationError: out='s3://bucket/atlas.zarr' is a URL, and files are read and written by paths \
of this machine; give a path, and copy it from or to there by that service's own tool
    """
    text = os.fspath(path)
    url = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/+", text)
    if url is not None:
        scheme, rest = url[1], text[url.end() :]
        if scheme.lower() == "file":
            raise ConfigurationError(f"{what}={f'file:///{rest}'!r} is a URL; give the path alone, {f'/{rest}'!r}")
        raise ConfigurationError(
            f"{what}={f'{scheme}://{rest}'!r} is a URL, and files are read and written by paths of this machine; "
            "give a path, and copy it from or to there by that service's own tool"
        )
    if "\0" in text:
        raise ConfigurationError(f"{what}={text!r} has a zero byte, which no path has")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigurationError(f"{what}={text!r}: {error}; give the path itself") from error


def is_full(error: OSError) -> bool:
    """Tell whether an error says that a disk, quota or file size is exhausted."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def refuse_existing(path: str | os.PathLike[str]) -> None:
    """Raise `OutputExistsError` if something is at ``path``; an empty folder is nothing."""
    target = local_path(path)
    if target.is_dir() and not any(target.iterdir()):
        return
    if target.exists() or target.is_symlink():
        raise OutputExistsError(
            f"{str(path)!r} exists already and is not overwritten; remove it, or name another place"
        )
