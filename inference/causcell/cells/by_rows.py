"""What is known of each cell, read by rows as it is asked for, where there are too many cells to keep it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

_BLOCK = 2**18
"""Rows that are read at once."""

_KEPT = 2
"""Blocks that are kept: consecutive rows lie in one or two."""


class ByRows:
    """An array of consecutive rows that are read when they are asked for, block by block.

    Parameters
    ----------
    count
        Number of rows.
    read
        Reads consecutive rows.
    block
        Rows of a block; 262,144, if not given.

    Examples
    --------
    >>> rows = ByRows(10, lambda rows: np.arange(rows.start, rows.stop), block=4)
    >>> rows[3:6], len(rows)
    (array([3, 4, 5]), 10)
    """

    def __init__(self, count: int, read: Callable[[slice], np.ndarray], block: int | None = None) -> None:
        self._count, self._read, self._block = count, read, block or _BLOCK
        self._blocks: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(self._count)
        first, last = start // self._block, max(stop - 1, start) // self._block
        parts = []
        for place in range(first, last + 1):
            base = place * self._block
            parts.append(self._get(place)[max(start - base, 0) : max(stop - base, 0)])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)

    def _get(self, place: int) -> np.ndarray:
        with self._lock:
            if place not in self._blocks:
                while len(self._blocks) >= _KEPT:
                    self._blocks.pop(next(iter(self._blocks)))
                base = place * self._block
                self._blocks[place] = self._read(slice(base, min(base + self._block, self._count)))
            return self._blocks[place]


Rows = np.ndarray | ByRows
"""Rows in memory, or read as they are asked for: ``rows[slice]`` gives an array either way."""
