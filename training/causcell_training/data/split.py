"""The split of the cells into training, validation and test rows; `causcell.cells.split` reads one that is given."""

from __future__ import annotations

from typing import Literal

import numpy as np

from causcell.cells.split import (
    TEST,
    TRAINING,
    VALIDATION,
    Part,
    Split,
    assign_parts,
    read_split,
)
from causcell.concepts import UNLABELLED, ConceptSchema
from causcell.errors import DataError, UnknownLabelError, format_list
from causcell_training.config import TrainConfig

__all__ = [
    "MOST_VALIDATED",
    "PART",
    "REPLAYED",
    "TEST",
    "TRAINING",
    "VALIDATION",
    "Part",
    "Split",
    "read_split",
    "require_trained_labels",
    "split_as_given",
    "split_at_random",
    "split_cells",
]

REPLAYED: Literal["replay"] = "replay"
"""Part, in memory alone, of cells that a model decoded in place of those it was trained on."""

MOST_VALIDATED = 10_000
"""Validation cells that a validation measures; of more, a sample."""

PART = "causcell:part"
"""Column of ``held_out.h5ad`` with the part of each cell; no concept can have this name, for the colon."""


def split_cells(
    names: np.ndarray | None,
    labels: np.ndarray,
    schema: ConceptSchema,
    config: TrainConfig,
    split: Split | None,
    rng: np.random.Generator,
) -> np.ndarray:
    """Split cells as asked or at random, and check that every label is trained on; see the functions below.

    Names are needed where a split is given.

    Returns
    -------
    ndarray
        Part of each cell, str objects [n].
    """
    held_out = config.optimisation.held_out
    if split is None or names is None:
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
    free = order[~np.isin(order, list(needed))][:wanted]
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
    part = assign_parts(names, split)
    train = np.flatnonzero(part == TRAINING)
    if not (part == VALIDATION).any():
        wanted = max(1, round(held_out / 2 * len(train)))
        order = rng.permutation(train)
        needed = _first_of_each_label(labels, order)
        part[order[~np.isin(order, list(needed))][:wanted]] = VALIDATION
    if (part == TRAINING).sum() < 2:
        raise DataError(f"the split leaves {int((part == TRAINING).sum())} cells to train on; give at least two")
    return part


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
        if concept.value is not None:
            continue  # its labels are those that training rows carry, others' values are known without
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
