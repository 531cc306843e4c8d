"""Parts of the cells: trained on, chosen by, reported on."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from causcell.concepts import UNLABELLED, ConceptSchema
from causcell.errors import DataError, UnknownLabelError, format_list
from causcell_training.config import TrainConfig

Part = Literal["train", "choose", "report"]


_SPLIT_WORDS = {"train": "train", "choose": "choose", "validation": "choose", "report": "report", "test": "report"}


def random_parts(labels: np.ndarray, config: TrainConfig, rng: np.random.Generator) -> np.ndarray:
    """Parts at random; the first cell met of every label is trained on, so that no label goes untrained."""
    count = len(labels)
    held_out = round(config.optimisation.held_out * count)
    if held_out < 2 or count - held_out < 2:
        raise DataError(
            f"{count} cells are too few to train on and hold out {config.optimisation.held_out:.0%} of them; "
            "give more cells, or another share (--set optimisation.held_out=0.2)"
        )
    order = rng.permutation(count)
    needed = _first_of_each_label(labels, order)
    free = np.array([row for row in order if row not in needed], dtype=np.int64)[:held_out]
    if len(free) < 2:
        raise DataError(
            f"{count} cells are too few: {len(needed)} of them are the only ones met of a label and are trained on, "
            "which leaves none to hold out; give more cells, or fewer labels"
        )
    part = np.full(count, "train", dtype=object)
    part[free[: len(free) // 2]] = "choose"
    part[free[len(free) // 2 :]] = "report"
    return part


def _first_of_each_label(labels: np.ndarray, order: np.ndarray) -> set[int]:
    """The first row of every label of every concept, in an order of rows."""
    ordered = labels[order]
    return {
        int(order[np.flatnonzero(ordered[:, concept] == label)[0]])
        for concept in range(labels.shape[1])
        for label in np.unique(ordered[ordered[:, concept] != UNLABELLED, concept])
    }


def given_parts(
    names: np.ndarray,
    labels: np.ndarray,
    split: str | os.PathLike[str] | Mapping[str, str],
    config: TrainConfig,
    rng: np.random.Generator,
) -> np.ndarray:
    """Parts as given; where no cell is given to choose by, half the held-out share of the training cells is."""
    given = split if isinstance(split, Mapping) else read_split(split)
    absent = [name for name in names if name not in given]
    if absent:
        raise DataError(f"the split says nothing of {len(absent)} cells: {format_list(absent)}; give each cell a part")
    words = np.array([given[name] for name in names], dtype=object)
    strange = sorted({str(word) for word in words if word not in _SPLIT_WORDS})
    if strange:
        raise DataError(f"the split has parts {format_list(strange)}; allowed are {format_list(_SPLIT_WORDS)}")
    part = np.array([_SPLIT_WORDS[word] for word in words], dtype=object)
    train = np.flatnonzero(part == "train")
    if not (part == "choose").any():
        wanted = max(1, round(config.optimisation.held_out / 2 * len(train)))
        order = rng.permutation(train)
        needed = _first_of_each_label(labels, order)
        part[[row for row in order if row not in needed][:wanted]] = "choose"
    if (part == "train").sum() < 2:
        raise DataError(f"the split leaves {int((part == 'train').sum())} cells to train on; give at least two")
    return part


def read_split(path: str | os.PathLike[str]) -> dict[str, str]:
    """Part of each cell by name, from a CSV file with columns ``cell`` and ``split``; raises `DataError`."""
    try:
        with Path(path).open(newline="") as file:
            return {row["cell"]: row["split"] for row in csv.DictReader(file)}
    except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"the split file {os.fspath(path)!r} can't be read ({error}); it is a CSV file with columns cell and split"
        ) from error


def require_trained_labels(schema: ConceptSchema, labels: np.ndarray, part: np.ndarray) -> None:
    for i, concept in enumerate(schema.concepts):
        trained = set(labels[part == "train", i].tolist())
        untrained = [label for code, label in enumerate(concept.labels) if code not in trained]
        if untrained:
            raise UnknownLabelError(
                f"concept {concept.name!r} has labels that no training cell carries: {format_list(untrained)}; "
                f"train on "
                "some of their cells, or set these labels to NaN"
            )
