"""Interventions on concepts, and what they do to a cell's embeddings."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from causcell.cells import batches
from causcell.engine import Engine
from causcell.errors import ConfigurationError, InterventionError, listed
from causcell.schema import ConceptSchema, as_pairs

_REFERENCE_BATCH = 1024

Mode = Literal["do", "exogenous", "isolated"]
MODES: tuple[Mode, ...] = ("do", "exogenous", "isolated")


def check_mode(mode: str) -> Mode:
    """The mode, if it is one; raises `ConfigurationError`."""
    for known in MODES:
        if mode == known:
            return known
    raise ConfigurationError(f"mode {mode!r} is not known; known are {listed(MODES)}")


def parse_do(texts: Iterable[str]) -> dict[str, str]:
    """One joint intervention from ``CONCEPT=LABEL`` strings; raises `InterventionError` for a concept set twice."""
    labels: dict[str, str] = {}
    for concept, label in as_pairs(texts, "concept=label", "="):
        if labels.setdefault(concept, label) != label:
            raise InterventionError(
                f"--do sets {concept!r} to {labels[concept]!r} and to {label!r}; several --do are one joint "
                "intervention: to compare labels use --grid, or run once for each"
            )
    return labels


@dataclass(frozen=True)
class Intervention:
    """``do(concept = label, ...)``, jointly; without any target it is the factual cell.

    Attributes
    ----------
    targets
        Pairs (concept index, label code), by concept.
    name
        ``concept=label``, several joined by ``;``; ``factual`` without any.
    """

    targets: tuple[tuple[int, int], ...]
    name: str

    @classmethod
    def of(cls, schema: ConceptSchema, labels: Mapping[str, str]) -> Intervention:
        """From concept names and labels; raises `UnknownConceptError`, `UnknownLabelError`."""
        targets = sorted((schema.index(concept), schema[concept].code(str(label))) for concept, label in labels.items())
        named = (f"{schema.names[i]}={schema.concepts[i].labels[code]}" for i, code in targets)
        return cls(tuple(targets), ";".join(named) or "factual")


def plan_interventions(
    schema: ConceptSchema,
    do: Mapping[str, str] | Sequence[Mapping[str, str]] | None = None,
    grid: Sequence[str] = (),
) -> tuple[Intervention, ...]:
    """The interventions that ``do`` and ``grid`` ask for.

    Parameters
    ----------
    schema
        Concepts and graph.
    do
        One joint intervention (a mapping), or several (a sequence of mappings).
    grid
        Concepts to take every label of; several multiply, and each product is joined to every ``do``.

    Raises
    ------
    InterventionError
        The same intervention twice, or a concept both set and in the grid.
    """
    bases: list[Any] = [do] if isinstance(do, Mapping) else list(do or [{}])
    strange = [do] if isinstance(do, str) else [base for base in bases if not isinstance(base, Mapping)]
    if strange or isinstance(grid, str):
        raise InterventionError(
            f"{(strange or [grid])[0]!r} is text; give do as a mapping, such as {{'stim': 'IFN'}}, or a list of "
            "mappings, and grid as a list of concepts"
        )
    axes = [[(concept, label) for label in schema[concept].labels] for concept in grid]
    interventions = []
    for base, point in itertools.product(bases, itertools.product(*axes)):
        clash = [concept for concept, _ in point if concept in base]
        if clash or len({concept for concept, _ in point}) < len(point):
            raise InterventionError(
                f"{listed(clash or grid)} is named twice by --do and --grid; a grid takes every label of a concept, so "
                "leave one of the two out"
            )
        interventions.append(Intervention.of(schema, {**base, **dict(point)}))
    if len(set(interventions)) < len(interventions):
        raise InterventionError(f"an intervention is given twice: {listed(i.name for i in interventions)}")
    return tuple(interventions)


@dataclass(frozen=True)
class Intervened:
    """Cells after an intervention.

    Attributes
    ----------
    endogenous
        float32 [B x M x k].
    labels
        Codes after the intervention, int32 [B x m]: the target's own, the model's prediction for a descendant that
        changed, the cell's own otherwise.
    unmatched
        Cells for which no reference cell carried the parents' labels, bool [B].
    """

    endogenous: np.ndarray
    labels: np.ndarray
    unmatched: np.ndarray


class CausalGraph:
    """The structural causal model of an engine: what concepts become of a cell's own, and of an intervention.

    Parameters
    ----------
    engine
        Evaluates the graph ``scm``.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.schema: ConceptSchema = engine.manifest.concept_schema

    def factual(self, exogenous: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs of the graph without any intervention: ``endogenous`` and each concept's logits."""
        mask = np.zeros(exogenous.shape[:2], dtype=np.float32)
        return self.engine.run("scm", {"exogenous": exogenous, "forced": np.zeros_like(exogenous), "mask": mask})

    @cached_property
    def _reference_endogenous(self) -> np.ndarray:
        exogenous = self.engine.reference.exogenous
        parts = [self.factual(exogenous[rows])["endogenous"] for rows in batches(len(exogenous), _REFERENCE_BATCH)]
        return np.concatenate(parts)

    def intervene(
        self,
        intervention: Intervention,
        *,
        exogenous: np.ndarray,
        endogenous: np.ndarray,
        labels: np.ndarray,
        keys: np.ndarray,
        mode: Mode = "do",
        match_parents: bool = False,
        draw: int = 0,
    ) -> Intervened:
        """Abduction done, act and predict: embeddings of cells under an intervention.

        ``do``: z_i becomes that of a drawn reference cell with the target label, edges into i are cut, descendants are
        recomputed from their own exogenous embeddings. ``exogenous``: eps_i becomes the reference cell's, then the SCM
        runs. ``isolated``: z_i is replaced and all others stay. A cell that carries the target label already keeps its
        own z_i (its own eps_i in mode ``exogenous``).

        Parameters
        ----------
        exogenous, endogenous
            The cells' own embeddings, float32 [B x M x k].
        labels
            The cells' own label codes, int32 [B x m]; -1 is unlabelled.
        keys
            The cells' keys, uint64 [B x 2].
        match_parents
            Draw reference cells that carry the same labels of the target's parents.
        draw
            Index of the draw.
        """
        reference = self.engine.reference
        after = labels.copy()
        for concept, label in intervention.targets:
            after[:, concept] = label
        acted, forced = exogenous.copy(), endogenous.copy()
        mask = np.zeros(exogenous.shape[:2], dtype=np.float32)
        unmatched = np.zeros(len(exogenous), dtype=bool)
        for concept, label in intervention.targets:
            changes = np.flatnonzero(labels[:, concept] != label)
            parents = self.schema.parents(concept) if match_parents else ()
            rows, missed = reference.draw(
                concept, label, keys[changes], draw=draw, parent_labels=after[changes][:, parents], parents=parents
            )
            unmatched[changes] |= missed
            if mode == "exogenous":
                acted[changes, concept] = reference.exogenous[rows, concept]
            else:
                forced[changes, concept] = self._reference_endogenous[rows, concept]
                mask[:, concept] = 1
        targets = {concept for concept, _ in intervention.targets}
        descendants = self.schema.descendants(targets) - targets
        if mode == "isolated" or not targets or (mode == "do" and not descendants):
            return Intervened(forced, after, unmatched)  # nothing follows from what was set
        outputs = self.engine.run("scm", {"exogenous": acted, "forced": forced, "mask": mask})
        for concept in descendants:
            moved = (outputs["endogenous"][:, concept] != endogenous[:, concept]).any(axis=1)
            after[moved, concept] = outputs[logits_name(self.schema.names[concept])].argmax(axis=1)[moved]
        return Intervened(outputs["endogenous"], after, unmatched)


def logits_name(concept: str) -> str:
    """Name of the ``scm`` graph's output with a concept's label logits."""
    return f"logits_{concept}"
