"""Find numbers that occur more than once among very many, in bounded memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import numpy as np

_RUN = 2**22
"""Numbers that are held and sorted at once, 8 bytes each."""

_RANGES = 64
"""Ranges of numbers that are compared one after the other."""


class RepeatFinder:
    """Find whole numbers that occur more than once. A context manager that removes its temporary file.

    Numbers are gathered in sorted runs. More than one run goes to a temporary file, 8 bytes a number, from which equal
    ranges of all runs are read together.

    Parameters
    ----------
    run
        Numbers of a run.

    Examples
    --------
    >>> with RepeatFinder(run=2) as finder:
    ...     finder.add(np.array([5, 7, 6, 5], dtype=np.uint64))
    ...     finder.repeated().tolist()
    [5]
    """

    def __init__(self, run: int = _RUN) -> None:
        self._held = np.empty(run, dtype=np.uint64)
        self._count = 0
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 closed with this object
        self._bounds: list[np.ndarray] = []
        self._edges = np.arange(1, _RANGES, dtype=np.uint64) * np.uint64(2**64 // _RANGES)

    def __enter__(self) -> RepeatFinder:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def add(self, numbers: np.ndarray) -> None:
        """Take further numbers, uint64 [n]."""
        start = 0
        while start < len(numbers):
            taken = min(len(self._held) - self._count, len(numbers) - start)
            self._held[self._count : self._count + taken] = numbers[start : start + taken]
            self._count, start = self._count + taken, start + taken
            if self._count == len(self._held):
                self._write_run()

    def _write_run(self) -> None:
        self._held.sort()
        self._file.seek(0, os.SEEK_END)
        self._held.tofile(self._file)
        within = np.searchsorted(self._held, self._edges)
        self._bounds.append(np.array([0, *within, len(self._held)]) + len(self._bounds) * len(self._held))
        self._count = 0

    def repeated(self) -> np.ndarray:
        """Return the numbers that were taken more than once, uint64, ascending."""
        last = np.sort(self._held[: self._count])
        return np.concatenate([_repeated(part) for part in self._ranges(last)])

    def _ranges(self, last: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the numbers of each range, from all runs."""
        if not self._bounds:
            yield last
            return
        within = np.array([0, *np.searchsorted(last, self._edges), len(last)])
        for place in range(_RANGES):
            parts = [last[within[place] : within[place + 1]]]
            for bounds in self._bounds:
                self._file.seek(int(bounds[place]) * 8)
                parts.append(np.fromfile(self._file, np.uint64, int(bounds[place + 1] - bounds[place])))
            yield np.sort(np.concatenate(parts))


def _repeated(ascending: np.ndarray) -> np.ndarray:
    return np.unique(ascending[1:][ascending[1:] == ascending[:-1]])
