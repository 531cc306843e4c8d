"""Splits as people give them: the part of each cell, trained on, chosen by or tested, by the cell's name.

Files call validation rows ``choose`` (training stops by them, and export chooses a preset by them) and test rows
``report`` (measures are reported on them).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from causcell._internal.spreadsheet import DELIMITERS, read_header, read_rows, read_text
from causcell.errors import DataError, format_list

if TYPE_CHECKING:
    import pandas as pd

Split: TypeAlias = "str | os.PathLike[str] | Mapping[str, str] | pd.Series[Any] | pd.DataFrame"
"""A split as it can be given; see `read_split`."""

Part = Literal["train", "choose", "report"]

TRAINING: Part = "train"
VALIDATION: Part = "choose"
TEST: Part = "report"

_SPLIT_WORDS: dict[str, Part] = {
    "train": TRAINING,
    "choose": VALIDATION,
    "validation": VALIDATION,
    "report": TEST,
    "test": TEST,
}

_UNNAMED = ("", "unnamed: 0", "index")
"""Heads of a first column that has no name of its own: R's and pandas', pandas' read again, reset_index's."""

_SPLIT_FILE = "it is a CSV file with columns cell and split"


def assign_parts(names: np.ndarray, split: Split) -> np.ndarray:
    """Return the part of each cell that a split gives it.

    Parameters
    ----------
    names
        Cell names, str objects [n].
    split
        Part of each cell by name; see `read_split`. Cells that are not among the names are left aside.

    Returns
    -------
    ndarray
        ``train``, ``choose`` or ``report`` for each cell, str objects [n].

    Raises
    ------
    DataError
        The split leaves a cell out, or has an unknown part.

    Examples
    --------
    >>> import numpy as np
    >>> assign_parts(np.array(["a", "b"], dtype=object), {"a": "train", "b": "test"})
    array(['train', 'report'], dtype=object)
    """
    given = read_split(split)
    absent = [name for name in names if name not in given]
    if absent:
        raise DataError(f"the split says nothing of {len(absent)} cells: {format_list(absent)}; give each cell a part")
    strange = sorted({given[name] for name in names if given[name].casefold() not in _SPLIT_WORDS})
    if strange:
        raise DataError(f"the split has parts {format_list(strange)}; allowed are {format_list(_SPLIT_WORDS)}")
    return np.array([_SPLIT_WORDS[given[name].casefold()] for name in names], dtype=object)


def read_split(given: Split) -> dict[str, str]:
    """Read the part of each cell, by name.

    Parameters
    ----------
    given
        A mapping or pandas Series from names to parts; a DataFrame with columns ``cell`` and ``split``, or ``split``
        alone, by index; or a file of such a table, its cells between commas, semicolons or tabs, the column of names
        named ``cell`` or the first one without a name.

    Raises
    ------
    DataError
        The file can't be read, has other columns, or a cell stands twice.

    Examples
    --------
    >>> read_split({"a": "train", "b": "test"})
    {'a': 'train', 'b': 'test'}
    """
    if isinstance(given, str | os.PathLike):
        pairs = _read_split_file(given)
    elif isinstance(given, Mapping):
        pairs = [(str(name), part) for name, part in given.items()]
    else:
        pairs = _read_split_frame(given)
    parts: dict[str, str] = {}
    for name, part in pairs:
        word = str(part).strip()
        if name in parts:
            raise DataError(
                f"the split names cell {name!r} twice, as {parts[name]!r} and as {word!r}; give each cell one part"
            )
        parts[name] = word
    return parts


def _read_split_file(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    tables: dict[str, list[tuple[str, str]]] = {}
    problem: Exception | None = None
    try:
        text = read_text(path)
        for delimiter in DELIMITERS:
            if _is_split(read_header(text, delimiter)):
                try:
                    tables[delimiter] = _read_columns(text, delimiter)
                except ValueError as error:
                    problem = problem or error
    except (OSError, ValueError) as error:
        raise DataError(f"the split file {os.fspath(path)!r} can't be read ({error}); {_SPLIT_FILE}") from error
    if len(tables) > 1:
        raise DataError(
            f"the split file {os.fspath(path)!r} can be read in {len(tables)} ways, with cells between "
            f"{format_list(tables)}; give a plain CSV file with columns cell and split"
        )
    if tables:
        return next(iter(tables.values()))
    begin = text.lstrip().partition("\n")[0].strip()[:200]
    raise DataError(
        f"the split file {os.fspath(path)!r} can't be read ({problem or f'it begins with {begin!r}'}); {_SPLIT_FILE}"
    ) from problem


def _is_split(header: list[str]) -> bool:
    """Tell whether a table has one column of parts, and one of cells: by name, or the first one without a name."""
    return header.count("split") == 1 and (header.count("cell") == 1 or not header.count("cell"))


def _read_columns(text: str, delimiter: str) -> list[tuple[str, str]]:
    """Read names and parts from a table; raises `ValueError` where the column of names is not clear."""
    header, *rows = read_rows(text, delimiter)
    names = [cell.casefold() for cell in header]
    if "cell" not in names and rows and all(len(row) == len(names) + 1 for row in rows):
        names = ["", *names]  # R leaves the head of its row names out
    if "cell" not in names and (names[0] not in _UNNAMED or len(names) < 2):
        raise ValueError(f"its columns are {format_list(header)}")
    cell, part = names.index("cell") if "cell" in names else 0, names.index("split")
    for row in rows:
        if len(row) != len(names):
            raise ValueError(f"the row {delimiter.join(row)[:100]!r} has {len(row)} cells, the header has {len(names)}")
    return [(row[cell], row[part]) for row in rows]


def _read_split_frame(given: pd.Series[Any] | pd.DataFrame) -> list[tuple[str, str]]:
    import pandas as pd

    if isinstance(given, pd.DataFrame):
        if "split" not in given:
            raise DataError(
                f"the split has columns {format_list(given.columns)}; give a DataFrame with columns cell and split, or "
                "with split alone and the cells' names as index"
            )
        given = (given.set_index("cell") if "cell" in given else given)["split"]
    if not isinstance(given, pd.Series):
        raise DataError(
            f"split= is a {type(given).__name__}; give a mapping or Series from cell names to parts, a DataFrame with "
            "columns cell and split, or the path of a CSV file of one"
        )
    return [(str(name), str(part)) for name, part in given.items()]
