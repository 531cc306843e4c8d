"""Ancestral sampling, after Ho, Jain and Abbeel, "Denoising diffusion probabilistic models" (arXiv 2006.11239)."""

from __future__ import annotations

import numpy as np

from causcell.diffusion.schedule import NoiseSchedule
from causcell.diffusion.solvers.spacing import Spacing, timesteps
from causcell.diffusion.solvers.table import Solver, adjacent_alpha_bar, solver_table


def ddpm(schedule: NoiseSchedule, steps: int, spacing: Spacing = "trailing") -> Solver:
    """Build ancestral sampling with the posterior's variance, over any subset of times (equations 6 and 7).

    With abar of this time, abar' of the next one and alpha = abar / abar'::

        x_next = (sqrt(alpha) (1 - abar') x_t + sqrt(abar') (1 - alpha) x0) / (1 - abar) + s noise
        s^2 = (1 - abar') (1 - alpha) / (1 - abar)

    Parameters
    ----------
    schedule
        The noise schedule.
    steps
        Number of network evaluations.
    spacing
        Where they are; see `causcell.diffusion.solvers.timesteps`.

    Raises
    ------
    ConfigurationError
        ``steps`` or ``spacing`` out of range.
    """
    times = timesteps(schedule, steps, spacing)
    here, there = adjacent_alpha_bar(schedule, times)
    alpha = here / there
    a = np.sqrt(alpha) * (1 - there) / (1 - here)
    b = np.sqrt(there) * (1 - alpha) / (1 - here)
    s = np.sqrt((1 - there) / (1 - here) * (1 - alpha))
    return Solver(solver_table(times, a, b, s=s))
