"""Search of arrays for values that are none: NaN, infinite, out of range."""

from __future__ import annotations

import math

import numpy as np


def first_unsound(values: np.ndarray, low: float = -math.inf, high: float = math.inf) -> tuple[int, ...] | None:
    """Return the place of the first value that is not finite or not within ``low`` to ``high``; `None` if all are.

    Parameters
    ----------
    values
        float16, float32 or float64, of any shape.
    low, high
        Range, its ends included.

    Examples
    --------
    >>> first_unsound(np.array([[0.5, 1.0], [2.0, np.nan]]))
    (1, 1)
    >>> first_unsound(np.array([[0.5, 1.0], [2.0, -3.0]]), low=0)
    (1, 1)
    >>> first_unsound(np.array([0.5, 1.0]), low=0, high=1)
    """
    if not values.size or _all_sound(values, low, high):
        return None
    bad = ~(np.isfinite(values) & (values >= low) & (values <= high))
    if not bad.any():  # such as -0.0
        return None
    place = np.unravel_index(int(np.argmax(bad)), bad.shape)
    return tuple(int(each) for each in place)


def _all_sound(values: np.ndarray, low: float, high: float) -> bool:
    """Tell, in one or two passes without a copy, that all is well; False where it may not be."""
    if low == 0:  # floats that are not negative are in the order of their bits, NaN and infinity above all others
        unsigned = np.dtype(f"u{values.dtype.itemsize}")
        highest = np.array(min(high, float(np.finfo(values.dtype).max)), dtype=values.dtype).view(unsigned)
        return bool(values.view(unsigned).max() <= highest)
    smallest, largest = values.min(), values.max()  # NaN if any is
    return bool(smallest >= low and largest <= high and np.isfinite(smallest) and np.isfinite(largest))
