"""P-values of means, and their adjustment for many tests."""

from __future__ import annotations

import numpy as np

from causcell._deprecation import renamed_arguments


@renamed_arguments(least="min_effect")
def two_sided_p(
    mean: np.ndarray, deviation: np.ndarray, freedom: float | np.ndarray | None, min_effect: float = 0.0
) -> np.ndarray:
    """P-values of means that are at most ``min_effect`` from zero (TREAT: McCarthy and Smyth 2009).

    Parameters
    ----------
    mean, deviation
        Means and their standard errors, of one shape. Without any deviation the p-value is 1 where the mean is within
        ``min_effect``, and 0 elsewhere.
    freedom
        Degrees of freedom of Student's t, one number or an array of that shape; the normal for `None`.
    min_effect
        Largest size that counts as no effect; for 0 it is the usual two-sided test.

    Returns
    -------
    P-values, float64, of the same shape.

    Examples
    --------
    >>> import numpy as np
    >>> two_sided_p(np.array([0.0, 1.96]), np.ones(2), None).round(2).tolist()
    [1.0, 0.05]
    """
    from scipy.stats import norm, t

    size = np.abs(mean)
    with np.errstate(divide="ignore", invalid="ignore"):
        near, far = (np.where(each == 0, 0.0, each / deviation) for each in (size - min_effect, size + min_effect))
    tails = [norm.sf(each) if freedom is None else t.sf(each, freedom) for each in (near, far)]
    return np.asarray(np.minimum(tails[0] + tails[1], 1.0))


def treat_scores(mean: np.ndarray, deviation: np.ndarray, min_effect: float = 0.0) -> np.ndarray:
    """Return the statistics that `two_sided_p` rests on, as limma's ``treat`` reports them.

    Parameters
    ----------
    mean, deviation, min_effect
        As in `two_sided_p`.

    Returns
    -------
    float64, of the same shape: by how many standard errors a mean exceeds ``min_effect``, with the sign of the mean;
    0 where it does not; infinite where it does and there is no deviation.

    Examples
    --------
    >>> import numpy as np
    >>> treat_scores(np.array([0.3, -0.3, 0.05]), np.full(3, 0.1), 0.1).round(3).tolist()
    [2.0, -2.0, 0.0]
    """
    excess = np.maximum(np.abs(mean) - min_effect, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(excess == 0, 0.0, np.sign(mean) * excess / deviation))


def false_discovery_rate(p: np.ndarray) -> np.ndarray:
    """Adjust the p-values of one family, float64 [n], by Benjamini and Hochberg (1995)."""
    from scipy.stats import false_discovery_control

    return np.asarray(false_discovery_control(p, method="bh"))
