"""Probes of many labellings at once: they read what scikit-learn's of one labelling read."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from causcell.evaluation.labelling_probes import read_by_neighbours, read_by_regression


@pytest.fixture(scope="module")
def given() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labellings = rng.integers(0, 3, (2, 150))
    x = rng.standard_normal((150, 10)) * np.arange(1, 11)
    x[:, :3] += np.eye(3)[labellings[0]] * 2
    return x, labellings, np.arange(150) % 5


def test_regression_reads_what_scikit_learn_reads(given: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    x, labellings, folds = given
    found = read_by_regression(x, labellings, folds)
    for labels, read in zip(labellings, found, strict=True):
        for fold in range(5):
            own = folds != fold
            fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x[own], labels[own])
            # the same penalty, so the same probe, up to when each stops: at most a cell of 30 on the border
            assert (fitted.predict(x[~own]) != read[~own]).sum() <= 1


def test_neighbours_vote_as_scikit_learns(given: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    x, labellings, folds = given
    found = read_by_neighbours(x, labellings, folds)
    for labels, read in zip(labellings, found, strict=True):
        for fold in range(5):
            own = folds != fold
            fitted = make_pipeline(StandardScaler(), KNeighborsClassifier(15)).fit(x[own], labels[own])
            np.testing.assert_array_equal(fitted.predict(x[~own]), read[~own])
