"""DPM-Solver++(2M), after Lu et al., "DPM-Solver++: fast solver for guided sampling", 2022 (arXiv 2211.01095)."""

from __future__ import annotations

from typing import Literal

import numpy as np

from causcell.diffusion.schedule import NoiseSchedule
from causcell.diffusion.solvers.spacing import Spacing, timesteps
from causcell.diffusion.solvers.table import Solver, adjacent_alpha_bar, half_log_snr, solver_table


def dpmpp(schedule: NoiseSchedule, steps: int, spacing: Spacing = "trailing", order: Literal[1, 2] = 2) -> Solver:
    """Build DPM-Solver++(2M) (algorithm 2): deterministic, of second order by the x0 before.

    With h the step of lambda that is taken, h_prev the one before it, and a, b of `ddim` at eta 0::

        x_next = a x_t + b ((1 + h / (2 h_prev)) x0 - h / (2 h_prev) x0_prev)

    The first step and the last are of first order: there is no x0 before the one, and lambda is infinite after the
    other.

    Parameters
    ----------
    schedule
        The noise schedule.
    steps
        Number of network evaluations.
    spacing
        Where they are; see `causcell.diffusion.solvers.timesteps`.
    order
        1 is `ddim` at eta 0.

    Raises
    ------
    ConfigurationError
        ``steps`` or ``spacing`` out of range.
    """
    times = timesteps(schedule, steps, spacing)
    here, there = adjacent_alpha_bar(schedule, times)
    a = np.sqrt((1 - there) / (1 - here))
    b = np.sqrt(there) - a * np.sqrt(here)
    c = np.zeros(steps)
    if order == 2 and steps > 2:
        h = np.diff(half_log_snr(here))
        c[1:-1] = -b[1:-1] * h[1:] / (2 * h[:-1])
    return Solver(solver_table(times, a, b - c, c=c))
