"""Small tables and lists as people have them: written by hand, by pandas, by R, or by a spreadsheet.

A byte order mark, UTF-16, quotes, ``;`` or tabs, an unnamed first column, comments and empty lines are read alike.
"""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

DELIMITERS = (",", ";", "\t")

_BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}

_LARGEST_FIELD = 10_000


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a file as text, whatever program wrote it.

    Raises
    ------
    OSError
        The file can't be read.
    ValueError
        It is no text in UTF-8 or UTF-16.
    """
    content = Path(path).read_bytes()
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    text = content.decode(encoding)
    if "\0" in text:
        raise ValueError("it is no text: it holds zero bytes")
    return text


def read_rows(text: str, delimiter: str | None) -> list[list[str]]:
    r"""Split text into rows and cells, without comments (``#``), empty lines, and blanks around cells.

    Parameters
    ----------
    text
        The table.
    delimiter
        What stands between cells; `None` for one cell a line.

    Raises
    ------
    ValueError
        Quotes that do not close, or a cell longer than any name.

    Examples
    --------
    >>> read_rows('# a comment\n"x"\n"CD4 TotalSeqB"\n', None)
    [['x'], ['CD4 TotalSeqB']]
    >>> read_rows("cell;split\na;train\n", ";")
    [['cell', 'split'], ['a', 'train']]
    """
    lines = _content_lines(text)
    if delimiter is None:
        return [[_unquoted(line.strip())] for line in lines if line.strip()]
    rows = []
    try:
        for row in csv.reader(io.StringIO("".join(lines), newline=""), delimiter=delimiter, strict=True):
            cells = [cell.strip() for cell in row]
            if any(len(cell) > _LARGEST_FIELD for cell in cells):
                raise ValueError(f"a cell of the table has more than {_LARGEST_FIELD} characters")
            if any(cells):
                rows.append(cells)
    except csv.Error as error:
        raise ValueError(str(error)) from error
    return rows


def read_header(text: str, delimiter: str) -> list[str]:
    """Read the first row of a table, in lower case; none where a delimiter makes no sense of it."""
    first = next((line for line in _content_lines(text) if line.strip()), "")
    try:
        rows = read_rows(first, delimiter)
    except ValueError:
        return []
    return [cell.casefold() for cell in rows[0]] if rows else []


def _content_lines(text: str) -> list[str]:
    lines = [line for line in text.splitlines(keepends=True) if not line.lstrip().startswith("#")]
    note = bool(lines) and lines[0].lower().startswith("sep=")  # a spreadsheet's, to itself
    return lines[1:] if note else lines


def _unquoted(cell: str) -> str:
    if len(cell) > 1 and cell[0] == cell[-1] and cell[0] in "\"'":
        return cell[1:-1].replace(cell[0] * 2, cell[0]).strip()
    return cell
