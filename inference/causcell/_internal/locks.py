"""One holder of a place at a time, on file systems with and without ``flock``.

With ``flock`` the kernel lets go of a place when its holder ends, however it ends, also on another machine. Some mounts
have none (Lustre without ``-o flock``, some of NFS, FUSE and SMB). There a file beside the lock says who holds it:
host, boot, process and the time that it started. It is made by ``O_EXCL``, which is atomic everywhere. What a dead
process of this machine left is taken over; of a process of another machine nobody here can tell, so that it is refused,
and the message says what to remove. All machines that write to one place have to mount it alike.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from causcell.errors import OutputBusyError, OutputError

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EBADF)
_LARGEST_OWNER = 4096
_FIRST_NAMESPACE = 4026531836
"""Inode of the process namespace of a machine itself, as against those of containers; the kernel's constant."""


@contextlib.contextmanager
def hold(lock: Path, place: Path) -> Iterator[None]:
    """Hold a place for a ``with`` block, by a file that is made if it is not there and never written to.

    Parameters
    ----------
    lock
        The file; its folder is there.
    place
        What is held, for messages.

    Raises
    ------
    OutputBusyError
        Another run holds it.
    OutputError
        The file is a link, or no file.
    """
    while True:
        handle = _open_lock(lock, place)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OutputBusyError(
                    f"another run is writing to {str(place)!r}; wait for it, or name another place"
                ) from None
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                with _own(lock.with_name(f"{lock.name}.owner"), place):
                    yield
                return
            if _is_at(handle, lock):  # not removed by who held it before
                yield
                return
        finally:
            os.close(handle)


def _open_lock(lock: Path, place: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(lock, flags, 0o644)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise OutputError(
                f"{str(lock)!r} is a link or no file, and the lock of {str(place)!r}; remove it"
            ) from None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OutputError(f"{str(lock)!r} is no file, and the lock of {str(place)!r}; remove it")
    return handle


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


# -- without flock -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _own(owner: Path, place: Path) -> Iterator[None]:
    """Hold a place by a file that says who holds it."""
    me = describe_process(os.getpid())
    if not _create(owner, me):
        _take_over(owner, place)
        if not _create(owner, me):
            raise _busy(owner, place, _read_owner(owner))
    try:
        yield
    finally:
        owner.unlink(missing_ok=True)


def _create(path: Path, fields: dict[str, Any]) -> bool:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w") as file:
        json.dump(fields, file)
    return True


def _take_over(owner: Path, place: Path) -> None:
    """Remove what a process of this machine left that is no longer there; one at a time, by a file of its own."""
    turn = owner.with_name(f"{owner.name}.turn")
    if not _create(turn, {}):
        raise _busy(turn, place, {})
    try:
        there = _read_owner(owner)
        if there is None:
            return
        if not _has_ended(there):
            raise _busy(owner, place, there)
        owner.unlink(missing_ok=True)
    finally:
        turn.unlink(missing_ok=True)


def _has_ended(there: dict[str, Any]) -> bool:
    """Tell whether a process is known to have ended; of one of another machine or container nobody here knows."""
    if "pid" not in there:
        return False
    here = describe_process(there["pid"])
    if any(there.get(name) != here[name] for name in ("host", "namespace")):
        return False
    if there.get("boot") != here["boot"]:  # a machine that was started again, or a container of another one
        return bool(here["namespace"] == _FIRST_NAMESPACE)
    return bool(there.get("started") != here["started"])


def _read_owner(owner: Path) -> dict[str, Any] | None:
    """Return who holds a place: `None` where nobody does, nothing where that can't be read."""
    try:
        handle = os.open(owner, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError:
        return {}
    with os.fdopen(handle, "rb") as file:
        try:
            fields = json.loads(file.read(_LARGEST_OWNER))
            return fields if isinstance(fields, dict) and isinstance(fields.get("pid"), int) else {}
        except (OSError, ValueError, RecursionError):
            return {}


def _busy(file: Path, place: Path, there: dict[str, Any] | None) -> OutputBusyError:
    who = f"process {there['pid']} on {there.get('host')!r}" if there and "pid" in there else "another run"
    return OutputBusyError(
        f"{who} is writing to {str(place)!r}, whose file system has no locks (flock) that would tell whether it still "
        f"runs; wait for it, or remove {str(file)!r} if it has ended"
    )


def describe_process(pid: int) -> dict[str, Any]:
    """Return what tells a process from every other one, also from later ones of its number."""
    try:
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        started = None
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = None
    try:
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        namespace = None
    return {"host": platform.node(), "boot": boot, "namespace": namespace, "pid": pid, "started": started}


# -- to disk -----------------------------------------------------------------------------------------------------------


def flush_folder(path: Path) -> None:
    """Make the renames in a folder survive a loss of power, where the file system can (some of FUSE and SMB can't)."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(folder)
