"""Distances between sets of cells: Euclidean distances of all pairs, and what is made of them."""

from __future__ import annotations

import numpy as np


def energy_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Energy distance of two sets of cells, Euclidean and unbiased (Székely and Rizzo 2013).

    2 E|a - b| - E|a - a'| - E|b - b'|, where no cell is compared with itself: its expectation is zero for sets drawn
    from one distribution, and a value may be below.

    Parameters
    ----------
    a, b
        Expression, [n x G] and [m x G], at least two cells each.

    Examples
    --------
    >>> import numpy as np
    >>> energy_distance(np.zeros((3, 1)), np.ones((4, 1)))
    2.0
    """
    between, *within = (np.sqrt(each) for each in _all_squared_distances(a, b))
    return float(2 * between.mean() - sum(_mean_of_pairs(each) for each in within))


def maximum_mean_discrepancy(a: np.ndarray, b: np.ndarray, bandwidth: float) -> float:
    """Squared maximum mean discrepancy of two sets of cells, unbiased (Gretton et al. 2012, equation 3).

    Parameters
    ----------
    a, b
        Expression, [n x G] and [m x G], at least two cells each.
    bandwidth
        Bandwidth of the kernel exp(-d^2 / 2 bandwidth^2), in units of distance d.
    """
    between, *within = (np.exp(each / (-2 * bandwidth**2)) for each in _all_squared_distances(a, b))
    return float(sum(_mean_of_pairs(each) for each in within) - 2 * between.mean())


def _all_squared_distances(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return squared distances between two sets of cells, within the one, and within the other."""
    centre = b.mean(axis=0, dtype=np.float64)
    a, b = a - centre, b - centre
    return squared_distances(a, b), squared_distances(a, a), squared_distances(b, b)


def _mean_of_pairs(values: np.ndarray) -> float:
    """Average a symmetric array [n x n] over pairs of different cells."""
    return float((values.sum() - np.trace(values)) / (len(values) * (len(values) - 1)))


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Compute squared Euclidean distances between cells by one product of matrices.

    Parameters
    ----------
    a, b
        Expression, [n x G] and [m x G]; best centred and float64: distances are then right to about 1e-7 of the cells'
        own size, those of alike cells included.

    Returns
    -------
    [n x m], none below 0.

    Examples
    --------
    >>> import numpy as np
    >>> squared_distances(np.zeros((1, 2)), np.array([[3.0, 4.0]]))
    array([[25.]])
    """
    lengths = [np.einsum("ij,ij->i", x, x) for x in (a, b)]
    return np.asarray(np.maximum(lengths[0][:, None] + lengths[1] - 2 * (a @ b.T), 0))


def median_distance(cells: np.ndarray) -> float:
    """Median Euclidean distance between cells [n x G]: the usual bandwidth of a kernel, here taken from real cells."""
    centred = cells - cells.mean(axis=0, dtype=np.float64)
    return float(np.median(np.sqrt(squared_distances(centred, centred)[np.triu_indices(len(cells), 1)])))
