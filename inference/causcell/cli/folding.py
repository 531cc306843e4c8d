"""Text for a terminal: long lines are folded at words, under the column that they belong to."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap

import typer

_GAP = re.compile(r"\S {2,}(?=\S)")
"""What stands between columns of a table."""


def say(text: str, *, err: bool = False) -> None:
    """Print text; where it goes to a terminal, lines that are too long for it are folded.

    Parameters
    ----------
    text
        Lines.
    err
        Whether to print to standard error.
    """
    if (sys.stderr if err else sys.stdout).isatty():
        text = fold(text, shutil.get_terminal_size().columns)
    typer.echo(text, err=err)


def fold(text: str, width: int) -> str:
    """Fold lines that are longer than a width at words.

    What follows of a paragraph is indented by two; of a row of columns whose last one is text, it stands below the last
    column. Rows of numbers, whose last column begins in the right half, stay whole.

    Examples
    --------
    >>> print(fold("note: an edge agrees with the labels", 24))
    note: an edge agrees
      with the labels
    >>> print(fold("  donor  8 cells, 7 cells", 20))
      donor  8 cells, 7
             cells
    """
    return "\n".join(_fold(line, width) for line in text.splitlines())


def _fold(line: str, width: int) -> str:
    if len(line) <= width:
        return line
    column = max((found.end() for found in _GAP.finditer(line)), default=0)
    if column > width / 2:
        return line
    indent = len(line) - len(line.lstrip())
    hanging = column or indent + 2
    return textwrap.fill(
        line.lstrip(),
        width,
        initial_indent=" " * indent,
        subsequent_indent=" " * hanging,
        replace_whitespace=False,
        break_long_words=False,
        break_on_hyphens=False,
    )
