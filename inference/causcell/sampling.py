"""The one loop that runs every solver."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from causcell.errors import ConfigurationError
from causcell.solvers import Solver

Denoise = Callable[[np.ndarray, int], np.ndarray]
"""(x_t float32 [B x G], timestep) -> mean of x0 given x_t, float32 [B x G], both on the standardised scale."""


def sample(
    denoise: Denoise,
    solver: Solver,
    shape: tuple[int, int],
    *,
    initial_noise: Callable[[], np.ndarray],
    step_noise: Callable[[int], np.ndarray],
) -> np.ndarray:
    """Run a solver's table from pure noise to the clean end.

    Parameters
    ----------
    denoise
        The denoiser, with its concepts bound.
    solver
        The table.
    shape
        (B, G).
    initial_noise, step_noise
        Standard normals float32 [B x G]: for the start, and for step i. Asked for only where they are needed.

    Returns
    -------
    x0 on the standardised scale, float32 [B x G].

    Raises
    ------
    ConfigurationError
        The solver draws from a posterior, which a denoiser that returns a mean does not have.
    """
    if solver.draw:
        raise ConfigurationError(
            "this solver draws from the head's posterior, and this model's head has none: take another"
        )
    x = initial_noise() if solver.from_noise else np.zeros(shape, dtype=np.float32)
    x0_previous: np.ndarray | None = None
    for step, (t, a, b, c, s) in enumerate(solver.table):
        x0 = denoise(x, int(t))
        x = np.float32(a) * x + np.float32(b) * x0
        if c and x0_previous is not None:
            x += np.float32(c) * x0_previous
        if s:
            x += np.float32(s) * step_noise(step)
        x0_previous = x0
    return x
