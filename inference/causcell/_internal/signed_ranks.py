"""The signed-rank test of Wilcoxon (1945) for many genes at once."""

from __future__ import annotations

import warnings

import numpy as np

_EXACT = 50
"""Pairs up to which p-values are exact, as scipy has it."""


def signed_rank_test(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Test whether differences within pairs are symmetric around zero, by `scipy.stats.wilcoxon`.

    Two-sided. Differences of zero are left out of a gene's test (Wilcoxon's own way). Up to 50 pairs p-values are exact
    (conservative where differences tie), beyond by the normal approximation.

    Parameters
    ----------
    differences
        [n x G].

    Returns
    -------
    z of the normal approximation, and p-values, both float64 [G]; 0 and 1 for a gene without any difference.

    Examples
    --------
    >>> z, p = signed_rank_test(np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0]]))
    >>> z.round(3).tolist(), p.tolist()
    ([1.826, 0.0], [0.125, 1.0])
    """
    from scipy.special import ndtr
    from scipy.stats import wilcoxon

    z, p = np.zeros(differences.shape[1]), np.ones(differences.shape[1])
    differ = (differences != 0).any(axis=0)
    if not differ.any():
        return z, p
    there = np.asarray(differences[:, differ], dtype=np.float64)
    with warnings.catch_warnings():  # of few pairs, whose p-values are exact below
        warnings.simplefilter("ignore", UserWarning)
        z[differ] = wilcoxon(there, axis=0, alternative="greater", method="approx").zstatistic
    p[differ] = _exact_p(there) if len(there) <= _EXACT else 2 * ndtr(-np.abs(z[differ]))
    return z, p


def _exact_p(differences: np.ndarray) -> np.ndarray:
    """Return exact p-values; genes with equally many zeros are tested together, for earlier scipy takes no zeros."""
    from scipy.stats import wilcoxon

    by_gene = differences.T
    counts = (by_gene != 0).sum(axis=1)
    p = np.ones(len(by_gene))
    for count in np.unique(counts):
        some = by_gene[counts == count]
        p[counts == count] = wilcoxon(some[some != 0].reshape(-1, count), axis=1, method="exact").pvalue
    return p
