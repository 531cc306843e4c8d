"""System shared memory between a client and a server on one host."""

from __future__ import annotations

import itertools
import os
import re
import uuid
from collections.abc import Callable, Iterable
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np

_ALIGNMENT = 64  # bytes

_counter = itertools.count()


class Region:
    """Memory that a server reads inputs from and writes outputs to.

    Its file is unlinked as soon as the server has mapped it: a client that is killed leaves nothing in ``/dev/shm``.

    Parameters
    ----------
    size
        Bytes.

    Attributes
    ----------
    name
        Name by which the server knows the region; it tells which process owns it, see `find_abandoned`.
    size
        Bytes.

    Raises
    ------
    OSError
        There is not so much shared memory; containers have 64 MB unless they are given more.
    """

    def __init__(self, size: int) -> None:
        self.name = f"causcell-{_process_space()}-{os.getpid()}-{next(_counter)}-{uuid.uuid4().hex[:8]}"
        self.size = size
        self._memory = SharedMemory(create=True, size=size)
        self._linked = True
        try:
            _allocate(self._memory.name, size)
        except BaseException:
            self.close()
            raise

    def register(self, register: Callable[[str, str, int], object]) -> None:
        """Let the server map the region, then unlink its file.

        Parameters
        ----------
        register
            Called with the region's name, the file's key and the size; what it raises is raised.
        """
        try:
            register(self.name, f"/{self._memory.name}", self.size)
        finally:
            self._unlink()

    def write(self, offset: int, array: np.ndarray) -> None:
        """Copy an array into the region, ``offset`` bytes from its start."""
        np.copyto(self._view(offset, array.dtype.name, array.shape), array)

    def read(self, offset: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        """Copy an array out of the region, ``offset`` bytes from its start."""
        return self._view(offset, dtype, shape).copy()

    def close(self) -> None:
        """Release this process's mapping."""
        self._unlink()
        self._memory.close()

    def _view(self, offset: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        return np.ndarray(shape, dtype, buffer=self._memory.buf, offset=offset)

    def _unlink(self) -> None:
        if self._linked:
            self._memory.unlink()
            self._linked = False


def place_arrays(sizes: Iterable[int]) -> tuple[list[int], int]:
    """Lay arrays out one after the other, aligned.

    Parameters
    ----------
    sizes
        Bytes of each array.

    Returns
    -------
    Offset of each array, and the size of the whole, in bytes.

    Examples
    --------
    >>> place_arrays([100, 64, 1])
    ([0, 128, 192], 256)
    """
    offsets, end = [], 0
    for size in sizes:
        offsets.append(end)
        end += -(-size // _ALIGNMENT) * _ALIGNMENT
    return offsets, end


def find_abandoned(names: Iterable[str]) -> list[str]:
    """Return those of a server's regions whose process, of this host and process namespace, is gone."""
    prefix = f"causcell-{_process_space()}-"
    owned = (name for name in names if name.startswith(prefix))
    return [name for name in owned if not Path("/proc", name.removeprefix(prefix).split("-")[0]).exists()]


def _process_space() -> str:
    """Name the kernel's boot and the process namespace: process numbers mean the same there, and nowhere else."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    namespace = re.sub(r"\D", "", str(Path("/proc/self/ns/pid").readlink()))
    return f"{boot}-{namespace}"


def _allocate(name: str, size: int) -> None:
    """Allocate the pages now: running out later would raise SIGBUS."""
    file = os.open(Path("/dev/shm", name), os.O_RDWR)
    try:
        os.posix_fallocate(file, 0, size)
    finally:
        os.close(file)
