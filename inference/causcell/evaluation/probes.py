"""Probes of embeddings, fitted on some cells and tested on others, and clusters of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from causcell._deprecation import renamed_arguments
from causcell.concepts import UNLABELLED

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

Probe = Literal["linear", "neighbours"]

_FOLDS = 5
_NEIGHBOURS = 15


def majority_rate(labels: np.ndarray) -> float:
    """Share of the most frequent label among labelled cells: the accuracy of a guess that reads nothing.

    Parameters
    ----------
    labels
        Codes, int [n]; -1 is unlabelled; at least one is not.
    """
    counts = np.bincount(labels[labels != UNLABELLED])
    return float(counts.max() / counts.sum())


@renamed_arguments(reader="probe")
def probe_accuracy(embedding: np.ndarray, labels: np.ndarray, probe: Probe = "linear") -> float | None:
    """Accuracy of labels read from an embedding by a fresh probe, over five folds of the cells.

    Parameters
    ----------
    embedding
        Embedding of the cells, [n x k]; it is standardised by each fold's own cells.
    labels
        Codes, int [n]; -1 is unlabelled. Labels with fewer than five cells are left out.
    probe
        ``linear``: multinomial logistic regression; ``neighbours``: a vote of the 15 nearest cells.

    Returns
    -------
    The share of cells read right, averaged over folds; `None` where fewer than two labels are left.

    Examples
    --------
    >>> import numpy as np
    >>> labels = np.arange(20) % 2
    >>> probe_accuracy(labels[:, None] + np.zeros((20, 3)), labels)
    1.0
    """
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    frequent = np.flatnonzero(np.bincount(labels[labels != UNLABELLED]) >= _FOLDS)
    if len(frequent) < 2:
        return None
    kept = np.isin(labels, frequent)
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    return float(cross_val_score(_make_probe(probe), embedding[kept], labels[kept], cv=folds).mean())


def transferred_accuracy(
    embedding: np.ndarray, labels: np.ndarray, others: np.ndarray, other_labels: np.ndarray
) -> float | None:
    """Accuracy on other cells of a linear probe that was fitted on these.

    Parameters
    ----------
    embedding, labels
        Embedding and label codes of the cells that the probe is fitted on, [n x k] and int [n]; -1 is unlabelled.
    others, other_labels
        Those of the cells that it is tested on, [n' x k] and int [n'].

    Returns
    -------
    The share of the labelled other cells read right; `None` where the probe has fewer than two labels to learn, or no
    other cell is labelled.
    """
    known, other_known = labels != UNLABELLED, other_labels != UNLABELLED
    if len(np.unique(labels[known])) < 2 or not other_known.any():
        return None
    fitted = _make_probe("linear").fit(embedding[known], labels[known])
    return float(fitted.score(others[other_known], other_labels[other_known]))


def _make_probe(probe: Probe) -> Pipeline:
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = LogisticRegression(max_iter=1000) if probe == "linear" else KNeighborsClassifier(_NEIGHBOURS)
    return make_pipeline(StandardScaler(), classifier)


def classification_scores(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Accuracy, and precision, recall and F1 weighted by the labels' frequencies, over labelled cells.

    Parameters
    ----------
    truth, predicted
        Label codes, int [n]; cells whose true code is -1 are left out.
    """
    known = truth != UNLABELLED
    truth, predicted = truth[known], predicted[known]
    size = int(max(truth.max(initial=0), predicted.max(initial=0))) + 1
    right = np.bincount(truth[truth == predicted], minlength=size)
    there, read = (np.bincount(codes[codes != UNLABELLED], minlength=size) for codes in (truth, predicted))

    def weighted(counted: np.ndarray) -> float:
        """Average the share of readings that are right among so many, of each label; 0 where there is none."""
        return float(np.average(right / np.maximum(counted, 1), weights=there))

    return {
        "accuracy": float(right.sum() / len(truth)),
        "precision": weighted(read),
        "recall": weighted(there),
        "F1": weighted((read + there) / 2),
    }


def cluster_cells(embedding: np.ndarray, count: int, *, seed: int = 0) -> np.ndarray:
    """Cluster cells [n x k] by k-means into ``count`` clusters, int [n]."""
    from sklearn.cluster import KMeans

    return np.asarray(KMeans(count, n_init=10, random_state=seed).fit_predict(embedding))


def partition_agreement(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Normalised mutual information and adjusted Rand index of two partitions of the same cells, codes int [n]."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    return {"NMI": float(normalized_mutual_info_score(a, b)), "ARI": float(adjusted_rand_score(a, b))}
