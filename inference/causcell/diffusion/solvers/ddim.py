"""DDIM, after Song, Meng and Ermon, "Denoising diffusion implicit models", ICLR 2021 (arXiv 2010.02502)."""

from __future__ import annotations

import numpy as np

from causcell.diffusion.schedule import NoiseSchedule
from causcell.diffusion.solvers.spacing import Spacing, timesteps
from causcell.diffusion.solvers.table import Solver, adjacent_alpha_bar, solver_table
from causcell.errors import ConfigurationError


def ddim(schedule: NoiseSchedule, steps: int, spacing: Spacing = "trailing", eta: float = 0.0) -> Solver:
    """Build DDIM (equations 12 and 16).

    With abar of this time and abar' of the next one::

        s = eta sqrt((1 - abar') / (1 - abar)) sqrt(1 - abar / abar')
        x_next = sqrt(abar') x0 + sqrt(1 - abar' - s^2) (x_t - sqrt(abar) x0) / sqrt(1 - abar) + s noise

    Parameters
    ----------
    schedule
        The noise schedule.
    steps
        Number of network evaluations.
    spacing
        Where they are; see `causcell.diffusion.solvers.timesteps`.
    eta
        Share of ancestral noise: 0 is deterministic, 1 is `ddpm`.

    Raises
    ------
    ConfigurationError
        ``steps``, ``spacing`` or ``eta`` out of range.

    Examples
    --------
    >>> solver = ddim(NoiseSchedule(), steps=3)
    >>> solver.table[:, 0]
    array([999., 666., 332.])
    >>> solver.table[-1, 1:]  # a, b, c, s: the last step returns x0
    array([0., 1., 0., 0.])
    >>> solver.deterministic
    True
    """
    if not 0 <= eta <= 1:
        raise ConfigurationError(f"eta is {eta}; it goes from 0 (deterministic) to 1 (ancestral)")
    times = timesteps(schedule, steps, spacing)
    here, there = adjacent_alpha_bar(schedule, times)
    s = eta * np.sqrt((1 - there) / (1 - here) * (1 - here / there))  # eq. 16
    a = np.sqrt(np.maximum(1 - there - s**2, 0) / (1 - here))  # eq. 12, with the noise written by x_t and x0
    b = np.sqrt(there) - a * np.sqrt(here)
    return Solver(solver_table(times, a, b, s=s))
