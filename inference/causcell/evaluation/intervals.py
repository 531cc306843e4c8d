"""Standard errors of measures of an effect: cells, or whole replicates, drawn again with replacement (bootstrap).

Efron (1979), Bootstrap methods: another look at the jackknife. Intervals are the value and 1.645 deviations over the
samples to each side. Samples are drawn around the shift that is left when the noise of the cells given is taken off its
length.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from causcell.evaluation import metrics

_SAMPLES = 200


def standard_errors(
    predicted: Mapping[str, np.ndarray],
    source: np.ndarray,
    target: np.ndarray,
    rng: np.random.Generator,
    *,
    replicates: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict[str, dict[str, float]]:
    """Estimate how far measures of predicted shifts vary over samples of cells.

    Parameters
    ----------
    predicted
        By name: shifts of the source cells, [n x G], which are drawn again with them; or one shift, [G], which is not.
    source, target
        Expression of the source cells [n x G] and of the target cells [m x G].
    rng
        Draws the samples.
    replicates
        Replicate (donor, patient) of each source and each target cell, [n] and [m]: whole replicates are drawn, each
        with all its source and target cells, which are not independent of each other. Cells are drawn without.

    Returns
    -------
    Standard deviations over 200 samples, by name and measure (``pcc``, ``calibration``, ``size``, ``norm_ratio``); a
    measure that fewer than half the samples have is left out. Those of ``size`` and ``norm_ratio`` are too large where
    genes outnumber cells and noise is a third of the shift's squared length or more (intervals of 90 % then hold the
    truth up to 98 times of 100).

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> source, target = rng.normal(0, 1, (100, 50)), rng.normal(2, 1, (100, 50))
    >>> errors = standard_errors({"right": np.full(50, 2.0)}, source, target, rng)
    >>> bool(0 < errors["right"]["size"] < 0.05)
    True
    """
    weights = _draw_weights((len(source), len(target)), replicates, rng)
    real, variance = metrics.mean_shift(source, target, replicates)
    noise = weights[1] @ target - weights[0] @ source - real
    errors: dict[str, dict[str, float]] = {}
    for name, shift in predicted.items():
        mean = shift.mean(axis=0) if shift.ndim == 2 else shift
        drawn = weights[0] @ shift if shift.ndim == 2 else np.broadcast_to(shift, noise.shape)
        measured = _shrink_to_true_size(mean, real, variance) + noise
        errors[name] = {
            measure: float(np.std(values[~np.isnan(values)]))
            for measure, values in measure_samples(drawn, measured, variance).items()
            if 2 * (~np.isnan(values)).sum() >= len(values)
        }
    return errors


def measure_samples(predicted: np.ndarray, real: np.ndarray, variance: np.ndarray) -> dict[str, np.ndarray]:
    """Take the measures that get a standard error of many shifts at once.

    Parameters
    ----------
    predicted, real
        Shifts, [samples x G].
    variance
        Sampling variance of the real ones, [G].

    Returns
    -------
    Values by measure (those of `standard_errors`), float64 [samples]; NaN where `causcell.evaluation.metrics` has
    `None`.
    """
    predicted, real = np.asarray(predicted, dtype=np.float64), np.asarray(real, dtype=np.float64)
    product, own = (np.einsum("ij,ij->i", predicted, each) for each in (real, predicted))
    centred = [each - each.mean(axis=1, keepdims=True) for each in (predicted, real)]
    norms = [np.einsum("ij,ij->i", each, each) for each in centred]
    flat = (np.ptp(predicted, axis=1) == 0) | (np.ptp(real, axis=1) == 0)
    square = np.full(len(real), np.nan)
    if np.isfinite(variance).all():
        square = np.einsum("ij,ij->i", real, real) - variance.sum()
        error = np.sqrt(4 * (real**2) @ variance + 2 * variance @ variance)
        square[square <= 2 * error] = np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "pcc": np.where(flat, 0.0, np.einsum("ij,ij->i", *centred) / np.sqrt(norms[0] * norms[1])),
            "calibration": np.where(own > 0, product / own, np.nan),
            "size": product / square,
            "norm_ratio": np.sqrt(own / square),
        }


def _shrink_to_true_size(predicted: np.ndarray, real: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Guess the true shift [G] behind a measured one: of the length that is left without noise, as near to predicted.

    A sample that is drawn around the measured shift has its noise twice, and measures vary by too much. The product
    with the prediction is not biased by noise, so the part along the prediction is kept and the rest is shortened.
    """
    square = metrics.squared_size(real, variance)
    if square is None:
        return real
    along = np.zeros_like(real) if not predicted.any() else predicted * (predicted @ real / (predicted @ predicted))
    rest = real - along
    if not rest.any():
        return along
    return np.asarray(along + rest * np.sqrt(max(0.0, square - along @ along) / (rest @ rest)))


def _draw_weights(
    cells: tuple[int, int], replicates: tuple[np.ndarray, np.ndarray] | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the weights of source and target cells in each sample, [samples x cells]; each row adds up to 1."""
    if replicates is None:
        return tuple(rng.multinomial(n, np.full(n, 1 / n), _SAMPLES) / n for n in cells)  # type: ignore[return-value]
    names, codes = np.unique(np.concatenate(replicates).astype(str), return_inverse=True)
    source, target = codes[: cells[0]], codes[cells[0] :]
    found: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    while len(found[0]) < _SAMPLES:
        times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)))
        if times[source].any() and times[target].any():  # else there is nothing to compare
            for each, members in zip(found, (source, target), strict=True):
                each.append(times[members] / times[members].sum())
    return np.array(found[0]), np.array(found[1])
