"""Tables of measures: one row an estimate, baseline or ceiling, one column a measure, one value a repetition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from causcell._deprecation import renamed_arguments

DEVIATIONS = 1.645
"""Standard errors to each side of a value that its 90 % interval takes."""


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
    """

    name: str
    interpretation: str
    limitations: str
    rows: dict[str, dict[str, tuple[float, ...]]]
    errors: dict[str, dict[str, tuple[float, ...]]] = field(default_factory=dict)

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
    ) -> Table:
        """Make a table of one repetition; `None` is left out, and so is a row without any value.

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
        these (``errors``).
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
        return {"name": self.name, "tells": self.interpretation, "silent": self.limitations, "rows": rows}

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
    """Merge the tables of several repetitions by name, their values side by side."""
    merged: dict[str, Table] = {}
    for table in (table for tables in repetitions for table in tables):
        if table.name not in merged:
            merged[table.name] = Table(table.name, table.interpretation, table.limitations, {})
        for into, rows in ((merged[table.name].rows, table.rows), (merged[table.name].errors, table.errors)):
            for row, values in rows.items():
                for measure, each in values.items():
                    into.setdefault(row, {})[measure] = into.get(row, {}).get(measure, ()) + each
    return list(merged.values())


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
