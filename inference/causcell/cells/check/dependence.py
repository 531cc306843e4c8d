"""How the labels of two concepts depend on each other, from the table of their cells.

A table has a row a label of the one and a column a label of the other, numbers of cells, int64 [a x b].
"""

from __future__ import annotations

import numpy as np


def contingency(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Count cells by the labels of two concepts.

    Parameters
    ----------
    first, second
        Label codes, int [n]; cells with a negative one are left out.

    Returns
    -------
    int64 [a x b], without empty rows and columns.

    Examples
    --------
    >>> contingency(np.array([0, 0, 1, -1]), np.array([1, 1, 0, 0]))
    array([[0, 2],
           [1, 0]])
    """
    both = (first >= 0) & (second >= 0)
    if not both.any():
        return np.zeros((0, 0), dtype=np.int64)
    rows, columns = first[both].astype(np.int64), second[both].astype(np.int64)
    width = int(columns.max()) + 1
    table = np.bincount(rows * width + columns, minlength=(int(rows.max()) + 1) * width).reshape(-1, width)
    return table[table.any(axis=1)][:, table.any(axis=0)]


def explained(table: np.ndarray) -> float:
    """Share of the columns' entropy that knowing the row takes away, 1 - H(column | row) / H(column), 0 to 1.

    1 where a row's cells are all of one column; 1, too, where there is but one column.

    Examples
    --------
    >>> explained(np.array([[5, 0], [7, 0], [0, 9]])), explained(np.array([[5, 5], [7, 7]]))
    (1.0, 0.0)
    """
    total = _entropy(table.sum(axis=0))
    if not total:
        return 1.0
    weights = table.sum(axis=1) / table.sum()
    within = sum(weight * _entropy(row) for weight, row in zip(weights, table, strict=True))
    return float(np.clip(1 - within / total, 0, 1))


def _entropy(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def has_large_rows(table: np.ndarray) -> bool:
    """Tell whether half of the cells or more are in rows of five and more; smaller ones seem to determine anything."""
    sizes = table.sum(axis=1)
    return bool(sizes[sizes >= 5].sum() * 2 >= table.sum() > 0)


def determines(table: np.ndarray) -> bool:
    """Tell whether the row determines the column of each cell, and rows have enough cells for that to mean much."""
    return bool(((table > 0).sum(axis=1) == 1).all()) and has_large_rows(table)


def share_told(table: np.ndarray) -> float:
    """Return the share of cells that have the commonest column of their row."""
    return float(table.max(axis=1).sum() / table.sum())


def association(table: np.ndarray) -> tuple[float, float]:
    """Return Cramér's V, corrected for its bias (Bergsma 2013), and the p-value of Pearson's test of independence.

    The test takes cells for independent of each other; cells of one donor are not, so that true p-values are larger.

    Examples
    --------
    >>> v, p = association(np.array([[50, 0], [0, 50]]))
    >>> round(v, 2), p < 1e-10
    (1.0, True)
    """
    from scipy.special import chdtrc

    rows, columns = table.shape
    n = table.sum()
    if min(rows, columns) < 2:
        return 0.0, 1.0
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / n
    statistic = float(((table - expected) ** 2 / expected).sum())
    degrees = (rows - 1) * (columns - 1)
    phi = max(0.0, statistic / n - degrees / (n - 1))
    smaller = min(rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1)) - 1
    v = float(np.sqrt(phi / smaller)) if smaller > 0 else 0.0
    return min(v, 1.0), float(chdtrc(degrees, statistic))


def holm(p_values: list[float]) -> list[float]:
    """Adjust p-values for their number (Holm 1979), in the order given.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted = [1.0] * len(p_values)
    running = 0.0
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = running
    return adjusted
