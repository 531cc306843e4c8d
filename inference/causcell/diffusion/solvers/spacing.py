"""Timesteps at which a solver evaluates the network."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from causcell._internal.choices import check_choice
from causcell.diffusion.schedule import NoiseSchedule
from causcell.diffusion.solvers.table import half_log_snr
from causcell.errors import ConfigurationError

Spacing = Literal["trailing", "uniform", "log_snr"]

SPACINGS: tuple[Spacing, ...] = get_args(Spacing)
"""Names of the spacings of `timesteps`."""


def timesteps(schedule: NoiseSchedule, steps: int, spacing: Spacing = "trailing") -> np.ndarray:
    """Choose the times to evaluate at.

    Parameters
    ----------
    schedule
        The noise schedule, of T timesteps.
    steps
        Number of network evaluations, from 1 to T.
    spacing
        ``trailing`` steps back from T by T / steps, so that the last step is as long as the others; ``uniform`` spreads
        the times evenly from T - 1 to 0; ``log_snr`` spreads lambda evenly over the same range, to the nearest times
        that are still free.

    Returns
    -------
    int64 [steps], strictly descending from T - 1.

    Raises
    ------
    ConfigurationError
        Steps out of range, or an unknown spacing.

    Examples
    --------
    >>> timesteps(NoiseSchedule(), 5)
    array([999, 799, 599, 399, 199])
    >>> timesteps(NoiseSchedule(), 5, "uniform")
    array([999, 749, 500, 250,   0])
    """
    check_choice(spacing, SPACINGS, "spacing")
    total = schedule.timesteps
    if not 1 <= steps <= total:
        raise ConfigurationError(f"{steps} steps are not possible; take from 1 to {total}, the schedule's timesteps")
    if spacing == "trailing":
        return np.round(total - np.arange(steps) * total / steps).astype(np.int64) - 1
    if spacing == "uniform":
        return np.round(np.linspace(total - 1, 0, steps)).astype(np.int64)
    rising = half_log_snr(schedule.alpha_bar)[::-1]
    nearest = np.interp(np.linspace(rising[0], rising[-1], steps), rising, np.arange(total)[::-1])
    left = np.arange(steps)[::-1]  # times needed below each
    return np.minimum.accumulate(np.maximum(np.round(nearest).astype(np.int64), left) - left) + left
