"""Rows of many: consecutive batches of one size, and samples."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

Places = TypeVar("Places", slice, np.ndarray)
"""Consecutive rows, or places of rows in ascending order."""


def batches(count: int, size: int) -> list[slice]:
    """Cut ``count`` rows into consecutive slices of at most ``size`` rows.

    Examples
    --------
    >>> batches(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def choose_at_most(rows: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """Choose at most so many rows at random, ascending; where there are no more, they are given back as they are.

    Examples
    --------
    >>> choose_at_most(np.arange(10), 3, np.random.default_rng(0))
    array([5, 6, 9])
    """
    return rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))


def rows_within(rows: Places, start: int, count: int) -> Places | None:
    """Return which of some rows are among ``count`` from ``start`` on, counted from there; `None` if none is.

    Examples
    --------
    >>> rows_within(slice(3, 9), 5, 10), rows_within(slice(3, 5), 5, 10)
    (slice(0, 4, None), None)
    >>> rows_within(np.array([3, 5, 9]), 5, 10)
    array([0, 4])
    """
    if isinstance(rows, slice):
        first, last = (min(max(edge - start, 0), count) for edge in (rows.start, rows.stop))
        return slice(first, last) if first < last else None
    within = rows[slice(*rows.searchsorted([start, start + count]))] - start
    return within if len(within) else None


def pad_batch(array: np.ndarray, size: int) -> np.ndarray:
    """Repeat the last row of ``array`` [n x ...] up to ``size`` rows: batches of one size give the same bits anywhere.

    Examples
    --------
    >>> import numpy as np
    >>> pad_batch(np.array([1, 2]), 4)
    array([1, 2, 2, 2])
    """
    if len(array) == size:
        return array
    return np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])
