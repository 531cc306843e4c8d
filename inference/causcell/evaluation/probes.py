"""What can be read from an embedding: probes fitted on some cells and tested on others, and clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from causcell.concepts import UNLABELLED

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

Reader = Literal["linear", "neighbours"]


_FOLDS = 5


_NEIGHBOURS = 15


def majority_rate(labels: np.ndarray) -> float:
    """Share of the most frequent label among labelled cells: what is right without reading anything."""
    counts = np.bincount(labels[labels != UNLABELLED])
    return float(counts.max() / counts.sum())


def probe_accuracy(embedding: np.ndarray, labels: np.ndarray, reader: Reader = "linear") -> float | None:
    """Accuracy of labels read from an embedding by a fresh probe, over five folds of the cells.

    Parameters
    ----------
    embedding
        [n x k]; standardised by each fold's own cells.
    labels
        Codes, int [n]; -1 is unlabelled. Labels with fewer than five cells are left out.
    reader
        ``linear``: multinomial logistic regression; ``neighbours``: a vote of the 15 nearest cells.

    Returns
    -------
    `None` where fewer than two labels are left.
    """
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    frequent = np.flatnonzero(np.bincount(labels[labels != UNLABELLED]) >= _FOLDS)
    if len(frequent) < 2:
        return None
    kept = np.isin(labels, frequent)
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    return float(cross_val_score(_probe(reader), embedding[kept], labels[kept], cv=folds).mean())


def transferred_accuracy(
    embedding: np.ndarray, labels: np.ndarray, others: np.ndarray, other_labels: np.ndarray
) -> float | None:
    """Accuracy on other cells [n' x k] of a linear probe fitted on these [n x k]; `None` without two labels there."""
    known, other_known = labels != UNLABELLED, other_labels != UNLABELLED
    if len(np.unique(labels[known])) < 2 or not other_known.any():
        return None
    fitted = _probe("linear").fit(embedding[known], labels[known])
    return float(fitted.score(others[other_known], other_labels[other_known]))


def _probe(reader: Reader) -> Pipeline:
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = LogisticRegression(max_iter=1000) if reader == "linear" else KNeighborsClassifier(_NEIGHBOURS)
    return make_pipeline(StandardScaler(), probe)


def classification_scores(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Accuracy, and precision, recall and F1 weighted by the labels' frequencies, over labelled cells."""
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    known = truth != UNLABELLED
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth[known], predicted[known], average="weighted", zero_division=0
    )
    return {
        "accuracy": float(accuracy_score(truth[known], predicted[known])),
        "precision": float(precision),
        "recall": float(recall),
        "F1": float(f1),
    }


def clusters(embedding: np.ndarray, count: int, *, seed: int = 0) -> np.ndarray:
    """k-means clusters of cells, int [n]."""
    from sklearn.cluster import KMeans

    return KMeans(count, n_init=10, random_state=seed).fit_predict(embedding)


def partition_agreement(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """NMI and ARI (adjusted for chance) of two partitions of the same cells."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    return {"NMI": float(normalized_mutual_info_score(a, b)), "ARI": float(adjusted_rand_score(a, b))}
