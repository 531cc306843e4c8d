"""The conditional mean: one evaluation at pure noise."""

from __future__ import annotations

import numpy as np

from causcell.diffusion.schedule import NoiseSchedule
from causcell.diffusion.solvers.table import Solver


def mean(schedule: NoiseSchedule) -> Solver:
    """Build the conditional mean given the concepts: x0 at x_t = 0 and the last time. A profile, not a cell.

    Parameters
    ----------
    schedule
        The noise schedule.
    """
    return Solver(np.array([[schedule.timesteps - 1, 0.0, 1.0, 0.0, 0.0]]), from_noise=False)
