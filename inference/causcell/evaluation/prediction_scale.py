"""Check that predictions are on the scale of the real cells that they are judged by.

Predicted values need not sum to a total, as normalised counts do, and a mean estimate is no cell. Two averages hold for
both: means of log values add up whatever is averaged, and expm1 of a mean estimate is at most the mean of expm1.
"""

from __future__ import annotations

import numpy as np

from causcell._internal.telling import warn
from causcell.errors import ExpressionError

_LARGEST_SUM = 6.0
"""Sums of expm1 that predictions may have, in those of their real cells; a total of 100,000 has ten times."""

_SMALLEST_MEAN = 0.45
"""Mean log expression that predictions have at least, in that of their real cells; logarithms of base 10 have .43."""

_USUAL = (0.75, 1.33)
"""Mean log expression that is not worth a word."""


def check_prediction_scale(predicted: np.ndarray, real: np.ndarray, title: str, *, announce: bool = True) -> bool:
    """Compare predicted expression with the real expression of the same cells.

    Parameters
    ----------
    predicted, real
        Expression, log scale, [n x G].
    title
        What messages call the predictions.
    announce
        Whether to warn.

    Returns
    -------
    Whether mean log expression is as near to that of the real cells as methods' usually is.

    Raises
    ------
    ExpressionError
        The predictions are on another scale.

    Warns
    -----
    CausCellWarning
        It is not.

    Examples
    --------
    >>> import numpy as np
    >>> real = np.random.default_rng(0).random((20, 50))
    >>> check_prediction_scale(real[::-1], real, "'scgen.h5ad'")
    True
    >>> check_prediction_scale(real / np.log(10), real, "'scgen.h5ad'")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    causcell.errors.ExpressionError: 'scgen.h5ad' is not on the scale of the cells: its mean log expression is 0.43 ...
    """
    real64 = np.asarray(real, dtype=np.float64)
    sums = _ratio(float(np.median(np.expm1(predicted.astype(np.float64)).sum(axis=1))), np.expm1(real64).sum(axis=1))
    means = _ratio(float(predicted.mean(dtype=np.float64)), real64.mean(axis=1))
    remedy = (
        "give natural logarithms of counts scaled to a total of 10,000 over all genes of a cell (scanpy.pp."
        "normalize_total(target_sum=1e4), scanpy.pp.log1p), or declare counts (predictions_expression='counts')"
    )
    if sums > _LARGEST_SUM:
        raise ExpressionError(
            f"{title} is not on the scale of the cells: expm1 of it sums to {sums:.3g} times that of the real cells, "
            f"as values for a larger total, or of another logarithm, do; {remedy}"
        )
    if means < _SMALLEST_MEAN:
        raise ExpressionError(
            f"{title} is not on the scale of the cells: its mean log expression is {means:.2f} times that of the real "
            f"cells, as values for a smaller total, or of another logarithm, have; {remedy}"
        )
    usual = _USUAL[0] <= means <= _USUAL[1]
    if announce and not usual:
        warn(
            f"{title}: mean log expression is {means:.2f} times that of the real cells; if the method predicts rates "
            "of counts, give the expectation of log1p of counts (averaged over samples), which is not log1p of the "
            "rate"
        )
    return usual


def _ratio(value: float, real: np.ndarray) -> float:
    middle = float(np.median(real))
    return value / middle if middle > 0 else np.inf
