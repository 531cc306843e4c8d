"""Signed ranks of many genes at once are scipy's of each, its zeros left out."""

import numpy as np
import pytest
from scipy import stats

from causcell._internal.signed_ranks import signed_rank_test


@pytest.mark.parametrize("pairs", [3, 8, 50, 51, 300])
def test_it_is_scipy_s_test_of_each_gene(pairs: int) -> None:
    rng = np.random.default_rng(pairs)
    differences = rng.normal(0.2, 1, (pairs, 12))
    differences *= rng.random(differences.shape) < rng.random(12)
    differences[:, 0], differences[:, 1] = 0, 1e-3 * np.arange(1, pairs + 1)
    z, p = signed_rank_test(differences)
    for gene in range(12):
        there = differences[:, gene][differences[:, gene] != 0]
        if not len(there):
            assert (z[gene], p[gene]) == (0, 1)
            continue
        expected = stats.wilcoxon(there, method="exact" if pairs <= 50 else "approx").pvalue
        np.testing.assert_allclose(p[gene], expected, rtol=1e-9)
        assert z[gene] == 0 or np.sign(z[gene]) == np.sign(_rank_difference(there))


def _rank_difference(values: np.ndarray) -> float:
    return float((np.sign(values) * stats.rankdata(np.abs(values))).sum())


def test_genes_without_any_difference_are_not_tested() -> None:
    z, p = signed_rank_test(np.zeros((4, 3)))
    assert (z.tolist(), p.tolist()) == ([0, 0, 0], [1, 1, 1])
