"""Registry of solvers, those of this package and those from outside."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from causcell._internal.registry import Registry
from causcell.diffusion.solvers.ddim import ddim
from causcell.diffusion.solvers.ddpm import ddpm
from causcell.diffusion.solvers.dpmpp import dpmpp
from causcell.diffusion.solvers.draw import draw
from causcell.diffusion.solvers.mean import mean
from causcell.diffusion.solvers.table import Solver
from causcell.errors import ConfigurationError

Estimate = Literal["mean", "sample"]
"""The conditional mean given the concepts, or a sample of the conditional distribution."""

SolverBuilder = Callable[..., Solver]
"""``(schedule)``, ``(schedule, steps, spacing)`` or ``(schedule, steps, spacing, eta)`` -> `Solver`."""

ENTRY_POINTS = "causcell.solvers"
"""Entry-point group of solvers from other packages; each names a `SolverSpec`."""


@dataclass(frozen=True)
class SolverSpec:
    """Builder of a solver, and what its callers need to know of it.

    Attributes
    ----------
    build
        Pure function from a noise schedule to a `Solver`. It is given ``steps`` and ``spacing`` if `takes_steps`, and
        ``eta`` if `takes_eta`.
    takes_steps
        True if it takes a number of steps and a spacing; False if it is one network evaluation.
    takes_eta
        True if it takes ``eta``, a share of noise.
    estimate
        ``mean`` or ``sample``: what the loop returns, recorded in results.
    """

    build: SolverBuilder
    takes_steps: bool
    takes_eta: bool
    estimate: Estimate

    @property
    def needs_steps(self) -> bool:
        """True if a number of steps has to be given: the builder's own ``steps`` has no default."""
        if not self.takes_steps:
            return False
        steps = inspect.signature(self.build).parameters.get("steps")
        return steps is None or steps.default is inspect.Parameter.empty


def _check(name: str, found: object) -> SolverSpec:
    if not isinstance(found, SolverSpec) or not callable(found.build) or found.estimate not in ("mean", "sample"):
        raise ConfigurationError(
            f"solver {name!r} is {found!r}; give a SolverSpec with a callable build= and estimate= 'mean' or 'sample'"
        )
    return found


SOLVERS: Registry[SolverSpec] = Registry(
    "solver",
    ENTRY_POINTS,
    _check,
    {
        "draw": SolverSpec(draw, takes_steps=True, takes_eta=False, estimate="sample"),
        "ddim": SolverSpec(ddim, takes_steps=True, takes_eta=True, estimate="sample"),
        "dpmpp": SolverSpec(dpmpp, takes_steps=True, takes_eta=False, estimate="sample"),
        "ddpm": SolverSpec(ddpm, takes_steps=True, takes_eta=False, estimate="sample"),
        "mean": SolverSpec(mean, takes_steps=False, takes_eta=False, estimate="mean"),
    },
)


def register_solver(
    name: str,
    build: SolverBuilder,
    *,
    takes_steps: bool,
    takes_eta: bool,
    estimate: Estimate,
    replace: bool = False,
) -> None:
    """Make a solver known by name, to Python, the command line and the presets of heads.

    It is known in this process. A package that brings solvers to every process (workers, the command line) has an entry
    point of the group ``causcell.solvers`` for each, which names a `SolverSpec`. Try a solver by
    `causcell.diffusion.contract.check_solver` first.

    Parameters
    ----------
    name
        Its name, an identifier.
    build
        Pure function ``(schedule, steps, spacing, eta) -> Solver``, less the arguments that it does not take.
    takes_steps
        True if it takes ``steps`` and ``spacing``; a ``steps`` without default has to be given by whoever asks for it.
    takes_eta
        True if it takes ``eta``.
    estimate
        ``mean`` or ``sample``.
    replace
        Take the place of a solver of that name.

    Raises
    ------
    ConfigurationError
        A name that is taken, or no identifier; an unknown estimate.

    Examples
    --------
    >>> from causcell.diffusion.schedule import NoiseSchedule
    >>> from causcell.diffusion.solvers import SolverSettings, ddim
    >>> def half_noisy(schedule, steps, spacing="trailing"):
    ...     return ddim(schedule, steps, spacing, eta=0.5)
    >>> register_solver("half_noisy", half_noisy, takes_steps=True, takes_eta=False, estimate="sample")
    >>> SolverSettings("half_noisy", steps=3).build(NoiseSchedule()).table[:, 4].round(2)
    array([0.5 , 0.41, 0.  ])
    """
    spec = SolverSpec(build, takes_steps=takes_steps, takes_eta=takes_eta, estimate=estimate)
    SOLVERS.register(name, spec, replace=replace)


def solver_spec(name: str) -> SolverSpec:
    """Return the specification of a solver; raises `ConfigurationError`, which lists the known ones."""
    return SOLVERS[name]


def known_solvers() -> tuple[str, ...]:
    """Return the names of all solvers: of this package, registered, of installed plugins."""
    return SOLVERS.names()
