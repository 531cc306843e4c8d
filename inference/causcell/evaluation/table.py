"""Tables of measures: one row an estimate, baseline or ceiling, one column a measure, one value a repetition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Table:
    """Measures of one kind.

    Attributes
    ----------
    name
        Title.
    tells, silent
        What the measures say, and what they can't tell; one or two sentences each.
    rows
        Values by row and measure, a value a repetition (fold, seed); a measure that could not be taken is left out.
    """

    name: str
    tells: str
    silent: str
    rows: dict[str, dict[str, tuple[float, ...]]]

    @classmethod
    def of(cls, name: str, rows: Mapping[str, Mapping[str, float | None]], *, tells: str, silent: str) -> Table:
        """A table of one repetition; `None` is left out, and so is a row without any value."""
        kept: dict[str, dict[str, tuple[float, ...]]] = {
            row: {measure: (float(value),) for measure, value in values.items() if value is not None}
            for row, values in rows.items()
        }
        return cls(name, tells, silent, {row: values for row, values in kept.items() if values})

    @property
    def measures(self) -> tuple[str, ...]:
        """Columns, in the order of their first appearance."""
        return tuple(dict.fromkeys(measure for values in self.rows.values() for measure in values))

    def to_json(self) -> dict[str, Any]:
        """Mean, spread (standard deviation over repetitions) and values of every measure."""
        rows = {
            row: {
                measure: {"mean": float(np.mean(each)), "spread": float(np.std(each)), "values": list(each)}
                for measure, each in values.items()
            }
            for row, values in self.rows.items()
        }
        return {"name": self.name, "tells": self.tells, "silent": self.silent, "rows": rows}


def combined(repetitions: Sequence[Sequence[Table]]) -> list[Table]:
    """Tables of several repetitions as one each, by name, their values side by side."""
    merged: dict[str, Table] = {}
    for table in (table for tables in repetitions for table in tables):
        if table.name not in merged:
            merged[table.name] = Table(table.name, table.tells, table.silent, {})
        rows = merged[table.name].rows
        for row, values in table.rows.items():
            for measure, each in values.items():
                rows.setdefault(row, {})[measure] = rows.get(row, {}).get(measure, ()) + each
    return list(merged.values())


def as_text(table: Table) -> list[str]:
    """Lines of a table in plain text."""
    cells = [["", *table.measures]]
    cells += [[row, *(shown(values.get(measure)) for measure in table.measures)] for row, values in table.rows.items()]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join([line[0].ljust(widths[0]), *(text.rjust(w) for text, w in zip(line[1:], widths[1:], strict=True))])
        for line in cells
    ]


def shown(values: Sequence[float] | None) -> str:
    """Mean, with the spread of several repetitions; nothing for a measure that was not taken."""
    if values is None:
        return ""
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values):.3f}" if len(values) > 1 else "")
