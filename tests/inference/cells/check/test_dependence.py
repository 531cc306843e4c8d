"""Measures of dependence against values worked out by hand or by scipy."""

import numpy as np
import pytest

from causcell.cells.check.dependence import association, contingency, determines, explained, holm, share_told


def test_cells_without_one_of_the_labels_are_left_out():
    table = contingency(np.array([0, 0, 2, -1, 2]), np.array([1, 1, 0, 0, -1]))
    assert table.tolist() == [[0, 2], [1, 0]]
    assert contingency(np.array([-1, 0]), np.array([0, -1])).size == 0


def test_explained_is_one_minus_conditional_over_whole_entropy():
    table = np.array([[30, 10], [10, 30]])
    share = np.array([0.75, 0.25])
    assert explained(table) == pytest.approx(1 + (share * np.log(share)).sum() / np.log(2))
    assert explained(np.array([[4, 0], [0, 4], [0, 9]])) == 1
    assert explained(np.array([[4, 8], [2, 4]])) == pytest.approx(0, abs=1e-12)


def test_association_has_the_p_value_of_pearsons_test():
    from scipy.stats import chi2_contingency

    table = np.array([[30, 12, 7], [14, 25, 9]])
    assert association(table)[1] == pytest.approx(chi2_contingency(table, correction=False).pvalue)


def test_cramers_v_is_one_for_identity_and_nothing_for_chance():
    assert association(np.diag([50, 40, 30]))[0] == pytest.approx(1)
    rng = np.random.default_rng(0)
    chance = [association(contingency(rng.integers(20, size=400), rng.integers(10, size=400)))[0] for _ in range(20)]
    assert np.mean(chance) < 0.07  # uncorrected, V would be .24
    assert association(np.array([[5, 7]])) == (0, 1)


def test_a_label_a_cell_determines_nothing():
    assert determines(np.array([[20, 0], [20, 0], [0, 20]]))
    assert not determines(np.array([[20, 1], [20, 0], [0, 20]]))
    assert not determines(np.eye(40, dtype=int))  # each label has one cell


def test_share_told_is_of_cells_with_the_commonest_column():
    assert share_told(np.array([[9, 1], [0, 10]])) == pytest.approx(0.95)


def test_holm_is_that_of_the_textbook():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
