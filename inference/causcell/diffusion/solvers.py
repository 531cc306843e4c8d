"""Solvers as tables: every sampling loop is ``x_next = a x_t + b x0 + c x0_prev + s noise``, row after row.

Symbols, as in Song, Meng and Ermon 2021 (DDIM), Ho, Jain and Abbeel 2020 (DDPM), Lu et al. 2022 (DPM-Solver++)::

    abar_t     share of signal variance at t            schedule.alpha_bar[t]; 1 at the clean end
    lambda_t   log sqrt(abar_t / (1 - abar_t))          half the log signal-to-noise ratio
    x0         prediction of the clean x at t           the denoiser's answer
    x0_prev    the same, at the time before
    s          deviation of the fresh noise             their sigma_t (DDIM, DDPM)

A table's rows go from the noisiest time to the clean end; the last row returns x0 itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from causcell.diffusion.schedule import NoiseSchedule
from causcell.errors import ConfigurationError, format_list

Spacing = Literal["trailing", "uniform", "log_snr"]


SPACINGS: tuple[Spacing, ...] = ("trailing", "uniform", "log_snr")


@dataclass(frozen=True)
class Solver:
    """A sampling loop as data.

    Attributes
    ----------
    table
        float64 [S x 5], rows (t, a, b, c, s).
    draw
        Whether x0 is a draw from the head's posterior rather than its mean.
    from_noise
        Whether the loop starts at a standard normal; else at zero, the mean of pure noise.
    """

    table: np.ndarray
    draw: bool = False
    from_noise: bool = True

    @property
    def steps(self) -> int:
        """Number of network evaluations."""
        return len(self.table)

    @property
    def random(self) -> bool:
        """Whether it samples; else its result is a function of the concepts alone."""
        return self.draw or self.from_noise

    @property
    def deterministic(self) -> bool:
        """Whether nothing is random after the initial noise: neither fresh noise nor draws."""
        return not self.draw and not self.table[:, 4].any()


def timesteps(schedule: NoiseSchedule, steps: int, spacing: Spacing = "trailing") -> np.ndarray:
    """Times to evaluate at, int64 [steps], strictly descending from T - 1.

    ``trailing`` steps back from T by T / steps, so that the last step is as long as the others; ``uniform`` spreads
    the times evenly from T - 1 to 0; ``log_snr`` spreads lambda evenly over the same range, to the nearest times that
    are still free.
    """
    total = schedule.timesteps
    if not 1 <= steps <= total:
        raise ConfigurationError(f"{steps} steps are not possible; take from 1 to {total}, the schedule's timesteps")
    if spacing == "trailing":
        return np.round(total - np.arange(steps) * total / steps).astype(np.int64) - 1
    if spacing == "uniform":
        return np.round(np.linspace(total - 1, 0, steps)).astype(np.int64)
    if spacing == "log_snr":
        rising = _lambda(schedule.alpha_bar)[::-1]
        nearest = np.interp(np.linspace(rising[0], rising[-1], steps), rising, np.arange(total)[::-1])
        left = np.arange(steps)[::-1]  # times needed below each
        return np.minimum.accumulate(np.maximum(np.round(nearest).astype(np.int64), left) - left) + left
    raise ConfigurationError(f"spacing {spacing!r} is not known; known are {format_list(SPACINGS)}")


def _lambda(alpha_bar: np.ndarray) -> np.ndarray:
    return 0.5 * np.log(alpha_bar / (1 - alpha_bar))


def _table(
    times: np.ndarray, a: np.ndarray, b: np.ndarray, *, c: np.ndarray | float = 0.0, s: np.ndarray | float = 0.0
) -> np.ndarray:
    table = np.stack(np.broadcast_arrays(times.astype(np.float64), a, b, c, s), axis=1)
    table[-1, 1:] = (0, 1, 0, 0)  # the clean end is x0, exactly
    return table


def _neighbours(schedule: NoiseSchedule, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """abar at each time and at the next one; the next of the last is the clean end, 1."""
    alpha_bar = np.append(schedule.alpha_bar[times], 1.0)
    return alpha_bar[:-1], alpha_bar[1:]


def ddim(schedule: NoiseSchedule, steps: int, spacing: Spacing = "trailing", eta: float = 0.0) -> Solver:
    """DDIM (Song et al. 2021, eq. 12 and 16): deterministic at ``eta`` 0, as noisy as ancestral sampling at 1."""
    if not 0 <= eta <= 1:
        raise ConfigurationError(f"eta is {eta}; it goes from 0 (deterministic) to 1 (ancestral)")
    times = timesteps(schedule, steps, spacing)
    here, there = _neighbours(schedule, times)
    s = eta * np.sqrt((1 - there) / (1 - here) * (1 - here / there))  # eq. 16
    a = np.sqrt(np.maximum(1 - there - s**2, 0) / (1 - here))  # eq. 12, with the noise written by x_t and x0
    b = np.sqrt(there) - a * np.sqrt(here)
    return Solver(_table(times, a, b, s=s))


def ddpm(schedule: NoiseSchedule, steps: int, spacing: Spacing = "trailing") -> Solver:
    """Ancestral sampling (Ho et al. 2020, eq. 6 and 7) with the posterior's variance, over any subset of times."""
    times = timesteps(schedule, steps, spacing)
    here, there = _neighbours(schedule, times)
    alpha = here / there
    a = np.sqrt(alpha) * (1 - there) / (1 - here)
    b = np.sqrt(there) * (1 - alpha) / (1 - here)
    s = np.sqrt((1 - there) / (1 - here) * (1 - alpha))
    return Solver(_table(times, a, b, s=s))


def dpmpp(schedule: NoiseSchedule, steps: int, spacing: Spacing = "trailing", order: Literal[1, 2] = 2) -> Solver:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): deterministic, of second order by the x0 before.

    The first step and the last are of first order: there is no x0 before the one, and lambda is infinite after the
    other. ``order`` 1 is DDIM at eta 0.
    """
    times = timesteps(schedule, steps, spacing)
    here, there = _neighbours(schedule, times)
    a = np.sqrt((1 - there) / (1 - here))
    b = np.sqrt(there) - a * np.sqrt(here)
    c = np.zeros(steps)
    if order == 2 and steps > 2:
        h = np.diff(_lambda(here))
        c[1:-1] = -b[1:-1] * h[1:] / (2 * h[:-1])
    return Solver(_table(times, a, b - c, c=c))


def mean(schedule: NoiseSchedule) -> Solver:
    """The conditional mean given the concepts: one evaluation at pure noise. A profile, not a cell: it has no noise."""
    return Solver(np.array([[schedule.timesteps - 1, 0.0, 1.0, 0.0, 0.0]]), from_noise=False)


def draw(schedule: NoiseSchedule, steps: int = 1, spacing: Spacing = "trailing") -> Solver:
    """Ancestral sampling by draws of x0 from the head's posterior in place of its mean.

    For a draw from the true posterior every step is the exact reverse transition, however long. One step starts from
    pure noise, of which nothing is left in the answer: it is a draw given the concepts alone.
    """
    return replace(ddpm(schedule, steps, spacing), draw=True, from_noise=steps > 1)


SOLVERS = ("draw", "ddim", "dpmpp", "ddpm", "mean")


@dataclass(frozen=True)
class SolverSettings:
    """A solver by name: what a preset of the manifest, or a command line, states. `build` makes its table."""

    solver: Literal["draw", "ddim", "dpmpp", "ddpm", "mean"]
    steps: int = 1
    spacing: Spacing = "trailing"
    eta: float = 0.0

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise ConfigurationError(f"solver {self.solver!r} is not known; known are {format_list(SOLVERS)}")
        if self.solver == "mean" and self.steps != 1:
            raise ConfigurationError(f"the mean estimate is one evaluation; steps is {self.steps}: leave it out")
        if self.solver != "ddim" and self.eta != 0:
            raise ConfigurationError(f"eta belongs to ddim; {self.solver} has none: leave it out")

    @property
    def estimate(self) -> Literal["mean", "sample"]:
        """What comes out: the conditional mean, or a sample of the conditional distribution."""
        return "mean" if self.solver == "mean" else "sample"

    def build(self, schedule: NoiseSchedule) -> Solver:
        """The table over a schedule."""
        if self.solver == "mean":
            return mean(schedule)
        if self.solver == "draw":
            return draw(schedule, self.steps, self.spacing)
        if self.solver == "ddpm":
            return ddpm(schedule, self.steps, self.spacing)
        if self.solver == "dpmpp":
            return dpmpp(schedule, self.steps, self.spacing)
        return ddim(schedule, self.steps, self.spacing, self.eta)
