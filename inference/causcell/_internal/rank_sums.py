"""Rank sums of groups of cells for all genes at once, and the test of Wilcoxon, Mann and Whitney."""

from __future__ import annotations

import numpy as np

_EXACT = 8
"""Cells of a set up to which p-values are exact, as scipy has it."""


def rank_sums(values: np.ndarray, groups: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rank the cells by each gene, ties by their mean rank, and add up the ranks of groups.

    Parameters
    ----------
    values
        Expression, [n x G].
    groups
        Group of each cell, int [n], from 0.
    count
        Number of groups.

    Returns
    -------
    Sums of ranks (from 1), float64 [count x G]; and for each gene the sum of t^3 - t over its ties of t cells, float64
    [G].

    Examples
    --------
    >>> import numpy as np
    >>> sums, ties = rank_sums(np.array([[1.0], [2.0], [2.0], [5.0]]), np.array([0, 0, 1, 1]), 2)
    >>> sums.ravel().tolist(), ties.tolist()
    ([3.5, 6.5], [6.0])
    """
    by_gene = np.ascontiguousarray(values.T)
    genes, cells = by_gene.shape
    order = np.argsort(by_gene, axis=1)
    ordered = np.take_along_axis(by_gene, order, axis=1)
    begins = np.ones((genes, cells), dtype=bool)
    np.not_equal(ordered[:, 1:], ordered[:, :-1], out=begins[:, 1:])
    starts = np.flatnonzero(begins)
    sizes = np.diff(starts, append=begins.size)
    ordered_ranks = np.repeat(starts % cells + (sizes + 1) / 2, sizes).reshape(genes, cells)
    ranks = np.empty((genes, cells))
    np.put_along_axis(ranks, order, ordered_ranks, axis=1)
    members = np.eye(count)[groups]
    t = sizes.astype(np.float64)
    return (ranks @ members).T, np.bincount(starts // cells, weights=t**3 - t, minlength=genes)


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Rank numbers [n] from 1, ties by their mean rank, float64 [n].

    Examples
    --------
    >>> average_ranks(np.array([3.0, 1.0, 3.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    order = np.argsort(values)
    ordered = values[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    sizes = np.diff(starts, append=len(values))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(starts + (sizes + 1) / 2, sizes)
    return ranks


def rank_sum_test(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Test whether values of one set are larger than those of another, as ``scanpy.tl.rank_genes_groups`` does.

    Two-sided, by the normal approximation with its correction for ties (``tie_correct=True``) and none for continuity;
    exact where both sets have at most 8 members and a gene no ties.

    Parameters
    ----------
    source, target
        Expression, [n x G] and [m x G].

    Returns
    -------
    z, above zero where the target's values are larger, and p-values, both float64 [G]; 0 and 1 for a gene that is the
    same in all cells.

    Examples
    --------
    >>> z, p = rank_sum_test(np.array([[1.0], [2.0], [3.0]]), np.array([[4.0], [5.0], [6.0]]))
    >>> z.round(3).tolist(), p.round(3).tolist()
    ([1.964], [0.1])
    """
    from scipy.special import ndtr
    from scipy.stats import mannwhitneyu

    sizes = n, m = len(source), len(target)
    sums, ties = rank_sums(np.concatenate([source, target]), np.repeat([0, 1], sizes), 2)
    z = _divide(sums[1] - m * (n + m + 1) / 2, _rank_sum_deviation(n, m, ties))
    p = np.asarray(2 * ndtr(-np.abs(z)))
    if max(sizes) <= _EXACT and (clear := ties == 0).any():
        p[clear] = mannwhitneyu(target[:, clear], source[:, clear], axis=0, method="exact").pvalue
    return z, p


def _rank_sum_deviation(n: int, m: int, ties: np.ndarray) -> np.ndarray:
    cells = n + m
    return np.asarray(np.sqrt(n * m / 12 * (cells + 1 - ties / (cells * (cells - 1)))))


def _divide(distance: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    return np.asarray(np.divide(distance, deviation, out=np.zeros_like(distance), where=deviation > 0))


def rank_sum_p(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """P-values that cells of two sets differ, by the rank-sum test of Wilcoxon (1945), Mann and Whitney (1947).

    Two-sided, by the normal approximation with corrections for continuity and ties.

    Parameters
    ----------
    source, target
        Expression, [n x G] and [m x G].

    Returns
    -------
    P-values, float64 [G]; 1 for a gene that is the same in all cells.
    """
    from scipy.special import ndtr

    sizes = n, m = len(source), len(target)
    sums, ties = rank_sums(np.concatenate([source, target]), np.repeat([0, 1], sizes), 2)
    u = sums[0] - n * (n + 1) / 2
    z = _divide(np.maximum(u, n * m - u) - n * m / 2 - 0.5, _rank_sum_deviation(n, m, ties))
    return np.asarray(np.minimum(2 * ndtr(-z), 1.0))
