"""Contract test of solvers, for their authors: what the sampling loops and the presets count on."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from causcell.diffusion.schedule import NoiseSchedule
from causcell.diffusion.solvers import SPACINGS, Solver, SolverBuilder, SolverSpec, solver_spec
from causcell.errors import ConfigurationError

SCHEDULES = (NoiseSchedule("linear", 1000), NoiseSchedule("cosine", 1000), NoiseSchedule("linear", 50))
STEPS = (1, 2, 3, 10, 49, 50)
MEAN, DEVIATION = 0.5, 0.8
"""Cells for which the best denoiser is known: N(MEAN, DEVIATION^2)."""


def check_solver(solver: str | SolverSpec | SolverBuilder) -> None:
    """Check that a solver keeps the contract of `causcell.diffusion.solvers`.

    Its table is built over linear and cosine schedules, several numbers of steps, every spacing and, where it takes
    one, several eta. Of each it is checked that

    - it is a `Solver` with a finite table, float64 [S x 5], one row a network evaluation;
    - times are whole, lie within the schedule, start at its last and never rise;
    - the last row returns x0;
    - cells that all are one point are returned exactly: ``a sqrt(abar) + b + c = sqrt(abar_next)`` in every row;
    - building it again gives the same table.

    0 steps raise `ConfigurationError`. Samples of Gaussian cells, with their best
    denoiser and 200 steps, have their mean (within 0.05) and their variance (within 20 %); a solver whose estimate is
    ``mean`` returns their mean, without variance.

    Parameters
    ----------
    solver
        The name of a registered solver, a `SolverSpec`, or a builder: then what it takes is read from its signature,
        and its estimate is ``sample`` if its result is random.

    Raises
    ------
    AssertionError
        The contract is broken; the message says by which table, and how.
    ConfigurationError
        The name is not known.

    Examples
    --------
    >>> from causcell.diffusion.solvers import ddim
    >>> check_solver("dpmpp")
    >>> check_solver(lambda schedule, steps, spacing: ddim(schedule, steps, spacing, eta=0.5))
    """
    if isinstance(solver, SolverSpec):
        spec = solver
    else:
        spec = solver_spec(solver) if isinstance(solver, str) else _spec_of(solver)
    for schedule in SCHEDULES:
        for options in _options(spec):
            _check_table(spec, schedule, options)
    if spec.takes_steps:
        _check_refused(spec, 0)
    _check_gaussian(spec)


def gaussian_x0(x: np.ndarray, alpha_bar: float, mean: float, deviation: float) -> np.ndarray:
    """Return the posterior mean of x0 given x_t, for x0 ~ N(mean, deviation^2)."""
    gain = np.sqrt(alpha_bar) * deviation**2 / (alpha_bar * deviation**2 + 1 - alpha_bar)
    return np.asarray(mean + gain * (x - np.sqrt(alpha_bar) * mean))


def gaussian_moments(schedule: NoiseSchedule, solver: Solver, mean: float, deviation: float) -> tuple[float, float]:
    """Return the mean and variance that a solver makes of pure noise with the best denoiser of N(mean, deviation^2).

    They are exact, because every step is linear in x, x0_prev and noise.
    """
    centre = np.zeros(2)  # of x and of the x0 before
    covariance = np.diag([1.0 if solver.from_noise else 0.0, 0.0])
    for t, a, b, c, s in solver.table:
        alpha_bar = float(schedule.alpha_bar[int(t)])
        offset, slope = gaussian_x0(np.array([0.0, 1.0]), alpha_bar, mean, deviation).tolist()
        slope -= offset
        step = np.array([[a + b * slope, c], [slope, 0]])
        spread = deviation**2 * (1 - alpha_bar) / (alpha_bar * deviation**2 + 1 - alpha_bar) if solver.draw else 0.0
        drawn = np.array([b, 1.0])
        centre = step @ centre + drawn * offset
        covariance = step @ covariance @ step.T + spread * np.outer(drawn, drawn) + np.diag([s**2, 0])
    return float(centre[0]), float(covariance[0, 0])


def _spec_of(build: SolverBuilder) -> SolverSpec:
    takes = inspect.signature(build).parameters
    spec = SolverSpec(build, takes_steps="steps" in takes, takes_eta="eta" in takes, estimate="sample")
    random = _build(spec, SCHEDULES[0], next(_options(spec))).random
    return spec if random else replace(spec, estimate="mean")


def _options(spec: SolverSpec) -> Iterator[dict[str, Any]]:
    for steps in STEPS if spec.takes_steps else (1,):
        for spacing in SPACINGS if spec.takes_steps else SPACINGS[:1]:
            for eta in (0.0, 0.5, 1.0) if spec.takes_eta else (0.0,):
                options: dict[str, Any] = {"steps": steps, "spacing": spacing} if spec.takes_steps else {}
                yield options | ({"eta": eta} if spec.takes_eta else {})


def _build(spec: SolverSpec, schedule: NoiseSchedule, options: dict[str, Any]) -> Solver:
    solver = spec.build(schedule, **options)
    assert isinstance(solver, Solver), f"the builder returns {type(solver).__name__}; it has to return a Solver"
    return solver


def _check_table(spec: SolverSpec, schedule: NoiseSchedule, options: dict[str, Any]) -> None:
    solver = _build(spec, schedule, options)
    table, steps = solver.table, options.get("steps", 1)
    here = f"over {schedule} with {options}"
    assert table.shape == (steps, 5), f"{here} the table has shape {table.shape}; one evaluation a row is {(steps, 5)}"
    assert table.dtype == np.float64, f"{here} the table is {table.dtype}; it has to be float64"
    assert np.isfinite(table).all(), f"{here} the table is not finite:\n{table}"
    times = table[:, 0].astype(np.int64)
    assert (times == table[:, 0]).all(), f"{here} times are not whole: {table[:, 0]}"
    assert times[0] == schedule.timesteps - 1, f"{here} the first time is {times[0]}; noise is at T - 1"
    assert (times >= 0).all(), f"{here} times are below 0: {times}"
    assert (np.diff(times) <= 0).all(), f"{here} times rise: {times}"
    assert table[-1, 1:].tolist() == [0, 1, 0, 0], (
        f"{here} the last row is {table[-1]}; it has to return x0: 0, 1, 0, 0"
    )
    _, a, b, c, s = table[:-1].T
    assert (s >= 0).all(), f"{here} deviations of the noise are below 0: {s}"
    signal = np.sqrt(schedule.alpha_bar[times])
    error = np.abs(a * signal[:-1] + b + c - signal[1:]).max(initial=0.0)
    assert error < 1e-9, f"{here} a sqrt(abar) + b + c differs from sqrt(abar_next) by {error:.2g}: a point would move"
    again = _build(spec, schedule, options).table
    assert np.array_equal(table, again), f"{here} building it twice gives two tables; it has to be a pure function"


def _check_refused(spec: SolverSpec, steps: int) -> None:
    schedule = SCHEDULES[-1]
    try:
        spec.build(schedule, steps=steps, spacing=SPACINGS[0])
    except ConfigurationError:
        return
    raise AssertionError(
        f"{steps} steps over {schedule} are not refused; raise ConfigurationError, as timesteps() does"
    )


def _check_gaussian(spec: SolverSpec) -> None:
    options = {"steps": 200, "spacing": "trailing"} if spec.takes_steps else {}
    for schedule in SCHEDULES[:2]:
        solver = _build(spec, schedule, options)
        centre, variance = gaussian_moments(schedule, solver, MEAN, DEVIATION)
        told = (
            f"cells N({MEAN}, {DEVIATION}^2) come out over {schedule} with mean {centre:.3g}, variance {variance:.3g}"
        )
        assert abs(centre - MEAN) < 0.05, f"{told}; the mean is off"
        if spec.estimate == "mean":
            assert variance < 1e-9, f"{told}; the estimate is 'mean', which has no variance: is it a sample?"
        else:
            assert abs(variance / DEVIATION**2 - 1) < 0.2, f"{told}; the variance is off: is the estimate the mean?"
