"""Ancestral sampling by posterior draws of x0."""

from __future__ import annotations

from dataclasses import replace

from causcell.diffusion.schedule import NoiseSchedule
from causcell.diffusion.solvers.ddpm import ddpm
from causcell.diffusion.solvers.spacing import Spacing
from causcell.diffusion.solvers.table import Solver


def draw(schedule: NoiseSchedule, steps: int = 1, spacing: Spacing = "trailing") -> Solver:
    """Build ancestral sampling whose x0 is a posterior draw in place of the posterior mean.

    The table is that of `ddpm`. For draws from the true posterior p(x0 | x_t) each step is the exact reverse
    transition, however long: x_next ~ q(x_next | x_t, x0) with x0 ~ p(x0 | x_t) (Ho et al. 2020, equation 6). One step
    starts from pure noise, of which nothing is left in the answer: it is a posterior draw given the concepts alone.

    Parameters
    ----------
    schedule
        The noise schedule.
    steps
        Number of network evaluations; 1 evaluates the graph ``decoder`` once.
    spacing
        Where they are; see `causcell.diffusion.solvers.timesteps`.

    Raises
    ------
    ConfigurationError
        ``steps`` or ``spacing`` out of range.

    Examples
    --------
    >>> solver = draw(NoiseSchedule())
    >>> solver.steps, solver.draw, solver.from_noise
    (1, True, False)
    """
    return replace(ddpm(schedule, steps, spacing), draw=True, from_noise=steps > 1)
