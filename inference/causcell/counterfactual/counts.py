"""Counts of sampled cells: a cell's total of counts, shared out by its sample of expression.

A cell of library size L, its total over the normalisation genes, has ``c = L expm1(x) / 10,000`` counts of a gene whose
expression (log scale) is x, and these sum to ``T``, the panel's part of L. A sample's values need not: a head draws
every gene by itself, and large values too large, as its slab is Gaussian on the log scale. So the total is held to,
as where an expression is normalised: with one scale a for each cell,

    c = max(1, a expm1(x)) where x > 0, rounded to the nearest whole number; 0 where x = 0; a such that they sum to T

before they are rounded. Zeros are the sample's. The log values of a real cell give its counts back exactly. T is the
total of the source cell over the panel, or, for another library size N, the same share of N. Nothing is drawn but the
sample: counts are keyed as expression is, and cells under two interventions differ by these alone.

Measured against other laws in ``tests/benchmarks/results/count_laws.md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from causcell.errors import ConfigurationError, ExpressionError
from causcell.preprocessing import TARGET_SUM

if TYPE_CHECKING:
    from causcell.diffusion.solvers import SolverSettings
    from causcell.repository.manifest import Manifest

LARGEST_COUNT = 2**31 - 1
"""Counts are int32."""

LIBRARY_SIZE = "library_size"
"""Column of ``obs`` with the library sizes that counts were made for."""


def check_counts(manifest: Manifest, settings: SolverSettings) -> None:
    """Raise `ConfigurationError` if a model, or a solver, gives no counts."""
    if LIBRARY_SIZE in manifest.concept_schema.names:
        raise ConfigurationError(
            f"a concept of this model is called {LIBRARY_SIZE!r}, and counts have their library sizes in the column of "
            "obs of that name; keep expression (store='expression'), or train with the concept under another name"
        )
    if manifest.expression.scale != "counts":
        raise ConfigurationError(
            f"this model was trained on {manifest.expression.scale} values, which do not tell the totals of counts "
            "that they were made of, so that its samples are no counts; keep expression (store='expression'), or train "
            "on raw counts"
        )
    if not settings.build(manifest.schedule).draw:
        raise ConfigurationError(
            f"solver {settings.solver!r} does not draw its result: a mean, and a loop that ends in one, has "
            "small values where cells have no count; take a solver that draws (solver='draw'), or keep expression "
            "(store='expression')"
        )


def panel_totals(expression: np.ndarray, library: np.ndarray) -> np.ndarray:
    """Compute the part of library sizes that falls on the panel.

    Parameters
    ----------
    expression
        Real cells, log scale, float32 [n x G].
    library
        Library sizes, float64 [n].

    Returns
    -------
    T, float64 [n].

    Raises
    ------
    ExpressionError
        A total that int32 does not hold.

    Examples
    --------
    >>> import numpy as np
    >>> panel_totals(np.log1p(np.float32([[2500, 0, 1250]])), np.array([8.0])).round(3)
    array([3.])
    """
    expressed = np.flatnonzero(expression > 0)
    values = np.expm1(expression.ravel()[expressed].astype(np.float64))
    sums = np.bincount(expressed // expression.shape[1], weights=values, minlength=len(expression))
    totals = np.asarray(sums * library / TARGET_SUM)
    if len(totals) and totals.max() > LARGEST_COUNT:
        row = int(totals.argmax())
        raise ExpressionError(
            f"a cell of a library size of {library[row]:,.0f} would have {totals[row]:,.0f} counts on the panel, and "
            f"counts are int32, up to {LARGEST_COUNT:,}; give a library size that cells have (library_size=10000)"
        )
    return totals


def share_out(expression: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Share totals of counts out by samples of expression; see the head of this module.

    Parameters
    ----------
    expression
        Samples, log scale, float32 [B x G].
    totals
        Totals over the panel T, float64 [B]. A sample with more values than that has one count each.

    Returns
    -------
    int32 [B x G].

    Examples
    --------
    >>> import numpy as np
    >>> share_out(np.log1p(np.float32([[4000, 0, 100, 1500]])), np.array([12.0]))
    array([[8, 0, 1, 3]], dtype=int32)
    """
    positive = expression > 0
    expressed = np.flatnonzero(positive)
    shared = _fill(np.expm1(expression.ravel()[expressed].astype(np.float64)), positive.sum(axis=1), totals)
    counts = np.zeros(expression.size, dtype=np.int32)
    counts[expressed] = np.rint(shared)
    return counts.reshape(expression.shape)


def _fill(values: np.ndarray, lengths: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Scale the values of each row so that they sum to its total, those below 1 raised to 1.

    Raising some takes from the others, of which further ones then fall below 1: the scale goes down until none does. A
    row's sums are its own, whatever rows are beside it.
    """
    filled = lengths > 0
    if not filled.any():
        return values
    lengths, totals = lengths[filled], totals[filled]
    starts = np.cumsum(lengths) - lengths
    raised, before = np.zeros(len(values), dtype=bool), -1
    rest, left = np.add.reduceat(values, starts), totals
    while True:
        scale = np.divide(np.maximum(left, 0), rest, out=np.zeros_like(rest), where=rest > 0)
        scaled = values * np.repeat(scale, lengths)
        raised |= scaled < 1
        now = int(np.count_nonzero(raised))
        if now == before:
            return np.where(raised, 1.0, scaled)
        before = now
        rest = np.add.reduceat(np.where(raised, 0.0, values), starts)
        left = totals - np.add.reduceat(raised, starts, dtype=np.int64)
