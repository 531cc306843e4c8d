"""The conditional mean: one evaluation at pure noise."""

from __future__ import annotations

import numpy as np

from causcell.diffusion.schedule import NoiseSchedule
from causcell.diffusion.solvers.table import Solver


def mean(schedule: NoiseSchedule) -> Solver:
    """Build the conditional mean given the concepts: x0 at x_t = 0 and the last time. A profile, not a cell.

    A model with the graph ``slab`` gives it at pure noise itself. At the last time abar is 4e-5: of 1,024,000 values
    (Kang) 13 differ by more than .001, none by more than .0016.

    Parameters
    ----------
    schedule
        The noise schedule.
    """
    return Solver(np.array([[schedule.timesteps - 1, 0.0, 1.0, 0.0, 0.0]]), from_noise=False)
