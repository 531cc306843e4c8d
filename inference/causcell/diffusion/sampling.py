"""The one loop that runs every solver."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from causcell.diffusion.slab import find_expressed
from causcell.diffusion.solvers import Solver

Denoise = Callable[[np.ndarray, int], np.ndarray]
"""(x_t float32 [B x G], timestep) -> posterior mean or posterior draw of x0, float32 [B x G]; standardised scale."""

POSTERIOR_OUTPUTS = ("slab_probability", "slab_mean", "slab_deviation")
"""Outputs of the graph ``denoiser`` by which this module draws x0 in loops of many steps: p(x0 | x_t) for each gene is
zero expression or, with the probability, a Gaussian slab (standardised scale, float32 [B x G] each)."""


def draw_spike_slab(
    probability: np.ndarray, mean: np.ndarray, deviation: np.ndarray, zero: np.ndarray, uniforms: np.ndarray
) -> np.ndarray:
    """Draw x0 from a posterior of "zero or Gaussian", by one uniform number u a value.

    Zero expression where u is at least the slab's probability r; else ``mean + deviation Phi^-1(u / r)``, the slab's
    quantile.

    Parameters
    ----------
    probability, mean, deviation
        The slab's, float32 [B x G]; standardised scale.
    zero
        Standardised zero expression, float32 [G].
    uniforms
        Uniform numbers within (0, 1), float32 [B x G].

    Returns
    -------
    x0 on the standardised scale, float32 [B x G].
    """
    drawn = np.empty(uniforms.shape, dtype=np.float32)
    drawn[:] = zero
    places, quantile = find_expressed(probability, uniforms)
    quantile *= deviation.ravel()[places]
    quantile += mean.ravel()[places]
    drawn.ravel()[places] = quantile
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

    Each row (t, a, b, c, s) is one step, ``x_next = a x_t + b x0 + c x0_prev + s noise``.

    Parameters
    ----------
    denoise
        The denoiser, with its concepts bound.
    solver
        The table.
    shape
        Cells and genes, (B, G).
    initial_noise, step_noise
        Functions that return standard normals, float32 [B x G]: for the start, and for step i. They are called only
        where the table needs noise.

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
