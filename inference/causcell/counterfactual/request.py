"""Requests: interventions, solver and draws for every cell, and the kind of output that is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from causcell._internal.choices import check_choice
from causcell._internal.confidence import LEVEL, check_level
from causcell._internal.numbers import whole_number
from causcell._internal.telling import warn
from causcell.concepts import EXTRAPOLATED
from causcell.counterfactual.counts import LARGEST_COUNT
from causcell.counterfactual.interventions import MODES, Intervention, Mode, plan_interventions
from causcell.counterfactual.outputs import OUTPUT_KINDS, OutputKind
from causcell.counterfactual.targets import TARGET_KINDS, TargetKind, describe_training
from causcell.diffusion.solvers import SolverSettings, solver_spec
from causcell.errors import ConfigurationError, format_list
from causcell.randomness import LARGEST_SEED
from causcell.repository.names import PRIOR

if TYPE_CHECKING:
    from causcell.concepts import ConceptSchema
    from causcell.repository.manifest import Manifest

DType = Literal["float32", "float16"]
DTYPES: tuple[DType, ...] = get_args(DType)
"""Types of generated expression."""


Library = int | Literal["own"] | None
"""Library size that counts are made for: of all cells, or each cell's own; `None` where no counts are made."""

MOST_DRAWS = 2**31 - 1
"""Samples of a cell under one intervention at most: results number them by int32."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """Request for every cell: each intervention, ``draws`` times. Arguments are given by keyword.

    Attributes
    ----------
    interventions
        In the order of a cell's rows.
    settings
        The solver.
    mode, match_parents
        See `causcell.counterfactual.scm.StructuralCausalModel.intervene`.
    draws
        Samples of each cell under each intervention.
    seed
        Seed of all random numbers, which are keyed by cell.
    store
        What is kept; see `causcell.counterfactual.outputs`.
    dtype
        Type of the expression that is kept: ``float32``, or ``float16`` (half the bytes; values within 5e-4 of their
        size).
    interval
        Level of the effects' intervals in a summary; see `causcell.counterfactual.uncertainty`.
    library_size
        Total of counts that every cell's counts are made for (default: the cell's own); see
        `causcell.counterfactual.counts`.
    target
        What embeddings of labels are taken from; see `causcell.counterfactual.targets`.

    Raises
    ------
    ConfigurationError
        Draws, interventions or a type that make no sense for what is kept; an unknown mode, store or type.

    Examples
    --------
    >>> from causcell.diffusion.solvers import SolverSettings
    >>> request = Request(interventions=(Intervention((), "factual"),), settings=SolverSettings("mean"), draws=3)
    >>> request.rows_per_cell
    3
    """

    interventions: tuple[Intervention, ...]
    settings: SolverSettings
    mode: Mode = "do"
    match_parents: bool = False
    draws: int = 1
    seed: int = 0
    store: OutputKind = "expression"
    dtype: DType = "float32"
    interval: float = LEVEL
    library_size: int | None = None
    target: TargetKind = "reference"

    def __post_init__(self) -> None:
        check_choice(self.mode, MODES, "mode")
        check_choice(self.target, TARGET_KINDS, "target")
        check_choice(self.store, OUTPUT_KINDS, "store")
        check_choice(self.dtype, DTYPES, "dtype")
        whole_number(self.draws, "draws", 1, MOST_DRAWS)
        whole_number(self.seed, "seed", 0, LARGEST_SEED)
        if self.store == "summary" and self.draws < 2:
            raise ConfigurationError(
                f"draws is {self.draws}; a summary over draws (store='summary') takes at least 2 (draws=8)"
            )
        check_level(self.interval)
        if self.store != "summary" and self.interval != LEVEL:
            raise ConfigurationError(
                f"interval={self.interval} belongs to a summary, which alone has intervals (store='summary'); leave it "
                "out"
            )
        if self.store == "effects" and not all(each.targets for each in self.interventions):
            raise ConfigurationError("effects (store='effects') are those of interventions; name one (do= or grid=)")
        if self.match_parents and self.target == "own":
            raise ConfigurationError(
                "match_parents=True chooses among reference cells, and target='own' draws none of them; leave one out"
            )
        self._check_counts()

    def _check_counts(self) -> None:
        """Raise `ConfigurationError` for options of counts without counts, or others with them."""
        if self.store == "counts" and self.dtype != "float32":
            raise ConfigurationError(
                f"dtype={self.dtype!r} is a type of expression, and counts (store='counts') are int32; leave it out"
            )
        if self.library_size is None:
            return
        whole_number(self.library_size, "library_size", 1, LARGEST_COUNT)
        if self.store != "counts":
            raise ConfigurationError(
                f"library_size={self.library_size} is the total that counts are made for (store='counts'), and "
                f"store={self.store!r} has none; leave it out"
            )

    def check_targets(self, manifest: Manifest) -> None:
        """Raise `ConfigurationError` for targets that the model can't act on as asked for."""
        by_value = [each for each in self.interventions if each.values]
        if not by_value:
            return
        schema = manifest.concept_schema
        if PRIOR not in manifest.graphs:
            raise ConfigurationError(
                f"{by_value[0].name!r} asks for embeddings from the prior, and this model has no priors: its concepts "
                "are plain labels. Leave target= out, or train with concepts of another kind (concept='age:continuous')"
            )
        below = [(each.name, schema.names[i]) for each in by_value for i, _ in each.values if schema.parents(i)]
        if below and self.mode == "exogenous":
            name, concept = below[0]
            raise ConfigurationError(
                f"mode='exogenous' replaces what is {concept}'s own besides its causes, of which the prior of "
                f"{name!r} says nothing; take mode='do', which sets {concept} itself"
            )
        if self.match_parents and all(len(each.values) == len(each.targets) for each in self.interventions):
            raise ConfigurationError(
                "match_parents=True chooses among reference cells, and every target here is drawn from the prior, "
                "which knows no parents; leave it out"
            )

    def warn_of_extrapolation(self, schema: ConceptSchema) -> None:
        """Warn of interventions that set a concept to a value beyond what the model was trained on."""
        beyond = [each for each in self.interventions if each.extrapolates(schema)]
        if beyond:
            concepts = dict.fromkeys(i for each in beyond for i, _ in each.values)
            trained = (describe_training(schema.concepts[i]) for i in concepts)
            warn(
                f"{format_list([each.name for each in beyond], 4)} "
                f"{'is' if len(beyond) == 1 else 'are'} beyond what the model was trained on "
                f"({'; '.join(trained)}): nothing measured there says how good the rows are; they are marked in "
                f"obs[{EXTRAPOLATED!r}]"
            )

    def concepts(self, schema: ConceptSchema) -> list[str]:
        """Return the names of the concepts that any intervention sets, in the order of the schema."""
        return [schema.names[i] for i in sorted({i for each in self.interventions for i, _ in each.targets})]

    @property
    def library(self) -> Library:
        """Library size that counts are made for."""
        return (self.library_size or "own") if self.store == "counts" else None

    @property
    def unused(self) -> set[str]:
        """Options that have no part in what is kept: a plan's text, which earlier versions wrote too, has none."""
        return {
            name
            for name, used in (
                ("interval", self.store == "summary"),
                ("library_size", self.library_size),
                ("target", self.target != "reference"),
            )
            if not used
        }

    @property
    def kept_draws(self) -> int:
        """Rows of the result for each cell and intervention."""
        return 1 if self.store == "summary" else self.draws

    @property
    def rows_per_cell(self) -> int:
        """Rows of the result for each cell."""
        return len(self.interventions) * self.kept_draws


def make_request(
    manifest: Manifest,
    do: Mapping[str, object] | Sequence[Mapping[str, object]] | None = None,
    grid: Sequence[str] = (),
    *,
    mode: str = "do",
    match_parents: bool = False,
    settings: SolverSettings | None = None,
    draws: int = 1,
    seed: int = 0,
    store: str = "expression",
    dtype: str = "float32",
    interval: float = LEVEL,
    library_size: int | None = None,
    target: str = "reference",
) -> Request:
    """Make the request for a model from names of concepts, labels and options.

    Parameters
    ----------
    manifest
        The model's.
    do, grid
        See `causcell.counterfactual.interventions.plan_interventions`.
    settings
        The solver (default: that of the model's default preset).
    mode, match_parents, draws, seed, store, dtype, interval, library_size, target
        As in `Request`.

    Raises
    ------
    ConceptError
        A concept or label that the model does not have, or an intervention that contradicts itself.
    ConfigurationError
        See `Request`.
    """
    chosen: TargetKind = check_choice(target, TARGET_KINDS, "target")
    return Request(
        interventions=plan_interventions(manifest.concept_schema, do, grid, chosen),
        settings=manifest.preset(None).solver if settings is None else settings,
        mode=check_choice(mode, MODES, "mode"),
        match_parents=match_parents,
        draws=draws,
        seed=seed,
        store=check_choice(store, OUTPUT_KINDS, "store"),
        dtype=check_choice(dtype, DTYPES, "dtype"),
        interval=interval,
        library_size=library_size,
        target=chosen,
    )


def solver_settings(
    manifest: Manifest,
    *,
    preset: str | None = None,
    solver: str | None = None,
    steps: int | None = None,
    spacing: str | None = None,
    eta: float | None = None,
) -> SolverSettings:
    """Return the settings of a preset of the model, or of a solver by name.

    Raises
    ------
    ConfigurationError
        Both a preset and a solver; options of a solver without one; an unknown preset, solver or spacing.
    """
    if solver is None:
        if any(option is not None for option in (steps, spacing, eta)):
            raise ConfigurationError(
                "steps, spacing and eta belong to a solver; name one (solver='ddim'), or leave them out"
            )
        return manifest.preset(preset).solver
    if preset is not None:
        raise ConfigurationError(f"preset {preset!r} and solver {solver!r} exclude each other; leave one out")
    if steps is None and solver_spec(solver).needs_steps:
        raise ConfigurationError(f"solver {solver!r} needs a number of steps (steps=20)")
    given = {"steps": steps, "spacing": spacing, "eta": eta}
    return SolverSettings(solver, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
