"""Tables of measures: one row an estimate, baseline or ceiling, one column a measure, one value a repetition."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from causcell._deprecation import renamed_arguments
from causcell.evaluation.gene_shifts import GeneShifts
from causcell.evaluation.registry import Better
from causcell.evaluation.scores import Role, Score, format_score

T = TypeVar("T")

LABELS, EFFECTS, UNSEEN, SELF_TEST = "labels", "effects", "unseen effects", "self-test"
"""Kinds of tables: labels read from embeddings; effects of seen and of unseen combinations; what cheats reach."""

DEVIATIONS = 1.645
"""Standard errors to each side of a value that its 90 % interval takes."""


_BY_ROW = ("rows", "errors", "roles", "scores", "groups")
"""Attributes of a table that are mappings by row."""


@dataclass(frozen=True)
class Table:
    """Measures of one kind.

    Attributes
    ----------
    name
        Title.
    interpretation
        What the measures say, in one or two sentences.
    limitations
        What they can't tell, in one or two sentences.
    rows
        Values by row and measure, a value a repetition (fold, seed); a measure that could not be taken is left out.
    errors
        Standard errors by row and measure, one a repetition, for the measures that have one.
    roles
        Part of each row: ``model`` (what is judged), ``trivial``, ``replicate``, ``cheat``, or ``other``, left out.
    scores
        Scores by row and measure, one a repetition; see `causcell.evaluation.scores`.
    distrusted
        Why a measure is not to be trusted on these data, for those that are not; see `causcell.evaluation.self_test`.
    kind
        Which question the table answers, where verdicts are taken from it: `LABELS`, `EFFECTS`, `UNSEEN`; `SELF_TEST`.
    concept
        Concept that a table of effects is about.
    groups
        Concept that a row is about, where a table holds several.
    weakest
        Of a table of effects, one a repetition: the lowest average score of the model's in a single stratum, and which.
    shifts
        Of a table of effects of one repetition: the shifts of single genes that it averages over, which figures show.
    better
        Directions of measures that no registry knows; see `causcell.evaluation.registry.BETTER`.
    counts
        Measures that are numbers of something, which stand in the table and in no figure.
    """

    name: str
    interpretation: str
    limitations: str
    rows: dict[str, dict[str, tuple[float, ...]]]
    errors: dict[str, dict[str, tuple[float, ...]]] = field(default_factory=dict)
    roles: dict[str, Role] = field(default_factory=dict)
    scores: dict[str, dict[str, tuple[Score, ...]]] = field(default_factory=dict)
    distrusted: dict[str, str] = field(default_factory=dict)
    kind: str = ""
    concept: str = ""
    groups: dict[str, str] = field(default_factory=dict)
    weakest: tuple[tuple[float, str], ...] = ()
    shifts: tuple[GeneShifts, ...] = field(default=(), compare=False)
    better: dict[str, Better] = field(default_factory=dict)
    counts: tuple[str, ...] = ()

    @classmethod
    @renamed_arguments(tells="interpretation", silent="limitations")
    def of(
        cls,
        name: str,
        rows: Mapping[str, Mapping[str, float | None]],
        *,
        interpretation: str,
        limitations: str,
        errors: Mapping[str, Mapping[str, float]] | None = None,
        roles: Mapping[str, Role] | None = None,
        scores: Mapping[str, Mapping[str, Score]] | None = None,
        distrusted: Mapping[str, str] | None = None,
        kind: str = "",
        concept: str = "",
        groups: Mapping[str, str] | None = None,
        better: Mapping[str, Better] | None = None,
        counts: Sequence[str] = (),
    ) -> Table:
        """Make a table of one repetition; `None` is left out, and so is a row without any value.

        The arguments are the attributes, a single value in place of several.

        Examples
        --------
        >>> table = Table.of(
        ...     "Errors", {"model": {"MSE": 0.5}, "none": {"MSE": None}}, interpretation="Error.", limitations="Much."
        ... )
        >>> table.rows
        {'model': {'MSE': (0.5,)}}
        """
        kept: dict[str, dict[str, tuple[float, ...]]] = {
            row: {measure: (float(value),) for measure, value in values.items() if value is not None}
            for row, values in rows.items()
        }
        return cls(
            name,
            interpretation,
            limitations,
            {row: values for row, values in kept.items() if values},
            {
                row: {measure: (float(error),) for measure, error in found.items() if measure in kept[row]}
                for row, found in (errors or {}).items()
                if row in kept
            },
            {row: role for row, role in (roles or {}).items() if kept.get(row) and role != "other"},
            {
                row: {measure: (score,) for measure, score in found.items() if measure in kept.get(row, {})}
                for row, found in (scores or {}).items()
            },
            dict(distrusted or {}),
            kind,
            concept,
            {row: group for row, group in (groups or {}).items() if kept.get(row)},
            better=dict(better or {}),
            counts=tuple(counts),
        )

    @property
    def measures(self) -> tuple[str, ...]:
        """Columns, in the order of their first appearance."""
        return tuple(dict.fromkeys(measure for values in self.rows.values() for measure in values))

    def to_json(self) -> dict[str, Any]:
        """Return the table as ``report.json`` holds it.

        Returns
        -------
        ``name``, ``tells`` (the interpretation), ``silent`` (the limitations), and ``rows``: by row and measure its
        mean, spread (standard deviation over repetitions) and values, and where there are any the standard errors of
        these (``errors``) and ``scores``, a mapping a repetition (`Score.to_json`); ``roles`` by row; ``distrusted``
        by measure; ``shifts``, where there are any, without their genes.
        """
        rows: dict[str, dict[str, dict[str, Any]]] = {
            row: {
                measure: {"mean": float(np.mean(each)), "spread": float(np.std(each)), "values": list(each)}
                for measure, each in values.items()
            }
            for row, values in self.rows.items()
        }
        for row, found in self.errors.items():
            for measure, each in found.items():
                rows[row][measure]["errors"] = list(each)
        for row, scored in self.scores.items():
            for measure, scores in scored.items():
                rows[row][measure]["scores"] = [score.to_json() for score in scores]
        return {
            "name": self.name,
            "tells": self.interpretation,
            "silent": self.limitations,
            "rows": rows,
            "roles": self.roles,
            "distrusted": self.distrusted,
            "weakest": [{"score": score, "shift": shift} for score, shift in self.weakest],
            **({"shifts": [shift.to_json() for shift in self.shifts]} if self.shifts else {}),
        }

    def with_row_names(self, rename: Callable[[str], str]) -> Table:
        """Return the table with every row named anew."""
        parts: dict[str, Any] = {
            part: {rename(row): each for row, each in getattr(self, part).items()} for part in _BY_ROW
        }
        return replace(self, **parts)

    def with_rows(self, rows: Collection[str]) -> Table:
        """Return the table of some of its rows, in the order that they had."""
        parts: dict[str, Any] = {
            part: {row: each for row, each in getattr(self, part).items() if row in rows} for part in _BY_ROW
        }
        return replace(self, **parts)

    def rows_of(self, role: Role) -> list[str]:
        """Return the names of the rows of a role, in the order of the table."""
        return [row for row in self.rows if self.roles.get(row, "other") == role]

    def format_score(self, row: str, measure: str) -> str:
        """Format the score of a measure, in parentheses if the measure is not to be trusted on these data.

        Examples
        --------
        >>> rows, scores = {"model": {"size": 0.9}}, {"model": {"size": Score(0.4, 0.5, 0.05)}}
        >>> Table.of("Sizes", rows, interpretation="", limitations="", scores=scores).format_score("model", "size")
        '0.80 ± 0.10'
        """
        text = format_score(self.scores.get(row, {}).get(measure, ()))
        return f"({text})" if text and measure in self.distrusted else text

    def format_value(self, row: str, measure: str) -> str:
        """Format a measure: mean and spread of several repetitions; of a single one its value and 90 % interval.

        Examples
        --------
        >>> rows, errors = {"model": {"size": 0.9}}, {"model": {"size": 0.1}}
        >>> table = Table.of("Sizes", rows, interpretation="Size.", limitations="Much.", errors=errors)
        >>> table.format_value("model", "size")
        '0.900 (0.736 to 1.065)'
        """
        values = self.rows[row].get(measure)
        if values is None or len(values) != 1 or not self.errors.get(row, {}).get(measure):
            return format_values(values)
        half = self.whisker(row, measure)
        return f"{values[0]:.3f} ({values[0] - half:.3f} to {values[0] + half:.3f})"

    def whisker(self, row: str, measure: str) -> float:
        """Return the spread of several repetitions, or half the 90 % interval of a single one; 0 if there is none."""
        values = self.rows[row].get(measure, ())
        error = self.errors.get(row, {}).get(measure, ())
        if len(values) == len(error) == 1:
            return DEVIATIONS * error[0]
        return float(np.std(values)) if len(values) else 0.0


def merge_repetitions(repetitions: Sequence[Sequence[Table]]) -> list[Table]:
    """Merge the tables of several repetitions by name, their values side by side.

    A measure that is not to be trusted on the data of one repetition is not to be trusted.
    """
    merged: dict[str, Table] = {}
    for table in (table for tables in repetitions for table in tables):
        if table.name not in merged:
            merged[table.name] = replace(
                table, rows={}, errors={}, roles={}, scores={}, distrusted={}, groups={}, weakest=(), shifts=()
            )
        into = merged[table.name]
        _append(into.rows, table.rows)
        _append(into.errors, table.errors)
        _append(into.scores, table.scores)
        into.roles.update(table.roles)
        into.distrusted.update(table.distrusted)
        into.groups.update(table.groups)
        merged[table.name] = replace(into, weakest=into.weakest + table.weakest)
    return list(merged.values())


def _append(into: dict[str, dict[str, tuple[T, ...]]], rows: Mapping[str, Mapping[str, tuple[T, ...]]]) -> None:
    for row, values in rows.items():
        for measure, each in values.items():
            into.setdefault(row, {})[measure] = into.get(row, {}).get(measure, ()) + each


def format_values(values: Sequence[float] | None) -> str:
    """Format the mean of a measure, with the spread of several repetitions; nothing for one that was not taken.

    Examples
    --------
    >>> format_values([1.0, 3.0]), format_values([0.25]), format_values(None)
    ('2.000 ± 1.000', '0.250', '')
    """
    if values is None:
        return ""
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values):.3f}" if len(values) > 1 else "")
