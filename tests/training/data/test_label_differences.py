"""Sums over labels, and the genes that they show to be raised."""

import numpy as np
import pytest
from scipy import sparse, stats

from causcell_training.data.label_differences import LabelMoments, rank_raised_genes

rng = np.random.default_rng(0)
CODES = rng.integers(-1, 3, size=400)
VALUES = np.where(rng.random((400, 30)) < 0.6, 0, rng.gamma(2, 0.5, (400, 30))).astype(np.float32)


def moments_of(codes: np.ndarray, values: np.ndarray, parts: int = 1, squares: bool = True) -> LabelMoments:
    moments = LabelMoments(int(codes.max()) + 1, values.shape[1], squares=squares)
    for rows in np.array_split(np.arange(len(codes)), parts):
        moments.add(codes[rows], sparse.csr_matrix(values[rows]))
    return moments


@pytest.mark.parametrize("squares", [True, False])
def test_variance_within_labels_is_the_pooled_one_of_the_labelled_cells(squares: bool) -> None:
    groups = [VALUES[code == CODES].astype(np.float64) for code in range(3)]
    pooled = sum(((group - group.mean(axis=0)) ** 2).sum(axis=0) for group in groups) / (sum(map(len, groups)) - 3)
    np.testing.assert_allclose(moments_of(CODES, VALUES, squares=squares).within_variance(), pooled, rtol=1e-10)


def test_slices_and_order_of_cells_do_not_matter() -> None:
    order = rng.permutation(400)
    one, many = moments_of(CODES, VALUES), moments_of(CODES[order], VALUES[order], parts=7)
    np.testing.assert_allclose(one.sums, many.sums, rtol=1e-10)  # float64 sums in another order
    np.testing.assert_allclose(one.squares, many.squares, rtol=1e-10)
    for a, b in zip(rank_raised_genes(one, 30), rank_raised_genes(many, 30), strict=True):
        np.testing.assert_array_equal(a, b)


def test_few_cells_are_added_as_many_are() -> None:
    """Sums of few values are those of products of sparse matrices, in the same order: to the bit."""
    assert moments_of(CODES, VALUES).sums.size < np.count_nonzero(VALUES)
    values = np.concatenate([VALUES, np.zeros((400, 5000), dtype=np.float32)], axis=1)
    many, few = moments_of(CODES, VALUES), moments_of(CODES, values)
    assert few.sums.size > np.count_nonzero(values)
    for one, other in ((many.sums, few.sums), (many.squares, few.squares)):
        np.testing.assert_array_equal(one, other[:, :30])
        assert not other[:, 30:].any()


def test_what_is_added_is_left_as_it_is() -> None:
    given = sparse.csr_matrix(VALUES.astype(np.float64))
    LabelMoments(3, 30).add(np.zeros(400, dtype=int), given)
    np.testing.assert_array_equal(given.toarray(), VALUES.astype(np.float64))


def test_genes_are_ranked_as_by_welchs_test_where_labels_have_many_cells() -> None:
    """Four degrees of freedom more change little among a hundred cells: the order of clear differences is the same."""
    values = VALUES + (CODES == 1)[:, None] * np.linspace(0, 3, 30)
    values -= (CODES == 2)[:, None] * 0.0
    ranked = rank_raised_genes(moments_of(CODES, values), 30)[1]
    rest = (CODES != 1) & (CODES != -1)
    welch = stats.ttest_ind(values[CODES == 1], values[rest], equal_var=False).statistic
    np.testing.assert_array_equal(ranked[:12], np.argsort(-welch)[:12])


def test_a_lowered_gene_is_raised_in_the_others_and_a_label_of_one_cell_is_tested() -> None:
    codes = np.r_[np.zeros(150, int), np.ones(149, int), 2]
    values = rng.normal(5, 0.5, (300, 30))
    values[:150, 4] -= 2
    values[299, 7] += 9
    ranked = rank_raised_genes(moments_of(codes, values), 30)
    assert 4 not in ranked[0]
    assert ranked[1][0] == 4
    assert ranked[2][0] == 7


def test_labels_that_mean_nothing_raise_hardly_any_gene() -> None:
    values = rng.poisson(0.3, (600, 1000)).astype(np.float32)
    moments = moments_of(rng.integers(6, size=600), values)
    assert sum(map(len, rank_raised_genes(moments, 1000))) <= 6  # of 6,000 tests, by the false discovery rate


@pytest.mark.parametrize("codes", [np.full(400, 1), np.zeros(400, int)], ids=["a label without cells", "one label"])
def test_without_two_labels_nothing_is_raised(codes: np.ndarray) -> None:
    assert all(not len(genes) for genes in rank_raised_genes(moments_of(codes, VALUES), 30))
