"""The split of the cells into training, validation and test rows.

Files call validation rows ``choose`` (training stops by them, and export chooses a preset by them) and test rows
``report`` (measures are reported on them).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from causcell._internal.spreadsheet import DELIMITERS, read_header, read_rows, read_text
from causcell.concepts import UNLABELLED, ConceptSchema
from causcell.errors import DataError, UnknownLabelError, format_list
from causcell_training.config import TrainConfig

if TYPE_CHECKING:
    import pandas as pd

Split: TypeAlias = "str | os.PathLike[str] | Mapping[str, str] | pd.Series[Any] | pd.DataFrame"
"""A split as it can be given; see `read_split`."""

Part = Literal["train", "choose", "report"]

TRAINING: Part = "train"
VALIDATION: Part = "choose"
TEST: Part = "report"

PART = "causcell:part"
"""Column of ``held_out.h5ad`` with the part of each cell; no concept can have this name, for the colon."""

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


def split_cells(
    names: np.ndarray,
    labels: np.ndarray,
    schema: ConceptSchema,
    config: TrainConfig,
    split: Split | None,
    rng: np.random.Generator,
) -> np.ndarray:
    """Split cells as asked or at random, and check that every label is trained on; see the functions below.

    Returns
    -------
    ndarray
        Part of each cell, str objects [n].
    """
    held_out = config.optimisation.held_out
    if split is None:
        part = split_at_random(labels, schema, held_out, rng)
    else:
        part = split_as_given(names, labels, split, held_out, rng)
    require_trained_labels(schema, labels, part)
    return part


def split_at_random(labels: np.ndarray, schema: ConceptSchema, held_out: float, rng: np.random.Generator) -> np.ndarray:
    """Hold cells out at random, half of them for validation and half for test.

    The first cell met of every label is trained on, so that no label goes untrained.

    Parameters
    ----------
    labels
        Label codes, int [n x m]; -1 is unlabelled.
    schema
        The concepts.
    held_out
        Share of cells to hold out.
    rng
        Draws the order in which cells are met.

    Returns
    -------
    ndarray
        Part of each cell, str objects [n].

    Raises
    ------
    DataError
        Too few cells to train on some and hold out others.
    """
    count = len(labels)
    wanted = round(held_out * count)
    if wanted < 2 or count - wanted < 2:
        raise DataError(
            f"{count} cells are too few to train on and hold out {held_out:.0%} of them; "
            "give more cells, or another share (optimisation.held_out=0.2)"
        )
    order = rng.permutation(count)
    needed = _first_of_each_label(labels, order)
    free = np.array([row for row in order if row not in needed], dtype=np.int64)[:wanted]
    if len(free) < 2:
        most = max(schema.concepts, key=lambda concept: len(concept.labels))
        raise DataError(
            f"{count} cells are too few: {len(needed)} of them are the only ones met of a label and are trained on, "
            f"which leaves none to hold out; give more cells, or fewer labels: {most.name!r} has {len(most.labels)} (a "
            "measured quantity is cut into a few ordered bins, pandas.cut)"
        )
    part = np.full(count, TRAINING, dtype=object)
    part[free[: len(free) // 2]] = VALIDATION
    part[free[len(free) // 2 :]] = TEST
    return part


def split_as_given(
    names: np.ndarray,
    labels: np.ndarray,
    split: Split,
    held_out: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Split the cells as asked; where no validation cell is named, some training cells become validation cells.

    Parameters
    ----------
    names
        Cell names, str objects [n].
    labels
        Label codes, int [n x m]; -1 is unlabelled.
    split
        Part of each cell by name; see `read_split`.
    held_out
        Half of it is the share of training cells that become validation cells, where the split names none.
    rng
        Draws those.

    Returns
    -------
    ndarray
        Part of each cell, str objects [n].

    Raises
    ------
    DataError
        The split leaves a cell out, has an unknown part, or leaves fewer than two cells to train on.
    """
    given = read_split(split)
    absent = [name for name in names if name not in given]
    if absent:
        raise DataError(f"the split says nothing of {len(absent)} cells: {format_list(absent)}; give each cell a part")
    words = np.array([given[name].casefold() for name in names], dtype=object)
    strange = sorted({given[name] for name in names if given[name].casefold() not in _SPLIT_WORDS})
    if strange:
        raise DataError(f"the split has parts {format_list(strange)}; allowed are {format_list(_SPLIT_WORDS)}")
    part = np.array([_SPLIT_WORDS[word] for word in words], dtype=object)
    train = np.flatnonzero(part == TRAINING)
    if not (part == VALIDATION).any():
        wanted = max(1, round(held_out / 2 * len(train)))
        order = rng.permutation(train)
        needed = _first_of_each_label(labels, order)
        part[[row for row in order if row not in needed][:wanted]] = VALIDATION
    if (part == TRAINING).sum() < 2:
        raise DataError(f"the split leaves {int((part == TRAINING).sum())} cells to train on; give at least two")
    return part


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


def require_trained_labels(schema: ConceptSchema, labels: np.ndarray, part: np.ndarray) -> None:
    """Check that training rows carry every label.

    Parameters
    ----------
    schema
        Concepts with their labels.
    labels
        Label codes, int [n x m].
    part
        Part of each cell, str objects [n].

    Raises
    ------
    UnknownLabelError
        A label is carried by validation or test rows alone.
    """
    for i, concept in enumerate(schema.concepts):
        trained = set(labels[part == TRAINING, i].tolist())
        untrained = [label for code, label in enumerate(concept.labels) if code not in trained]
        if untrained:
            raise UnknownLabelError(
                f"concept {concept.name!r} has labels that no training cell carries: {format_list(untrained)}; train "
                "on some of their cells, or set these labels to NaN"
            )


def _first_of_each_label(labels: np.ndarray, order: np.ndarray) -> set[int]:
    """Find the first row of every label of every concept (codes [n x m]), in an order of rows."""
    ordered = labels[order]
    return {
        int(order[np.flatnonzero(ordered[:, concept] == label)[0]])
        for concept in range(labels.shape[1])
        for label in np.unique(ordered[ordered[:, concept] != UNLABELLED, concept])
    }
