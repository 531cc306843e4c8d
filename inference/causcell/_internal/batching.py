"""Consecutive batches of one size."""

from __future__ import annotations

import numpy as np


def batches(count: int, size: int) -> list[slice]:
    """Consecutive slices of at most ``size`` rows that cover ``count`` rows."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def pad_batch(array: np.ndarray, size: int) -> np.ndarray:
    """The array with its last row repeated up to ``size`` rows: batches of one size give the same bits anywhere."""
    if len(array) == size:
        return array
    return np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])
