"""Statistics of the training cells by their labels: what an export compares the model's effects with."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from causcell._internal.batching import batches
from causcell_training.data.cells import TrainingData
from causcell_training.data.split import TRAINING

GROUPS = "causcell:groups"
"""Key in ``uns`` of ``held_out.h5ad``."""

_MOST_VALUES = 2**22
"""Values of each array at most: rare combinations of labels are left out beyond it."""

_READ_ROWS = 16384


def summarise_groups(data: TrainingData) -> dict[str, np.ndarray]:
    """Take the mean and the variance of expression of the training cells that carry the same labels.

    Cells that the run was trained on that training starts from are in its own statistics, which are pooled with these.

    Parameters
    ----------
    data
        The training cells.

    Returns
    -------
    Arrays by name, a row for each combination of labels, the most frequent first: ``labels``, int32 [C x m]; ``cells``,
    int64 [C]; ``mean`` and ``variance`` (n - 1; 0 for a single cell), float32 [C x G], log scale.
    """
    train = data.rows(TRAINING)
    inherited = None if data.heritage is None else data.heritage.groups
    if data.heritage is not None and inherited is not None:
        known = data.heritage.split
        train = train[[name not in known for name in data.names[train]]]
        if not len(train):
            return inherited
    own = _summarise(data, train)
    return own if inherited is None else _pool(own, inherited)


def _pool(own: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Pool statistics of two sets of cells, combination by combination of labels."""
    labels = np.concatenate([own["labels"], other["labels"]])
    combinations, group = np.unique(labels, axis=0, return_inverse=True)
    cells = np.concatenate([own["cells"], other["cells"]]).astype(np.int64)
    means = np.concatenate([own["mean"], other["mean"]]).astype(np.float64)
    variances = np.concatenate([own["variance"], other["variance"]])
    count = np.bincount(group.ravel(), weights=cells).astype(np.int64)
    total, squares = np.zeros((2, len(combinations), means.shape[1]))
    np.add.at(total, group.ravel(), cells[:, None] * means)
    mean = total / count[:, None]
    within = np.maximum(cells - 1, 0)[:, None] * variances + cells[:, None] * (means - mean[group.ravel()]) ** 2
    np.add.at(squares, group.ravel(), within)
    kept = np.argsort(-count, kind="stable")[: max(1, _MOST_VALUES // means.shape[1])]
    return {
        "labels": combinations[kept].astype(np.int32),
        "cells": count[kept],
        "mean": mean[kept].astype(np.float32),
        "variance": (squares / np.maximum(count - 1, 1)[:, None])[kept].astype(np.float32),
    }


def _summarise(data: TrainingData, train: np.ndarray) -> dict[str, np.ndarray]:
    """Take mean and variance of some rows by their combination of labels; see `summarise_groups`."""
    combinations, group, cells = np.unique(data.labels[train], axis=0, return_inverse=True, return_counts=True)
    genes = data.expression.shape[1]
    kept = np.argsort(-cells, kind="stable")[: max(1, _MOST_VALUES // genes)]
    place = np.full(len(cells), -1)
    place[kept] = np.arange(len(kept))
    group, cells = place[group.ravel()], cells[kept].astype(np.int64)
    total, square = np.zeros((2, len(kept), genes))
    for part in batches(len(train), _READ_ROWS):
        within = np.flatnonzero(group[part] >= 0)
        x = data.expression[train[part][within]].astype(np.float64)
        members = sparse.csr_matrix(
            (np.ones(len(within)), (group[part][within], np.arange(len(within)))), (len(kept), len(within))
        )
        total += (members @ x).toarray()
        square += (members @ x.power(2)).toarray()
    mean = total / cells[:, None]
    variance = np.maximum(square - cells[:, None] * mean**2, 0) / np.maximum(cells - 1, 1)[:, None]
    return {
        "labels": combinations[kept].astype(np.int32),
        "cells": cells,
        "mean": mean.astype(np.float32),
        "variance": variance.astype(np.float32),
    }
