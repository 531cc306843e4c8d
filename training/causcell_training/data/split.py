"""The split of the cells into training, validation and test rows.

Files call validation rows ``choose`` (training stops by them, and export chooses a preset by them) and test rows
``report`` (measures are reported on them).
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from causcell.concepts import UNLABELLED, ConceptSchema
from causcell.errors import DataError, UnknownLabelError, format_list

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


def split_at_random(labels: np.ndarray, held_out: float, rng: np.random.Generator) -> np.ndarray:
    """Hold cells out at random, half of them for validation and half for test.

    The first cell met of every label is trained on, so that no label goes untrained.

    Parameters
    ----------
    labels
        Label codes, int [n x m]; -1 is unlabelled.
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
        raise DataError(
            f"{count} cells are too few: {len(needed)} of them are the only ones met of a label and are trained on, "
            "which leaves none to hold out; give more cells, or fewer labels"
        )
    part = np.full(count, TRAINING, dtype=object)
    part[free[: len(free) // 2]] = VALIDATION
    part[free[len(free) // 2 :]] = TEST
    return part


def split_as_given(
    names: np.ndarray,
    labels: np.ndarray,
    split: str | os.PathLike[str] | Mapping[str, str],
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
        Part of each cell by name: a mapping, or a CSV file.
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
    given = split if isinstance(split, Mapping) else read_split(split)
    absent = [name for name in names if name not in given]
    if absent:
        raise DataError(f"the split says nothing of {len(absent)} cells: {format_list(absent)}; give each cell a part")
    words = np.array([given[name] for name in names], dtype=object)
    strange = sorted({str(word) for word in words if word not in _SPLIT_WORDS})
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


def read_split(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read the part of each cell, by name.

    Parameters
    ----------
    path
        CSV file with columns ``cell`` and ``split``.

    Raises
    ------
    DataError
        The file can't be read, or has other columns.
    """
    try:
        with Path(path).open(newline="") as file:
            return {row["cell"]: row["split"] for row in csv.DictReader(file)}
    except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"the split file {os.fspath(path)!r} can't be read ({error}); it is a CSV file with columns cell and split"
        ) from error


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
