"""Probes of many labellings of the same cells at once: their labels, and what is left when these are shuffled.

Each cell is read by probes that are fitted on the other folds of the cells. What depends on the embedding alone is
computed once for all labellings.
"""

from __future__ import annotations

import numpy as np

_NEIGHBOURS = 15
_ITERATIONS = 40
_PENALTY = 1.0


def standardise(embedding: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Centre and scale an embedding [n x k] by the mean and deviation of some rows; what does not vary is centred."""
    deviation = embedding[rows].std(axis=0)
    return np.asarray((embedding - embedding[rows].mean(axis=0)) / np.where(deviation > 0, deviation, 1))


def read_by_regression(embedding: np.ndarray, labellings: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Read labels from an embedding by multinomial logistic regression, its squared weights halved for penalty.

    Fitted by 40 accelerated steps under the bound of Böhning (1992): the curvature of the loss is at most X'X / 2.

    Parameters
    ----------
    embedding
        Embedding of the cells, [n x k]; it is standardised by each probe's own cells.
    labellings
        Label codes of the cells, int [L x n], from 0.
    folds
        Fold of each cell, int [n], from 0.

    Returns
    -------
    The codes read, int [L x n].

    Examples
    --------
    >>> import numpy as np
    >>> labels = np.arange(40) % 2
    >>> read = read_by_regression(labels[:, None] + np.zeros((40, 3)), labels[None], np.arange(40) // 2 % 5)
    >>> bool((read == labels).all())
    True
    """
    count, classes = len(labellings), labellings.max() + 1
    targets = np.eye(classes)[labellings].transpose(1, 0, 2).reshape(len(folds), -1)
    penalty = np.append(np.full(embedding.shape[1], _PENALTY), 1e-6)
    read = np.empty_like(labellings)
    for fold in range(folds.max() + 1):
        fitted, tested = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        x = np.concatenate([standardise(embedding, fitted), np.ones((len(folds), 1))], axis=1)
        own, wanted = x[fitted], targets[fitted]
        step = np.linalg.inv(own.T @ own / 2 + np.diag(penalty))
        weights = ahead = np.zeros((x.shape[1], count * classes))
        for iteration in range(_ITERATIONS):
            likely = np.exp(np.clip(own @ ahead, -60, 60)).reshape(-1, count, classes)
            likely /= likely.sum(axis=2, keepdims=True)
            slope = own.T @ (likely.reshape(len(own), -1) - wanted) + penalty[:, None] * ahead
            before, weights = weights, ahead - step @ slope
            ahead = weights + iteration / (iteration + 3) * (weights - before)
        read[:, tested] = (x[tested] @ weights).reshape(-1, count, classes).argmax(axis=2).T
    return read


def read_by_neighbours(embedding: np.ndarray, labellings: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Read labels from an embedding by a vote of the 15 nearest cells of the other folds; see `read_by_regression`."""
    targets = np.eye(labellings.max() + 1)[labellings]
    read = np.empty_like(labellings)
    for fold in range(folds.max() + 1):
        fitted, tested = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        x = standardise(embedding, fitted)
        distances = (x[fitted] ** 2).sum(axis=1) - 2 * x[tested] @ x[fitted].T  # but for the tested cell's own square
        count = min(_NEIGHBOURS, len(fitted))
        nearest = fitted[np.argpartition(distances, count - 1, axis=1)[:, :count]]
        read[:, tested] = targets[:, nearest].sum(axis=2).argmax(axis=2)
    return read
