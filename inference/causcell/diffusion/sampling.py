"""The one loop that runs every solver."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from causcell.diffusion.solvers import Solver

Denoise = Callable[[np.ndarray, int], np.ndarray]
"""(x_t float32 [B x G], timestep) -> x0 given x_t, its mean or a draw, float32 [B x G]; standardised scale."""


def draw_spike_slab(
    probability: np.ndarray, mean: np.ndarray, deviation: np.ndarray, zero: np.ndarray, uniforms: np.ndarray
) -> np.ndarray:
    """One draw of x0 from "zero or Gaussian", by one uniform number each, float32 [B x G].

    Zero expression where u is at least the slab's probability, else the slab's quantile at u / probability.
    """
    from scipy.special import ndtri

    drawn = np.empty(uniforms.shape, dtype=np.float32)
    drawn[:] = zero
    expressed = np.flatnonzero(uniforms < probability)  # most are not, and quantiles are dear
    u, r, centre, spread = (each.ravel()[expressed] for each in (uniforms, probability, mean, deviation))
    drawn.ravel()[expressed] = centre + spread * ndtri(np.minimum(u / r, np.float32(1 - 2**-24)))
    return drawn


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
    """
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
