"""A solver by name and options, as a manifest's preset or a command line states it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from causcell.diffusion.schedule import NoiseSchedule
from causcell.diffusion.solvers.registry import Estimate, known_solvers, solver_spec
from causcell.diffusion.solvers.spacing import Spacing
from causcell.diffusion.solvers.table import Solver
from causcell.errors import ConfigurationError


@dataclass(frozen=True)
class SolverSettings:
    """A solver by name with its options; `build` makes its table.

    Attributes
    ----------
    solver
        Name of a registered solver.
    steps
        Number of network evaluations.
    spacing
        Where they are; see `causcell.diffusion.solvers.timesteps`.
    eta
        Share of ancestral noise, for solvers that take it.

    Raises
    ------
    ConfigurationError
        An unknown solver; steps or eta for a solver that takes none, or that are no numbers.

    Examples
    --------
    >>> SolverSettings("dpmpp", steps=10).build(NoiseSchedule()).steps
    10
    """

    solver: str
    steps: int = 1
    spacing: Spacing = "trailing"
    eta: float = 0.0

    def __post_init__(self) -> None:
        spec = solver_spec(self.solver)
        if isinstance(self.steps, bool) or not isinstance(self.steps, int | np.integer):
            raise ConfigurationError(f"steps={self.steps!r}: take a whole number, at least 1")
        if isinstance(self.eta, bool) or not isinstance(self.eta, int | float | np.number):
            raise ConfigurationError(f"eta={self.eta!r}: take a number from 0 to 1")
        if not spec.takes_steps and self.steps != 1:
            raise ConfigurationError(
                f"the {self.solver} estimate is one evaluation; steps is {self.steps}: leave it out"
            )
        if not spec.takes_eta and self.eta != 0:
            takers = " and ".join(name for name in known_solvers() if solver_spec(name).takes_eta)
            raise ConfigurationError(f"eta belongs to {takers}; {self.solver} has none: leave it out")

    @property
    def estimate(self) -> Estimate:
        """``mean`` for the conditional mean, ``sample`` for a sample of the conditional distribution."""
        return solver_spec(self.solver).estimate

    def build(self, schedule: NoiseSchedule) -> Solver:
        """Build the table over a schedule; raises `ConfigurationError` for options out of range."""
        spec = solver_spec(self.solver)
        options: dict[str, Any] = {"steps": self.steps, "spacing": self.spacing} if spec.takes_steps else {}
        if spec.takes_eta:
            options["eta"] = self.eta
        return spec.build(schedule, **options)
