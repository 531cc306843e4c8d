"""Solvers as tables: every sampling loop is ``x_next = a x_t + b x0 + c x0_prev + s noise``, row after row.

Symbols, as in Song, Meng and Ermon 2021 (DDIM), Ho, Jain and Abbeel 2020 (DDPM), Lu et al. 2022 (DPM-Solver++)::

    abar_t     share of signal variance at t            schedule.alpha_bar[t]; 1 at the clean end
    lambda_t   log sqrt(abar_t / (1 - abar_t))          half the log signal-to-noise ratio
    x0         prediction of the clean x at t           the denoiser's answer
    x0_prev    the same, at the time before
    s          deviation of the fresh noise             their sigma_t (DDIM, DDPM)

A table's rows go from the noisiest time to the clean end; the last row returns x0 itself. Each solver has a file of
its own; `register_solver` adds one from outside, and `causcell.diffusion.contract.check_solver` tells whether it keeps
to what the sampling loops count on.
"""

from __future__ import annotations

from typing import Any

from causcell._deprecation import warn_deprecated
from causcell.diffusion.solvers.ddim import ddim
from causcell.diffusion.solvers.ddpm import ddpm
from causcell.diffusion.solvers.dpmpp import dpmpp
from causcell.diffusion.solvers.draw import draw
from causcell.diffusion.solvers.mean import mean
from causcell.diffusion.solvers.registry import (
    Estimate,
    SolverBuilder,
    SolverSpec,
    known_solvers,
    register_solver,
    solver_spec,
)
from causcell.diffusion.solvers.settings import SolverSettings
from causcell.diffusion.solvers.spacing import SPACINGS, Spacing, timesteps
from causcell.diffusion.solvers.table import Solver, adjacent_alpha_bar, half_log_snr, solver_table

__all__ = [
    "SPACINGS",
    "Estimate",
    "Solver",
    "SolverBuilder",
    "SolverSettings",
    "SolverSpec",
    "Spacing",
    "adjacent_alpha_bar",
    "ddim",
    "ddpm",
    "dpmpp",
    "draw",
    "half_log_snr",
    "known_solvers",
    "mean",
    "register_solver",
    "solver_spec",
    "solver_table",
    "timesteps",
]


def __getattr__(name: str) -> Any:
    if name == "SOLVERS":
        warn_deprecated("causcell.diffusion.solvers.SOLVERS", "causcell.diffusion.solvers.known_solvers()")
        return known_solvers()
    raise AttributeError(f"module 'causcell.diffusion.solvers' has no attribute {name!r}")
