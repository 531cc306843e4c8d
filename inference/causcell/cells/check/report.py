"""The report on a data set: what was found, as an object, as text and as a mapping."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from causcell._internal.units import format_count

Level = Literal["error", "warning", "note"]

_SHOWN_LABELS = 6


@dataclass(frozen=True)
class Finding:
    """Something found in a data set.

    Attributes
    ----------
    kind
        What was found, in a word: ``missing_text``, ``nested``, ``cycle``.
    level
        ``error``: training refuses it. ``warning``: it can be trained, and a causal reading would mislead.
        ``note``: worth knowing.
    concepts
        Names of the concepts that it is about.
    text
        What was found, what follows, and the remedy.
    facts
        The numbers behind it.
    """

    kind: str
    level: Level
    concepts: tuple[str, ...]
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ConceptSummary:
    """Labels of a concept, with the number of cells of each; and the number of cells without a label."""

    name: str
    kind: str
    labels: Mapping[str, int]
    unlabelled: int


@dataclass(frozen=True)
class PairSummary:
    """How the labels of two concepts depend on each other.

    Attributes
    ----------
    first, second
        Names of the concepts.
    cells
        Cells that carry labels of both.
    first_tells_second, second_tells_first
        Share of the other's entropy that knowing the label takes away, 0 to 1 (Theil's U).
    association
        Cramér's V, corrected for its bias, 0 to 1.
    p_value
        Of independence of the labels, adjusted for the number of pairs (Holm); cells are taken for independent.
    seen, possible
        Combinations of their labels that cells carry, and all there could be.
    graph
        ``edge``, ``path``, ``common cause`` or ``none``: what joins them in the graph.
    """

    first: str
    second: str
    cells: int
    first_tells_second: float
    second_tells_first: float
    association: float
    p_value: float
    seen: int
    possible: int
    graph: str


@dataclass(frozen=True, repr=False)
class Report:
    """Report on what a data set lets a model learn; printing it gives the text of ``causcell check``.

    Attributes
    ----------
    source
        Where the cells are.
    cells, genes
        How many there are.
    expression
        Scale of a sample of the values, and what it was told by.
    concepts, pairs
        Labels of each concept, and dependences of each pair.
    edges
        Edges of the graph, ``PARENT:CHILD``.
    combinations
        Numbers of combinations of labels of all concepts: ``seen`` and ``possible``.
    training
        Estimate of time (``seconds``) and memory (``bytes``) of training on ``cpus`` CPUs.
    findings
        Errors first, then warnings, then notes.
    """

    source: str
    cells: int
    genes: int
    expression: Mapping[str, Any]
    concepts: tuple[ConceptSummary, ...]
    pairs: tuple[PairSummary, ...]
    edges: tuple[str, ...]
    combinations: Mapping[str, int]
    training: Mapping[str, Any]
    findings: tuple[Finding, ...]

    def of_level(self, level: Level) -> tuple[Finding, ...]:
        """Return the findings of one level."""
        return tuple(each for each in self.findings if each.level == level)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Faults that training refuses."""
        return self.of_level("error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Faults of data that can be trained on, and would mislead."""
        return self.of_level("warning")

    @property
    def notes(self) -> tuple[Finding, ...]:
        """Facts that are worth knowing."""
        return self.of_level("note")

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain mappings, lists and numbers, as ``--json`` prints it."""
        return asdict(self)

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> Iterator[str]:
        """Give the report's lines of text."""
        yield f"{self.source}: {self.cells:,} cells x {self.genes:,} genes, {self.expression['text']}"
        if self.concepts:
            yield ""
            yield "concepts"
            yield from _columns([_describe(concept) for concept in self.concepts])
        if self.pairs:
            yield ""
            yield "pairs of concepts"
            header = ("", "", "tells the other", "Cramér's V", "p", "combinations", "in the graph")
            yield from _columns([header, *(_describe_pair(pair) for pair in self.pairs)])
        if self.training:
            yield ""
            yield self.training["text"]
        for level in ("error", "warning", "note"):
            for finding in self.of_level(level):
                yield ""
                yield f"{level}: {finding.text}"
        yield ""
        counts = [(self.errors, "error"), (self.warnings, "warning"), (self.notes, "note")]
        yield ", ".join(format_count(len(found), name) for found, name in counts)


def _describe(concept: ConceptSummary) -> tuple[str, ...]:
    by_cells = sorted(concept.labels.items(), key=lambda item: -item[1])
    ordered = list(concept.labels.items()) if len(by_cells) <= _SHOWN_LABELS else by_cells[:_SHOWN_LABELS]
    shown = ", ".join(f"{label} {count}" for label, count in ordered)
    if len(by_cells) > _SHOWN_LABELS:
        shown += f", ... {by_cells[-1][0]} {by_cells[-1][1]}"
    unlabelled = f"; {concept.unlabelled} unlabelled" if concept.unlabelled else ""
    kind = "ordered labels" if concept.kind == "ordinal" else "labels"
    return concept.name, f"{len(by_cells)} {kind}", shown + unlabelled


def _describe_pair(pair: PairSummary) -> tuple[str, ...]:
    return (
        pair.first,
        pair.second,
        f"{pair.first_tells_second:.0%}, {pair.second_tells_first:.0%}",
        f"{pair.association:.2f}",
        "< 1e-10" if pair.p_value < 1e-10 else f"{pair.p_value:.1g}",
        f"{pair.seen} of {pair.possible}",
        pair.graph,
    )


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align cells of a table on the left; the last column is as long as it is."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[-1] = 0
    return [
        "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
