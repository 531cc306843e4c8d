"""Genes that differ between labels, from sums over cells that are read once."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from causcell._internal.significance import false_discovery_rate
from causcell.concepts import UNLABELLED

_PRIOR_FREEDOM = 4
"""Degrees of freedom that the variance within all labels adds to that of a label, which may have few cells."""

_FALSE_DISCOVERY_RATE = 0.05


class LabelMoments:
    """Sums of expression over the cells of each label, and of its squares.

    Memory is 8 bytes a label and gene, twice that with squares, however many cells are added.

    Parameters
    ----------
    labels, genes
        Numbers of labels L and of genes G.
    squares
        Whether squares are kept for each label, which `rank_raised_genes` needs, or their sum over labels alone.

    Attributes
    ----------
    counts
        Cells of each label, float64 [L].
    sums
        Sums of expression, float64 [L x G].
    squares
        Sums of its squares, float64 [L x G], or [1 x G] over all labels.
    """

    def __init__(self, labels: int, genes: int, *, squares: bool = True) -> None:
        self.counts = np.zeros(labels)
        self.sums = np.zeros((labels, genes))
        self.squares = np.zeros((labels if squares else 1, genes))

    def add(self, codes: np.ndarray, expression: sparse.csr_matrix) -> None:
        """Add cells: codes of their labels, int [n], of which -1 are left out, and their expression [n x G]."""
        labelled = np.flatnonzero(codes != UNLABELLED)
        values = (
            expression[labelled].astype(np.float64) if len(labelled) < len(codes) else expression.astype(np.float64)
        )
        codes = np.asarray(codes)[labelled]
        self.counts += np.bincount(codes, minlength=len(self.counts))
        _add_by_label(self.sums, codes, values)
        values.data **= 2
        _add_by_label(self.squares, codes if len(self.squares) == len(self.sums) else np.zeros_like(codes), values)

    def within_variance(self) -> np.ndarray:
        """Compute the variance of each gene within labels, float64 [G]; 0 where too few cells tell it."""
        freedom = self.counts.sum() - (self.counts > 0).sum()
        between = (self.sums**2 / np.maximum(self.counts, 1)[:, None]).sum(axis=0)
        return np.asarray(np.maximum(self.squares.sum(axis=0) - between, 0) / max(freedom, 1))


def _add_by_label(sums: np.ndarray, codes: np.ndarray, values: sparse.csr_matrix) -> None:
    """Add the rows of ``values`` [n x G] to the rows of ``sums`` [L x G] that their codes name."""
    if sums.size <= values.nnz:  # else most of the sums would be of nothing
        places = values.indices
        if len(sums) > 1:
            places = places + np.repeat(codes.astype(np.int64) * sums.shape[1], np.diff(values.indptr))
        sums += np.bincount(places, weights=values.data, minlength=sums.size).reshape(sums.shape)
        return
    cells = np.arange(len(codes))
    indicator = sparse.csr_matrix((np.ones(len(codes)), (codes, cells)), shape=(len(sums), len(codes)))
    added = (indicator @ values).tocoo()
    sums[added.row, added.col] += added.data  # a product has each place once


def rank_raised_genes(moments: LabelMoments, count: int) -> list[np.ndarray]:
    """Rank, for each label, the genes whose mean is higher in its cells than in all others.

    Welch's t, the variance of either side drawn towards that within labels by `_PRIOR_FREEDOM` degrees of freedom (as
    moderated t are: Smyth 2004), so that a label of one cell can be tested. A gene lowered in a label is raised in
    others, and is found there.

    Parameters
    ----------
    moments
        Sums over the labelled cells, with squares.
    count
        Number of genes a label at most.

    Returns
    -------
    list of ndarray
        Places of the genes that are raised (Benjamini-Hochberg 5 % of a label's tests), best first, int64 a label.
    """
    from scipy.stats import t as student

    total_count, total, total_square = moments.counts.sum(), moments.sums.sum(axis=0), moments.squares.sum(axis=0)
    within = moments.within_variance()
    rankings = []
    for inside, sums, squares in zip(moments.counts, moments.sums, moments.squares, strict=True):
        outside = total_count - inside
        if not inside or not outside:
            rankings.append(np.empty(0, dtype=np.int64))
            continue
        noise = _moderate(inside, sums, squares, within) / inside
        noise += _moderate(outside, total - sums, total_square - squares, within) / outside
        difference = sums / inside - (total - sums) / outside
        t = np.divide(difference, np.sqrt(noise), out=np.zeros_like(difference), where=noise > 0)
        p = student.sf(t, min(inside, outside) - 1 + _PRIOR_FREEDOM)
        raised = int((false_discovery_rate(p) < _FALSE_DISCOVERY_RATE).sum())
        rankings.append(np.argsort(-t, kind="stable")[: min(raised, count)])
    return rankings


def _moderate(count: float, sums: np.ndarray, squares: np.ndarray, within: np.ndarray) -> np.ndarray:
    """Compute variances of genes [G] among ``count`` cells, drawn towards those within labels."""
    own = np.maximum(squares - sums**2 / count, 0)
    moderated: np.ndarray = (own + _PRIOR_FREEDOM * within) / (count - 1 + _PRIOR_FREEDOM)
    return moderated
