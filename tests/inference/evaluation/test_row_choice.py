"""Which cells an evaluation reads where there are many: labels that few cells carry keep enough for their effects."""

import numpy as np
import pytest

from causcell.concepts import Concept, ConceptSchema
from causcell.evaluation import row_choice
from causcell.evaluation.cases import find_seen_cases, is_unseen
from causcell.evaluation.data import read_evaluation_data
from causcell.evaluation.row_choice import choose_rows

LABELS = 60
SCHEMA = ConceptSchema((
    Concept("perturbation", tuple(f"P{i:02d}" for i in range(LABELS))), Concept("cell_type", ("A", "B")))
)  # fmt: skip


def screen(cells: int, seed: int = 0) -> np.ndarray:
    """Label codes of a screen: a third of the cells are controls (code 0); one in 50 has no label of either concept."""
    rng = np.random.default_rng(seed)
    perturbation = np.where(rng.random(cells) < 1 / 3, 0, rng.integers(1, LABELS, cells))
    labels = np.stack([perturbation, rng.integers(0, 2, cells)], axis=1).astype(np.int32)
    labels[rng.random(cells) < 0.02] = -1
    return labels


def sizes(labels: np.ndarray) -> np.ndarray:
    """Numbers of cells of each perturbation within each cell type, [60 x 2]."""
    labels = labels[(labels >= 0).all(axis=1)]
    found = np.zeros((LABELS, 2), dtype=int)
    np.add.at(found, tuple(labels.T), 1)
    return found


@pytest.fixture
def fewer(monkeypatch):
    """Limits of as many cells as tests have."""
    monkeypatch.setattr(row_choice, "_MOST_TEST_ROWS", 300)
    monkeypatch.setattr(row_choice, "_MOST_TRAINING_ROWS", 500)


def test_of_few_cells_all_are_read():
    labels = screen(4000)
    test, training = np.arange(0, 4000, 2), np.arange(1, 4000, 2)
    chosen = choose_rows(test, training, labels, SCHEMA, np.random.default_rng(0))
    for each in (chosen.test, chosen.test_of_labels):
        assert np.array_equal(each, test)
    for each in (chosen.training, chosen.training_of_labels):
        assert np.array_equal(each, training)


def test_rare_labels_are_added_to_test_and_training_cells(fewer):
    labels = screen(8000)
    test, training = np.arange(0, 8000, 2), np.arange(1, 8000, 2)
    chosen = choose_rows(test, training, labels, SCHEMA, np.random.default_rng(0))
    assert (len(chosen.test), len(chosen.training)) == (300, 500)
    assert (sizes(labels[chosen.test]) < 8).mean() > 0.9  # none of these could be judged
    for some, more, of in (
        (chosen.test, chosen.test_of_labels, test),
        (chosen.training, chosen.training_of_labels, training),
    ):
        assert (np.diff(more) > 0).all()
        assert np.isin(more, of).all() and np.isin(some, more).all()
        assert (sizes(labels[more]) >= np.minimum(sizes(labels[of]), 16)).all()
        added = labels[np.setdiff1d(more, some)]
        assert sizes(added).max() <= 16 and not (added == -1).all(axis=1).any()


def test_labels_of_fewer_than_eight_test_cells_are_not_added_to(fewer):
    labels = np.zeros((2000, 2), dtype=np.int32)
    labels[:7, 0], labels[7:15, 0] = 1, 2
    chosen = choose_rows(np.arange(2000), np.arange(0), labels, SCHEMA, np.random.default_rng(1))
    added = labels[np.setdiff1d(chosen.test_of_labels, chosen.test), 0]
    assert set(added) == {2}
    assert (labels[chosen.test_of_labels, 0] == 2).sum() == 8


def test_labels_that_cells_are_added_for_are_limited(fewer, monkeypatch):
    monkeypatch.setattr(row_choice, "_MOST_LABELS", 10)
    labels = screen(8000)
    test, training = np.arange(0, 8000, 2), np.arange(1, 8000, 2)
    chosen = choose_rows(test, training, labels, SCHEMA, np.random.default_rng(0))
    lifted = (sizes(labels[chosen.test_of_labels]) >= 16) & (sizes(labels[chosen.test]) < 8)
    assert lifted.sum() == 10
    learned = sizes(labels[chosen.training_of_labels]) >= 16
    assert learned[lifted].all(), "baselines learn from cells of the labels that are judged"


def test_the_most_frequent_label_comes_first_since_effects_start_from_it(fewer, monkeypatch):
    monkeypatch.setattr(row_choice, "_MOST_LABELS", 12)
    strata = ConceptSchema((SCHEMA.concepts[0], Concept("cell_type", tuple("ABCDEFGHIJKL"))))
    rng = np.random.default_rng(3)
    perturbation = np.where(rng.random(8000) < 0.1, 7, rng.integers(0, LABELS, 8000))
    labels = np.stack([perturbation, rng.integers(0, 12, 8000)], axis=1).astype(np.int32)
    chosen = choose_rows(np.arange(8000), np.arange(0), labels, strata, np.random.default_rng(0))
    of_sources = labels[chosen.test_of_labels]
    assert np.bincount(of_sources[of_sources[:, 0] == 7, 1], minlength=12).min() >= 16
    some = labels[chosen.test]
    assert np.bincount(some[some[:, 0] == 7, 1], minlength=12).max() < 16


def test_more_effects_are_judged_and_no_label_trained_on_is_called_unseen(generator, cells, monkeypatch):
    test, training = np.arange(0, cells.n_obs, 2), np.arange(1, cells.n_obs, 2)
    rows = {"test_rows": test, "training_rows": training}
    everything = read_evaluation_data(generator, cells, **rows)
    with monkeypatch.context() as patch:
        patch.setattr(row_choice, "_MOST_TEST_ROWS", 40)
        patch.setattr(row_choice, "_MOST_TRAINING_ROWS", 20)
        data = read_evaluation_data(generator, cells, **rows)
    assert (len(data.test_rows), len(data.training_rows)) == (40, 20)
    assert data.counts["judged further for effects of rare labels"] == len(data.effect_rows) - 40 > 0
    named = [
        {(case.concept, case.target, case.stratum): is_unseen(each, case) for case in find_seen_cases(each)}
        for each in (everything, data)
    ]
    assert set(named[1]) == set(named[0])
    assert not any(named[1].values()) and not any(named[0].values())
    carried = {tuple(each) for each in data.training_labels}
    assert len(carried) < len(data.seen_labels)  # of which the sample of 20 cells does not tell
