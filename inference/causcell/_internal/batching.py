"""Consecutive batches of one size."""

from __future__ import annotations

import numpy as np


def batches(count: int, size: int) -> list[slice]:
    """Cut ``count`` rows into consecutive slices of at most ``size`` rows.

    Examples
    --------
    >>> batches(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


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
