"""Tables in plain text, as commands print them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from causcell.evaluation.table import Table
    from causcell.repository.verdicts import Verdict

_GAP = 2


def format_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> list[str]:
    """Format a table in plain text: aligned columns without a box, nothing cut short or wrapped.

    Parameters
    ----------
    header
        Head of each column.
    rows
        Cells of each row, as many as there are columns.
    left
        Number of columns that are aligned on the left; the others are on the right.

    Returns
    -------
    Lines without colour, the header first.

    Examples
    --------
    >>> for line in format_table(["preset", "steps"], [["fast", "5"], ["accurate", "100"]]):
    ...     print(line)
    preset    steps
    fast          5
    accurate    100
    """
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    body = [[Text(cell) for cell in row] for row in rows]
    head = [Text(title) for title in header]
    table = RichTable(box=None, show_edge=False, pad_edge=False, padding=(0, _GAP, 0, 0))
    for place, title in enumerate(head):
        table.add_column(title, justify="left" if place < left else "right", no_wrap=True)
    for row in body:
        table.add_row(*row)
    width = sum(max(line[place].cell_len for line in (head, *body)) + _GAP for place in range(len(head)))
    console = Console(file=io.StringIO(), width=max(width, 1), color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]


def format_measures(table: Table) -> list[str]:
    """Format a table of measures: a line an estimate, a column a measure, see `Table.format_value`."""
    rows = [[name, *(table.format_value(name, measure) for measure in table.measures)] for name in table.rows]
    return format_table(["", *table.measures], rows)


def format_scores(table: Table) -> list[str]:
    """Format scores, see `Table.format_score`: the rows of the model and of replicates, and what is to be doubted."""
    shown = [row for role in ("model", "replicate") for row in table.rows_of(role) if table.scores.get(row)]
    measures = [measure for measure in table.measures if any(measure in table.scores[row] for row in shown)]
    lines = []
    if measures:
        rows = [[row, *(table.format_score(row, measure) for measure in measures)] for row in shown]
        lines = format_table(["score: 0 trivial, 1 replicate", *measures], rows)
    return lines + [f"({measure}) is not to be trusted here: it {why}" for measure, why in table.distrusted.items()]


def format_verdicts(verdicts: Iterable[Verdict]) -> list[str]:
    """Format what a model says of its concepts: a line a verdict below a headline, nothing where there is none."""
    found = [f"  {verdict}" for verdict in verdicts]
    return ["verdicts on the concepts, from held-out cells:", *found] if found else []


def format_report(tables: Iterable[Table], verdicts: Iterable[Verdict]) -> list[str]:
    """Format a report in plain text: the verdicts, then each table with its scores.

    Parameters
    ----------
    tables
        Measures.
    verdicts
        Verdicts on the concepts.

    Returns
    -------
    Lines; an empty one after each part.
    """
    found = [f"  {verdict}" for verdict in verdicts]
    lines = ["Verdicts", *found, ""] if found else []
    for table in tables:
        lines += [table.name, *(f"  {line}" for line in (*format_measures(table), *format_scores(table))), ""]
    return lines
