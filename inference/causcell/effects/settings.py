"""Settings of the generation and the test of effects."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from causcell._internal.choices import check_choice
from causcell._internal.confidence import LEVEL, check_level
from causcell.cells.collection import AnySource
from causcell.cells.panel_cells import PanelCells, Reading
from causcell.counterfactual.interventions import MODES, Intervention, Mode
from causcell.counterfactual.request import Request
from causcell.counterfactual.targets import TARGET_KINDS, TargetKind
from causcell.diffusion.solvers import SolverSettings
from causcell.errors import ConfigurationError
from causcell.opened_model import OpenedModel

MIN_UNITS = 2
"""Independent units, or draws, that a standard error takes."""

_READING = tuple(each.name for each in fields(Reading))
_FILE_KEYS = {"fdr": "rate", "min_effect": "least"}
"""Spelling in ``uns`` of settings that files know by another name."""


@dataclass(frozen=True)
class EffectSettings:
    """Settings of the generation and the test of effects.

    Attributes
    ----------
    where
        A condition on the columns of ``obs``: the population; see `causcell.cells.where`.
    mode, match_parents, target
        See `causcell.counterfactual.scm.StructuralCausalModel.intervene`.
    draws
        Draws of each cell's embeddings and reference cells.
    seed
        Seed of all random numbers, keyed by cell.
    fdr
        False discovery rate at which a gene counts as changed, between 0 and 1.
    min_effect
        Effects up to this size (log scale; 0.1 is a tenth) count as none: hardly any effect of a model is exactly zero,
        and many cells make any of them significant.
    interval
        Level of the intervals, between 0 and 1.
    expression, layer, raw, totals, round_counts, allow_missing_genes
        How the cells' values are read, as in `Generator.counterfactual`.

    Raises
    ------
    ConfigurationError
        An unknown mode or target, a false discovery rate or level outside 0 to 1, or a smallest effect below 0.
    """

    where: str | None = None
    mode: Mode = "do"
    match_parents: bool = False
    target: TargetKind = "reference"
    draws: int = 8
    seed: int = 0
    fdr: float = 0.05
    min_effect: float = 0.1
    interval: float = LEVEL
    expression: str | None = None
    layer: str | None = None
    raw: bool = False
    totals: str | None = None
    round_counts: bool = False
    allow_missing_genes: float = 0.0

    def __post_init__(self) -> None:
        check_choice(self.mode, MODES, "mode")
        check_choice(self.target, TARGET_KINDS, "target")
        check_level(self.interval)
        if not 0 < self.fdr < 1 or self.min_effect < 0:
            raise ConfigurationError(
                f"fdr={self.fdr} and min_effect={self.min_effect}: the one lies between 0 and 1, the other is 0 or more"
            )

    def request(self, interventions: tuple[Intervention, ...]) -> Request:
        """Make the request of mean estimates under these interventions."""
        return Request(
            interventions=interventions,
            settings=SolverSettings("mean"),
            mode=self.mode,
            match_parents=self.match_parents,
            target=self.target,
            draws=self.draws,
            seed=self.seed,
        )

    def to_uns(self) -> dict[str, Any]:
        """Return the settings that were given, by the names that they have in ``uns``."""
        given = {name: value for name, value in asdict(self).items() if value or name not in _READING}
        if self.target == "reference":
            del given["target"]  # as ever, of which files say nothing
        return {_FILE_KEYS.get(name, name): value for name, value in given.items() if value is not None}

    def bind(self, generator: OpenedModel, data: AnySource) -> PanelCells:
        """Open the population, and bind it to a model."""
        reading = Reading(**{name: getattr(self, name) for name in _READING})
        return generator.bind(reading.open(data, where=self.where), **reading.bind_options)
