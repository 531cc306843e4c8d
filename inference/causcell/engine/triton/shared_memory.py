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

_ALIGNMENT = 64


_counter = itertools.count()


def _process_space() -> str:
    """Names the kernel's run and the process namespace: process numbers mean the same there, and nowhere else."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    namespace = re.sub(r"\D", "", str(Path("/proc/self/ns/pid").readlink()))
    return f"{boot}-{namespace}"


class Region:
    """Memory that a server reads inputs from and writes outputs to.

    Its file is unlinked as soon as the server has mapped it: a client that is killed leaves nothing in ``/dev/shm``.
    A region for another kind of memory (CUDA) would have the same methods.

    Attributes
    ----------
    name
        By which the server knows it; tells the process that it belongs to, see `abandoned`.
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
            _reserve(self._memory.name, size)
        except BaseException:
            self.close()
            raise

    def register(self, register: Callable[[str, str, int], object]) -> None:
        """Have the server map it, by its name, the file's key and the size; raises what ``register`` does."""
        try:
            register(self.name, f"/{self._memory.name}", self.size)
        finally:
            self._unlink()

    def write(self, offset: int, array: np.ndarray) -> None:
        """Copy an array to a place."""
        np.copyto(self._view(offset, array.dtype.name, array.shape), array)

    def read(self, offset: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        """A copy of an array from a place."""
        return self._view(offset, dtype, shape).copy()

    def close(self) -> None:
        """Let go of this process's mapping."""
        self._unlink()
        self._memory.close()

    def _view(self, offset: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        return np.ndarray(shape, dtype, buffer=self._memory.buf, offset=offset)

    def _unlink(self) -> None:
        if self._linked:
            self._memory.unlink()
            self._linked = False


def _reserve(name: str, size: int) -> None:
    """Have the pages of a file there now: those that are not to be had later end the process that writes to them."""
    file = os.open(Path("/dev/shm", name), os.O_RDWR)
    try:
        os.posix_fallocate(file, 0, size)
    finally:
        os.close(file)


def offsets(sizes: Iterable[int]) -> tuple[list[int], int]:
    """Aligned places for arrays of these sizes in bytes, and the size of the whole."""
    places, end = [], 0
    for size in sizes:
        places.append(end)
        end += -(-size // _ALIGNMENT) * _ALIGNMENT
    return places, end


def abandoned(names: Iterable[str]) -> list[str]:
    """Of the regions that a server knows, those whose process, of this host and process namespace, is gone."""
    prefix = f"causcell-{_process_space()}-"
    owned = (name for name in names if name.startswith(prefix))
    return [name for name in owned if not Path("/proc", name.removeprefix(prefix).split("-")[0]).exists()]
