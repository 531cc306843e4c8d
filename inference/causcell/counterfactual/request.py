"""What to generate for every cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from causcell.counterfactual.interventions import Intervention, Mode
from causcell.counterfactual.outputs import Store
from causcell.diffusion.solvers import SolverSettings
from causcell.errors import ConfigurationError, format_list

DType = Literal["float32", "float16"]


DTYPES: tuple[DType, ...] = ("float32", "float16")
"""Of generated expression."""


def check_dtype(dtype: str) -> DType:
    """The type, if it is one; raises `ConfigurationError`."""
    for known in DTYPES:
        if dtype == known:
            return known
    raise ConfigurationError(f"dtype {dtype!r} is not known; known are {format_list(DTYPES)}")


@dataclass(frozen=True)
class Request:
    """What to generate for every cell: each intervention, ``draws`` times.

    Attributes
    ----------
    interventions
        In the order of a cell's rows.
    settings
        The solver.
    mode, match_parents
        See `causcell.counterfactual.scm.StructuralCausalModel.intervene`.
    draws
        Samples a cell and intervention.
    seed
        Of all random numbers, keyed by cell.
    store
        What is kept of these; see `causcell.counterfactual.outputs`.
    dtype
        Of the expression kept: ``float32``, or ``float16`` (half the bytes; values within 5e-4 of their size).

    Raises
    ------
    ConfigurationError
        Draws, or interventions, that the store makes no sense of; an unknown type.
    """

    interventions: tuple[Intervention, ...]
    settings: SolverSettings
    mode: Mode = "do"
    match_parents: bool = False
    draws: int = 1
    seed: int = 0
    store: Store = "expression"
    dtype: DType = "float32"

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ConfigurationError(f"draws is {self.draws}; take at least 1")
        check_dtype(self.dtype)
        if self.store == "summary" and self.draws < 2:
            raise ConfigurationError(f"draws is {self.draws}; a summary over draws (--store summary) takes at least 2")
        if self.store == "effects" and not all(each.targets for each in self.interventions):
            raise ConfigurationError(
                "effects (--store effects) are those of interventions; name one with --do or --grid"
            )

    @property
    def kept_draws(self) -> int:
        """Rows of the result for each cell and intervention."""
        return 1 if self.store == "summary" else self.draws

    @property
    def rows_per_cell(self) -> int:
        """Rows of the result for each cell."""
        return len(self.interventions) * self.kept_draws
