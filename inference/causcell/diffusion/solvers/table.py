"""Table of a solver, and what is needed to fill one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causcell.diffusion.schedule import NoiseSchedule


@dataclass(frozen=True)
class Solver:
    """A sampling loop as data.

    Attributes
    ----------
    table
        float64 [S x 5], rows (t, a, b, c, s): at time t, ``x_next = a x_t + b x0 + c x0_prev + s noise``.
    draw
        True if x0 is a posterior draw, False if it is the posterior mean.
    from_noise
        True if the loop starts at a standard normal, False if it starts at zero, the mean of pure noise.
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
        """True if the result is a sample, False if it is a function of the concepts alone."""
        return self.draw or self.from_noise

    @property
    def one_draw(self) -> bool:
        """True if the result is one posterior draw given the concepts alone."""
        return self.draw and self.steps == 1

    @property
    def one_mean(self) -> bool:
        """True if the result is the posterior mean given the concepts alone."""
        return not self.random and self.steps == 1

    @property
    def deterministic(self) -> bool:
        """True if nothing is random after the initial noise: neither fresh noise nor posterior draws."""
        return not self.draw and not self.table[:, 4].any()


def adjacent_alpha_bar(schedule: NoiseSchedule, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return abar at each time and at the time after it.

    Parameters
    ----------
    schedule
        The noise schedule.
    times
        Descending timesteps, int [S].

    Returns
    -------
    float64 [S] each; after the last time comes the clean end, whose abar is 1.
    """
    alpha_bar = np.append(schedule.alpha_bar[times], 1.0)
    return alpha_bar[:-1], alpha_bar[1:]


def half_log_snr(alpha_bar: np.ndarray) -> np.ndarray:
    """Return lambda = log sqrt(abar / (1 - abar)), half the log signal-to-noise ratio, elementwise."""
    return np.asarray(0.5 * np.log(alpha_bar / (1 - alpha_bar)))


def solver_table(
    times: np.ndarray, a: np.ndarray, b: np.ndarray, *, c: np.ndarray | float = 0.0, s: np.ndarray | float = 0.0
) -> np.ndarray:
    """Join the columns of a solver's table, and let its last row return x0.

    Parameters
    ----------
    times
        Descending timesteps, int [S].
    a, b, c, s
        Coefficients of x_t, x0, x0_prev and fresh noise, float64 [S] each (or one number for all rows).

    Returns
    -------
    float64 [S x 5], rows (t, a, b, c, s).
    """
    table = np.stack(np.broadcast_arrays(times.astype(np.float64), a, b, c, s), axis=1)
    table[-1, 1:] = (0, 1, 0, 0)  # the clean end is x0, exactly
    return table
