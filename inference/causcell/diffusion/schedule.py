"""The noise schedule of the diffusion: one definition for training, export and every sampling loop."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from causcell._internal.choices import check_choice
from causcell.errors import ConfigurationError

ScheduleKind = Literal["linear", "cosine"]
"""Kinds of `NoiseSchedule`."""


@dataclass(frozen=True)
class NoiseSchedule:
    """Forward process x_t = sqrt(abar_t) x + sqrt(1 - abar_t) noise, t = 0 (nearly clean) to T - 1 (nearly noise).

    Attributes
    ----------
    kind
        ``linear``: betas from 0.1 / T to 20 / T (Ho et al. 2020, their 1e-4 to 0.02 at T = 1000);
        ``cosine``: abar_t = cos^2 of a quarter turn (Nichol and Dhariwal 2021, eq. 17), betas at most 0.999.
    timesteps
        T, the number of times.

    Raises
    ------
    ConfigurationError
        An unknown kind, or fewer timesteps than the kind takes.

    Examples
    --------
    >>> schedule = NoiseSchedule("linear", 1000)
    >>> schedule.alpha_bar[[0, 500, 999]].round(4)
    array([0.9999, 0.0778, 0.    ])
    """

    kind: ScheduleKind = "linear"
    timesteps: int = 1000

    def __post_init__(self) -> None:
        check_choice(self.kind, get_args(ScheduleKind), "noise schedule")
        if self.timesteps < 2 or (self.kind == "linear" and self.timesteps <= 20):
            raise ConfigurationError(f"a noise schedule of {self.timesteps} timesteps is too short; use more than 20")

    @cached_property
    def alpha_bar(self) -> np.ndarray:
        """Share abar_t of signal variance left at each time, float64 [T], strictly decreasing within (0, 1)."""
        if self.kind == "linear":
            betas = np.linspace(0.1, 20.0, self.timesteps) / self.timesteps
        else:
            t = np.arange(self.timesteps + 1) / self.timesteps
            curve = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
            betas = np.minimum(1 - curve[1:] / curve[:-1], 0.999)
        return np.cumprod(1 - betas)
