"""Intervals around a prediction whose variance is partly estimated and partly known."""

from __future__ import annotations

import numpy as np

from causcell.errors import ConfigurationError

LEVEL = 0.9
"""Level of intervals, if not chosen."""


def check_level(level: float) -> float:
    """Check the level of an interval, which lies between 0 and 1; raises `ConfigurationError`."""
    if not 0 < level < 1:
        raise ConfigurationError(
            f"interval={level} is no level of an interval; give a share between 0 and 1, such as 0.9"
        )
    return float(level)


def add_error(sampling: np.ndarray, error: np.ndarray, freedom: float) -> tuple[np.ndarray, np.ndarray]:
    """Add the mean square of a model's error, taken as known, to a sampling variance that is estimated.

    Parameters
    ----------
    sampling, error, freedom
        As in `half_width`.

    Returns
    -------
    The sum, and its degrees of freedom by Satterthwaite (1946), both float64.

    Examples
    --------
    >>> add_error(np.array([1.0, 1.0]), np.array([0.0, 1.0]), 5)
    (array([1., 2.]), array([ 5., 20.]))
    """
    total = np.asarray(sampling, dtype=np.float64) + error
    with np.errstate(divide="ignore", invalid="ignore"):
        degrees = np.where(sampling > 0, freedom * (total / sampling) ** 2, np.inf)
    return total, np.minimum(degrees, 1e9)


def half_width(sampling: np.ndarray, error: np.ndarray, freedom: float, level: float = LEVEL) -> np.ndarray:
    """Return half the width of an interval around a predicted effect.

    Parameters
    ----------
    sampling
        Sampling variance, estimated with ``freedom`` degrees of freedom.
    error
        Mean square of the model's error, of the same shape, taken as known.
    freedom
        Degrees of freedom of ``sampling``.
    level
        Share of the intervals that hold the effect.

    Returns
    -------
    float64, of the same shape: Student's quantile times the root of the sum; NaN where ``error`` is.

    Examples
    --------
    >>> half_width(np.array([0.0, 1.0]), np.array([1.0, 0.0]), freedom=7).round(3).tolist()
    [1.645, 1.895]
    """
    from scipy.special import stdtrit

    total, degrees = add_error(sampling, error, freedom)
    return np.asarray(stdtrit(degrees, (1 + level) / 2) * np.sqrt(total))
