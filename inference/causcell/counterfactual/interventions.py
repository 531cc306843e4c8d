"""Interventions on concepts: from names and labels to targets; `causcell.counterfactual.scm` carries them out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from causcell.concepts import ConceptSchema, as_pairs
from causcell.errors import InterventionError, format_list

Mode = Literal["do", "exogenous", "isolated"]
MODES: tuple[Mode, ...] = get_args(Mode)


def parse_do(texts: Iterable[str]) -> dict[str, str]:
    """Return one joint intervention, labels by concept, from ``CONCEPT=LABEL`` strings.

    Raises
    ------
    ConceptError, InterventionError
        A text of another form; a concept that is set twice.

    Examples
    --------
    >>> parse_do(["stim=IFN", "cell_type=B cells"])
    {'stim': 'IFN', 'cell_type': 'B cells'}
    """
    labels: dict[str, str] = {}
    for concept, label in as_pairs(texts, "concept=label", "="):
        if labels.setdefault(concept, label) != label:
            raise InterventionError(
                f"do= sets {concept!r} to {labels[concept]!r} and to {label!r}; several are one joint intervention: to "
                "compare labels use grid=, or run once for each"
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
    def of(cls, schema: ConceptSchema, labels: Mapping[str, object]) -> Intervention:
        """Make the intervention from labels by concept; raises `UnknownConceptError`, `UnknownLabelError`."""
        targets = sorted((schema.index(concept), schema[concept].code(label)) for concept, label in labels.items())
        named = (f"{schema.names[i]}={schema.concepts[i].labels[code]}" for i, code in targets)
        return cls(tuple(targets), ";".join(named) or "factual")


def parse_intervention(schema: ConceptSchema, text: str) -> Intervention:
    """Return the intervention that a result's name means: ``stim=IFN``, several joined by ``;``, or ``factual``.

    Concepts may stand in any order, labels that are numbers in any writing; labels may hold ``;`` and ``=`` themselves.

    Raises
    ------
    InterventionError
        A text of another form, or a concept that is set twice.
    UnknownConceptError, UnknownLabelError
        A concept or label that the schema does not have.

    Examples
    --------
    >>> from causcell.concepts import Concept, ConceptSchema
    >>> schema = ConceptSchema((Concept("stim", ("IFN", "ctrl")), Concept("dose", ("0", "10"))))
    >>> parse_intervention(schema, "dose=10.0;stim=IFN").name
    'stim=IFN;dose=10'
    >>> parse_intervention(schema, "factual").targets
    ()
    """
    if text == "factual":
        return Intervention((), text)
    labels = _split_name(schema, text)
    if labels is None:  # no reading by known labels: the message says what is wrong with the plain one
        labels = {}
        for part in text.split(";"):
            concept, equals, label = part.partition("=")
            if not (concept and equals and label) or concept in labels:
                raise InterventionError(
                    f"intervention {text!r} is neither of the form CONCEPT=LABEL nor 'factual' (several are joined by "
                    "';', each concept once)"
                )
            labels[concept] = label
    return Intervention.of(schema, labels)


def _split_name(schema: ConceptSchema, text: str) -> dict[str, str] | None:
    """Split the name of an intervention into known labels by concept; `None` where there is no way to."""
    for concept in schema.concepts:
        if not text.startswith(f"{concept.name}="):
            continue
        rest = text[len(concept.name) + 1 :]
        for label in sorted(concept.labels, key=len, reverse=True):
            if rest == label:
                return {concept.name: label}
            if rest.startswith(f"{label};"):
                others = _split_name(schema, rest[len(label) + 1 :])
                if others is not None and concept.name not in others:
                    return {concept.name: label, **others}
    return None


def plan_interventions(
    schema: ConceptSchema,
    do: Mapping[str, object] | Sequence[Mapping[str, object]] | None = None,
    grid: Sequence[str] = (),
) -> tuple[Intervention, ...]:
    """List the interventions that ``do`` and ``grid`` ask for.

    Parameters
    ----------
    schema
        Concepts and graph.
    do
        One joint intervention (a mapping), or several (a sequence of mappings); without any, the factual cell.
    grid
        Concepts to take every label of; several multiply, and each product is joined to every ``do``.

    Raises
    ------
    InterventionError
        Text in place of a mapping or list, the same intervention twice, or a concept both set and in the grid.
    UnknownConceptError, UnknownLabelError
        A concept or label that the schema does not have.

    Examples
    --------
    >>> from causcell.concepts import Concept, ConceptSchema
    >>> schema = ConceptSchema((Concept("stim", ("IFN", "ctrl")), Concept("cell_type", ("B", "T"))))
    >>> [each.name for each in plan_interventions(schema, {"stim": "IFN"}, grid=["cell_type"])]
    ['stim=IFN;cell_type=B', 'stim=IFN;cell_type=T']
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
                f"{format_list(clash or grid)} is named twice by do= and grid=; a grid takes every label of a concept: "
                "leave one of the two out"
            )
        interventions.append(Intervention.of(schema, {**base, **dict(point)}))
    if len(set(interventions)) < len(interventions):
        raise InterventionError(f"an intervention is given twice: {format_list(i.name for i in interventions)}")
    named = [each.name for each in interventions]
    if len(set(named)) < len(named):
        twice = next(name for name in named if named.count(name) > 1)
        raise InterventionError(
            f"two interventions have one name, {twice!r}, by which results tell them apart: a label contains ';' or "
            "'='; give them in runs of their own, or rename the label"
        )
    return tuple(interventions)
