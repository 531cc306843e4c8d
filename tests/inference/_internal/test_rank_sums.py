"""Rank sums: those of SciPy's ranks and tests, ties and constant genes included."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, rankdata, tiecorrect

from causcell._internal.rank_sums import average_ranks, rank_sum_p, rank_sums


def expression(cells: int, genes: int = 40, *, seed: int = 0) -> np.ndarray:
    """Mostly zeros and whole numbers (ties), a gene without any variance, one of distinct numbers."""
    rng = np.random.default_rng(seed)
    x = (rng.poisson(1.0, (cells, genes)) * (rng.random((cells, genes)) < 0.4)).astype(np.float32)
    x[:, 0], x[:, 1] = 0, rng.standard_normal(cells)
    return x


def test_rank_sums_are_those_of_mean_ranks() -> None:
    x, groups = expression(50), np.arange(50) % 3
    sums, ties = rank_sums(x, groups, 4)
    ranks = rankdata(x, axis=0)
    np.testing.assert_array_equal(sums, [ranks[groups == group].sum(axis=0) for group in range(4)])
    expected = [(1 - tiecorrect(ranks[:, gene])) * (50**3 - 50) for gene in range(x.shape[1])]
    np.testing.assert_allclose(ties, expected, atol=1e-6)  # of 124,950 at most
    np.testing.assert_array_equal(average_ranks(x[:, 2]), ranks[:, 2])


@pytest.mark.parametrize("sizes", [(30, 30), (8, 90), (2, 2)])
def test_p_values_are_those_of_scipy(sizes: tuple[int, int]) -> None:
    source, target = expression(sizes[0]), expression(sizes[1], seed=1)
    target[:, 5:10] += 1
    expected = mannwhitneyu(
        source[:, 1:].astype(float), target[:, 1:].astype(float), axis=0, method="asymptotic"
    ).pvalue
    found = rank_sum_p(source, target)
    np.testing.assert_allclose(found[1:], expected, rtol=1e-9)
    assert found[0] == 1
