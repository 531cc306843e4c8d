"""Interventions on concepts: from names, labels and values to targets; `causcell.counterfactual.scm` acts on them."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from causcell.concepts import ConceptSchema, as_pairs
from causcell.counterfactual.targets import TargetKind, read_axis, resolve_target
from causcell.errors import InterventionError, format_list

Mode = Literal["do", "exogenous", "isolated"]
MODES: tuple[Mode, ...] = get_args(Mode)


def parse_do(texts: Iterable[str]) -> dict[str, str]:
    """Return one joint intervention, labels or values by concept, from ``CONCEPT=LABEL`` strings.

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
    """``do(concept = label or value, ...)``, jointly; without any target it is the factual cell.

    Attributes
    ----------
    targets
        Pairs (concept index, label code), by concept; the code is `causcell.counterfactual.targets.UNSEEN` for a value
        that is no label.
    name
        ``concept=label``, several joined by ``;``; ``factual`` without any.
    values
        Pairs (concept index, text of the value) of the targets whose embeddings are drawn from the prior, not from
        reference cells.
    """

    targets: tuple[tuple[int, int], ...]
    name: str
    values: tuple[tuple[int, str], ...] = ()

    @classmethod
    def of(
        cls,
        schema: ConceptSchema,
        labels: Mapping[str, object],
        target: TargetKind = "reference",
        by_prior: Collection[str] = (),
    ) -> Intervention:
        """Make the intervention from labels or values by concept.

        Parameters
        ----------
        schema
            Concepts and graph.
        labels
            Labels or values by concept.
        target
            ``prior``: from the prior even where reference cells carry a label.
        by_prior
            Names of concepts whose target is the prior whatever ``target`` says.

        Raises
        ------
        UnknownConceptError, UnknownLabelError
            A concept, label or value that the schema does not have.
        """
        found = sorted(((schema.index(concept), given) for concept, given in labels.items()), key=lambda pair: pair[0])
        kinds: list[TargetKind] = ["prior" if schema.names[i] in by_prior else target for i, _ in found]
        targets = {
            i: resolve_target(schema.concepts[i], given, kind) for (i, given), kind in zip(found, kinds, strict=True)
        }
        return cls(
            tuple((i, each.code) for i, each in targets.items()),
            ";".join(f"{schema.names[i]}={each.text}" for i, each in targets.items()) or "factual",
            tuple((i, each.text) for i, each in targets.items() if each.by_value),
        )

    def texts(self, schema: ConceptSchema) -> dict[str, str]:
        """Return the labels, or values as text, that it sets, by concept."""
        values = dict(self.values)
        return {schema.names[i]: values.get(i, schema.concepts[i].labels[code]) for i, code in self.targets}

    def extrapolates(self, schema: ConceptSchema) -> bool:
        """Tell whether it sets a concept to a value beyond what the model was trained on."""
        concepts = [(schema.concepts[i], text) for i, text in self.values]
        return any(concept.extrapolates(concept.parse_value(text)) for concept, text in concepts)


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
    target: TargetKind = "reference",
) -> tuple[Intervention, ...]:
    """List the interventions that ``do`` and ``grid`` ask for.

    Parameters
    ----------
    schema
        Concepts and graph.
    do
        One joint intervention (a mapping), or several (a sequence of mappings); without any, the factual cell.
    grid
        Concepts to take every label of (of a continuous concept the medians of its bins), or a range of numbers,
        ``dose=0:10:0.5``, all of them from the prior; several multiply, and each product is joined to every ``do``.
    target
        ``reference``: embeddings of cells that carry a label where it is one, and draws from the prior for other
        values; ``prior``: from the prior always.

    Raises
    ------
    InterventionError
        Text in place of a mapping or list, the same intervention twice, a concept both set and in the grid, or a range
        that is none.
    UnknownConceptError, UnknownLabelError
        A concept, label or value that the schema does not have.

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
    read = [read_axis(schema, text) for text in grid]
    axes = [[(axis.concept, value) for value in axis.values] for axis in read]
    ranges = {axis.concept for axis in read if axis.is_range}
    interventions = []
    for base, point in itertools.product(bases, itertools.product(*axes)):
        clash = [concept for concept, _ in point if concept in base]
        if clash or len({concept for concept, _ in point}) < len(point):
            raise InterventionError(
                f"{format_list(clash or [axis.concept for axis in read])} is named twice by do= and grid=; a grid "
                "takes every label of a concept, or a range: leave one of the two out"
            )
        interventions.append(Intervention.of(schema, {**base, **dict(point)}, target, ranges))
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
