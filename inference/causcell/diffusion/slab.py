"""Draws from a spike and slab: zero expression or, with a probability, a Gaussian's value.

One uniform number u a value decides both: zero where u is at least the slab's probability r, else the slab's quantile
at u / r. Most values are zero, so the work is done for the others alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

LARGEST_BELOW_ONE = 1 - 2**-24
"""The largest float32 below 1: a quantile at 1 would be infinite."""

QUANTILE_ABOVE = (1.2533147, -0.52178413, 0.11035535, -0.015189446, 1.3312763e-3, -1.113459e-5)
QUANTILE_BELOW = (1.0, -0.15453541, 0.034517743, -3.765802e-3, 1.3596929e-4)
"""Coefficients of `normal_quantile`'s polynomials, the constant first."""


def normal_quantile(u: np.ndarray) -> np.ndarray:
    """Compute the standard normal's quantile, for u from 1e-8 to `LARGEST_BELOW_ONE`.

    (2u - 1) P(v) / Q(v), with v = log(4u(1 - u)): the quotient of the quantile and 2u - 1 is even about 1/2, and smooth
    in v down to the tails. P and Q are a least-squares fit, reweighted towards the largest relative error: 1e-6 in
    float32. The graph ``decoder`` computes the same.

    Parameters
    ----------
    u
        float32 [n].

    Returns
    -------
    float32 [n].

    Examples
    --------
    >>> normal_quantile(np.array([0.025, 0.5, 0.975], dtype=np.float32)).round(2)
    array([-1.96,  0.  ,  1.96], dtype=float32)
    """
    v = 1 - u
    v *= u
    v *= 4
    np.log(v, out=v)
    quantile = _polynomial(v, QUANTILE_ABOVE)
    quantile /= _polynomial(v, QUANTILE_BELOW)
    quantile *= 2 * u - 1
    return quantile


def _polynomial(x: np.ndarray, coefficients: Sequence[float]) -> np.ndarray:
    *others, second, first = (np.float32(each) for each in coefficients)
    value = first * x
    value += second
    for coefficient in reversed(others):
        value *= x
        value += coefficient
    return value


def find_expressed(probability: np.ndarray, uniforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the values that are not zero, and the slab's quantile of the standard normal at each.

    Parameters
    ----------
    probability
        The slab's probability r, float32 [B x G].
    uniforms
        Uniform numbers u within (0, 1), float32 [B x G].

    Returns
    -------
    Places in the flattened arrays, ascending, int64 [n], and the quantiles at u / r, float32 [n].
    """
    places = (uniforms < probability).ravel().nonzero()[0]
    below = uniforms.ravel()[places]
    below /= probability.ravel()[places]
    np.minimum(below, np.float32(LARGEST_BELOW_ONE), out=below)  # of a u just below r the quotient is rounded to 1
    return places, normal_quantile(below)


@dataclass(frozen=True)
class SlabScale:
    """Moments that take a slab from the standardised scale to expression on the log scale; float32 [G] each.

    Attributes
    ----------
    mean, deviation
        Mean and standard deviation of each gene's expression.
    slab_deviation
        Standard deviation of the slab, on the log scale.
    """

    mean: np.ndarray
    deviation: np.ndarray
    slab_deviation: np.ndarray

    def draw(self, probability: np.ndarray, slab_mean: np.ndarray, uniforms: np.ndarray) -> sparse.csr_matrix:
        """Draw expression, clipped at 0.

        Parameters
        ----------
        probability, slab_mean
            The slab's probability, and its mean on the standardised scale, float32 [B x G].
        uniforms
            Uniform numbers within (0, 1), float32 [B x G].

        Returns
        -------
        Log scale, float32 [B x G], zeros left out, columns ascending.
        """
        cells, genes = uniforms.shape
        places, quantile = find_expressed(probability, uniforms)
        starts = np.arange(0, cells * genes + 1, genes)
        rows = places.searchsorted(starts)
        columns = places - np.repeat(starts[:-1], np.diff(rows))
        values = slab_mean.ravel()[places]
        values *= self.deviation[columns]
        values += self.mean[columns]
        quantile *= self.slab_deviation[columns]
        values += quantile
        columns = columns.astype(np.int32)
        if len(values) and not values.min() > 0:  # what a slab near zero has below it; NaN is told later
            zero = (values <= 0).nonzero()[0]
            values, columns, rows = np.delete(values, zero), np.delete(columns, zero), rows - zero.searchsorted(rows)
        return sparse.csr_matrix((values, columns, rows.astype(np.int32)), shape=uniforms.shape, copy=False)

    def mean_expression(self, probability: np.ndarray, slab_mean: np.ndarray) -> np.ndarray:
        """Return the mean of zero and slab, r (m sigma + mu), clipped at 0, log scale, float32 [B x G].

        Parameters
        ----------
        probability, slab_mean
            See `draw`; they are overwritten.
        """
        slab_mean *= self.deviation
        slab_mean += self.mean
        slab_mean *= probability
        np.maximum(slab_mean, 0, out=slab_mean)
        return slab_mean
