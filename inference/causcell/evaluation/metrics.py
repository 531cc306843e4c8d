"""Measures of generated against real expression (log scale, panel genes, clipped at zero), as functions of arrays.

Those that reports measure are registered in `causcell.evaluation.registry`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from causcell._deprecation import renamed_arguments
from causcell._internal.rank_sums import average_ranks, rank_sum_p
from causcell._internal.significance import false_discovery_rate

EXPRESSED = 0.05
"""Values above this count as nonzero: log1p values of one count are far above, solvers' residues of zero below."""

# -- matched cells -----------------------------------------------------------------------------------------------------


def pearson(real: np.ndarray, generated: np.ndarray) -> float:
    """Pearson correlation over genes for each cell, averaged over cells.

    Cells whose expression (or profile) is the same in all genes have no correlation and are left out.

    Parameters
    ----------
    real, generated
        Expression of the same cells, [n x G].

    Examples
    --------
    >>> import numpy as np
    >>> real = np.array([[0.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    >>> round(pearson(real, 2 * real + 1), 6)
    1.0
    """
    a = real - real.mean(axis=1, keepdims=True)
    b = generated - generated.mean(axis=1, keepdims=True)
    norm = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return float(((a * b).sum(axis=1)[norm > 0] / norm[norm > 0]).mean())


def mean_squared_error(real: np.ndarray, generated: np.ndarray) -> float:
    """Squared error of the same cells' expression, averaged over all entries of [n x G] arrays."""
    return float(((real - generated) ** 2).mean())


# -- distributions -----------------------------------------------------------------------------------------------------


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
    from scipy.spatial.distance import cdist, pdist

    return float(2 * cdist(a, b).mean() - pdist(a).mean() - pdist(b).mean())


def maximum_mean_discrepancy(a: np.ndarray, b: np.ndarray, bandwidth: float) -> float:
    """Squared maximum mean discrepancy of two sets of cells, unbiased (Gretton et al. 2012, equation 3).

    Parameters
    ----------
    a, b
        Expression, [n x G] and [m x G], at least two cells each.
    bandwidth
        Bandwidth of the kernel exp(-d^2 / 2 bandwidth^2), in units of distance d.
    """
    from scipy.spatial.distance import cdist, pdist

    def similar(squared: np.ndarray) -> float:
        return float(np.exp(-squared / (2 * bandwidth**2)).mean())

    within = similar(pdist(a, "sqeuclidean")) + similar(pdist(b, "sqeuclidean"))
    return within - 2 * similar(cdist(a, b, "sqeuclidean"))


def median_distance(cells: np.ndarray) -> float:
    """Median Euclidean distance between cells [n x G]: the usual bandwidth of a kernel, here taken from real cells."""
    from scipy.spatial.distance import pdist

    return float(np.median(pdist(cells)))


@renamed_arguments(least="min_cells")
def correlations_kept(cells: np.ndarray, real: np.ndarray, *, pairs: int = 200, min_cells: int = 24) -> float | None:
    """Share of the strength of real cells' strongest gene-gene correlations that other cells have too.

    Pairs are chosen by the real cells, among genes that at least a tenth of them express. Other real cells do not
    reach 1, as the strongest of many are in part strongest by chance.

    Parameters
    ----------
    cells, real
        Expression of one label's cells, [n x G] and [m x G].
    pairs
        Number of pairs of genes.
    min_cells
        With fewer cells in either set the share is not taken.

    Returns
    -------
    The share, between -1 and 1 or a little above; `None` for too few cells, or fewer pairs than asked for.
    """
    return compare_correlations(real, pairs=pairs, min_cells=min_cells)(cells)


def compare_correlations(
    real: np.ndarray, *, pairs: int = 200, min_cells: int = 24
) -> Callable[[np.ndarray], float | None]:
    """Find the strongest correlations of real cells once, and return `correlations_kept` of other cells as a function.

    Parameters
    ----------
    real, pairs, min_cells
        See `correlations_kept`.
    """
    often = np.flatnonzero((real > EXPRESSED).mean(axis=0) >= 0.1)
    upper = np.triu_indices(len(often), 1)
    if len(real) < min_cells or len(upper[0]) < pairs:
        return lambda cells: None
    scaled = _standardise_genes(real[:, often])
    correlations = (scaled.T @ scaled)[upper]
    strongest = np.argpartition(-np.abs(correlations), pairs - 1)[:pairs]
    expected = correlations[strongest]
    one, other = (often[genes[strongest]] for genes in upper)

    def compare(cells: np.ndarray) -> float | None:
        if len(cells) < min_cells:
            return None
        found = (_standardise_genes(cells[:, one]) * _standardise_genes(cells[:, other])).sum(axis=0)
        return float((found * np.sign(expected)).sum() / np.abs(expected).sum())

    return compare


def _standardise_genes(cells: np.ndarray) -> np.ndarray:
    """Centre genes over cells and scale them to length 1, [n x G]; a gene that does not vary becomes 0."""
    centred = cells - cells.mean(axis=0)
    norm = np.sqrt((centred**2).sum(axis=0))
    return np.asarray(np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 0))


def variance_ratio(real: np.ndarray, generated: np.ndarray) -> float:
    """Variance over cells summed over genes, of generated by real cells of one label, [n x G] and [m x G]."""
    return float(generated.var(axis=0).sum() / real.var(axis=0).sum())


def nonzero_share(cells: np.ndarray) -> float:
    """Share of the values of cells [n x G] that are expressed (above `EXPRESSED`)."""
    return float((cells > EXPRESSED).mean())


def nonzero_mean(cells: np.ndarray) -> float:
    """Mean of the expressed values (above `EXPRESSED`) of cells [n x G]; 0 where there are none."""
    expressed = cells > EXPRESSED
    return float(cells[expressed].mean()) if expressed.any() else 0.0


# -- effects -----------------------------------------------------------------------------------------------------------


def shift_correlation(predicted: np.ndarray, real: np.ndarray) -> float:
    """Pearson correlation over genes of two mean shifts [G]; 0 where one is the same for all genes."""
    return 0.0 if _is_flat(predicted, real) else float(np.corrcoef(predicted, real)[0, 1])


def shift_rank_correlation(predicted: np.ndarray, real: np.ndarray) -> float:
    """Spearman correlation over genes of two mean shifts [G]; 0 where one is the same for all genes."""
    return 0.0 if _is_flat(predicted, real) else float(np.corrcoef(average_ranks(predicted), average_ranks(real))[0, 1])


def strongest_overlap(predicted: np.ndarray, real: np.ndarray, *, top: int = 50) -> float:
    """Share of the ``top`` genes of a real shift [G], by absolute size, among those of a predicted one [G].

    It is 0 where a shift is the same for all genes.
    """
    if _is_flat(predicted, real):
        return 0.0
    count = min(top, len(real))
    strongest = [set(np.argsort(-np.abs(shift), kind="stable")[:count].tolist()) for shift in (predicted, real)]
    return len(strongest[0] & strongest[1]) / count


def shift_slope(predicted: np.ndarray, real: np.ndarray) -> float:
    """Slope through the origin of a predicted on a real shift [G]: 0 without a real one.

    Noise of the real shift lowers it below 1, for a perfect prediction too: `shift_size` has that taken off.
    """
    return float(predicted @ real / (real @ real)) if real.any() else 0.0


def mean_shift(
    source: np.ndarray, target: np.ndarray, replicates: tuple[np.ndarray, np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean shift between two sets of cells, and the sampling variance of it.

    Parameters
    ----------
    source, target
        Expression of the cells, [n x G] and [m x G], at least two of each.
    replicates
        Replicate (donor) of each source and each target cell, [n] and [m], where cells of one are not independent: the
        variance is then over replicates (the jackknife's), in place of over cells. With fewer than two it is infinite.

    Returns
    -------
    Mean of the target cells less mean of the source cells, and its variance, both float64 [G].

    Examples
    --------
    >>> import numpy as np
    >>> mean_shift(np.array([[0.0], [2.0]]), np.array([[4.0], [4.0]]))
    (array([3.]), array([1.]))
    """
    source, target = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    shift = target.mean(axis=0) - source.mean(axis=0)
    if replicates is None:
        return shift, source.var(axis=0, ddof=1) / len(source) + target.var(axis=0, ddof=1) / len(target)
    left_out = [
        target[replicates[1] != name].mean(axis=0) - source[replicates[0] != name].mean(axis=0)
        for name in np.unique(np.concatenate(replicates))
        if (replicates[0] != name).any() and (replicates[1] != name).any()
    ]
    if len(left_out) < 2:
        return shift, np.full_like(shift, np.inf)
    return shift, np.var(left_out, axis=0) * (len(left_out) - 1)


def squared_size(real: np.ndarray, variance: np.ndarray) -> float | None:
    """Squared length of a true shift, estimated from a measured one.

    The square of a measured shift exceeds that of the true one by the sum of the variances, which is taken off.

    Parameters
    ----------
    real, variance
        The measured shift and its sampling variance, [G]; see `mean_shift`.

    Returns
    -------
    The estimate; `None` where it is less than twice its standard error (that of a square of a Gaussian vector with
    independent genes): then what is left is noise, and no size can be told.

    Examples
    --------
    >>> import numpy as np
    >>> squared_size(np.array([3.0, 1.0]), np.array([0.25, 0.25]))
    9.5
    """
    real, variance = np.asarray(real, dtype=np.float64), np.asarray(variance, dtype=np.float64)
    if not np.isfinite(variance).all():
        return None
    square = float(real @ real - variance.sum())
    error = float(np.sqrt(4 * (real**2) @ variance + 2 * variance @ variance))
    return square if square > 2 * error else None


def shift_size(predicted: np.ndarray, real: np.ndarray, variance: np.ndarray) -> float | None:
    """Size of a predicted shift along the true one, over the size of the true one: 1 where it is right.

    The slope of the prediction on the true shift, p.r / (r.r - noise): the noise of the measured shift r [G] is taken
    off its square (`squared_size`). `None` where the measured shift is not told from its noise.
    """
    square = squared_size(real, variance)
    return None if square is None else float(np.asarray(predicted, dtype=np.float64) @ real / square)


def shift_norm_ratio(predicted: np.ndarray, real: np.ndarray, variance: np.ndarray) -> float | None:
    """Length of a predicted shift [G] over that of the true one (`squared_size`), whatever their directions.

    `None` where the measured shift is not told from its noise.
    """
    square = squared_size(real, variance)
    return None if square is None else float(np.linalg.norm(predicted) / np.sqrt(square))


def shift_error(predicted: np.ndarray, real: np.ndarray, variance: np.ndarray) -> float | None:
    """Squared error of a predicted shift [G] over the squared length of the true one: 0 where it is right.

    The noise of the measured shift is taken off both; no change has 1, and an estimate of a small error may be below 0.
    `None` where the measured shift is not told from its noise.
    """
    square = squared_size(real, variance)
    if square is None:
        return None
    rest = np.asarray(predicted, dtype=np.float64) - real
    return float((rest @ rest - np.sum(variance, dtype=np.float64)) / square)


def shift_calibration(predicted: np.ndarray, real: np.ndarray) -> float | None:
    """Slope through the origin of the real shift on a predicted one [G]: what a predicted effect of 1 is on average.

    Noise of the real shift does not bias it. `None` without a predicted shift.
    """
    return float(predicted @ real / (predicted @ predicted)) if predicted.any() else None


def _is_flat(predicted: np.ndarray, real: np.ndarray) -> bool:
    return bool(np.ptp(predicted) == 0 or np.ptp(real) == 0)


def effect_agreement(
    predicted: np.ndarray, real: np.ndarray, *, variance: np.ndarray | None = None, top: int = 50
) -> dict[str, float | None]:
    """Agreement of a predicted mean shift of expression with a real one, over genes.

    Parameters
    ----------
    predicted, real
        Mean counterfactual less mean factual, and mean target less mean source, [G].
    variance
        Sampling variance of the real shift, [G] (`mean_shift`); 0 where the real shift is known exactly.
    top
        Number of genes, by size of the shift, that are compared as a set.

    Returns
    -------
    ``pcc`` and ``spearman`` over genes (0 where a shift is the same for all genes); ``top_overlap``, the share of the
    real shift's ``top`` genes among those of the predicted; and the sizes, which a correlation can't tell: ``size``
    (`shift_size`), ``norm_ratio`` (`shift_norm_ratio`) and ``calibration`` (`shift_calibration`), 1 where they are
    right and `None` where they can't be taken.

    Examples
    --------
    >>> import numpy as np
    >>> real = np.array([0.0, 1.0, -2.0, 0.5])
    >>> agreement = effect_agreement(real / 2, real)
    >>> round(agreement["pcc"], 6), agreement["size"], agreement["norm_ratio"], agreement["calibration"]
    (1.0, 0.5, 0.5, 2.0)
    """
    variance = np.zeros(len(real)) if variance is None else variance
    return {
        "pcc": shift_correlation(predicted, real),
        "spearman": shift_rank_correlation(predicted, real),
        "top_overlap": strongest_overlap(predicted, real, top=top),
        "size": shift_size(predicted, real, variance),
        "norm_ratio": shift_norm_ratio(predicted, real, variance),
        "calibration": shift_calibration(predicted, real),
    }


@renamed_arguments(rate="fdr")
def differential_genes(source: np.ndarray, target: np.ndarray, *, fdr: float = 0.05) -> np.ndarray:
    """Genes whose expression differs between two sets of cells, bool [G].

    Wilcoxon's rank-sum test for every gene, and the procedure of Benjamini and Hochberg (1995) over genes.

    Parameters
    ----------
    source, target
        Expression, [n x G] and [m x G].
    fdr
        False discovery rate, between 0 and 1.
    """
    return false_discovery_rate(rank_sum_p(source, target)) < fdr


def ranking_score(score: np.ndarray, truth: np.ndarray) -> float | None:
    """Area under the ROC curve of a score [G] for the genes in ``truth`` (bool [G]).

    Returns
    -------
    The area, 0.5 for a score that ranks by chance; `None` where all genes are in ``truth``, or none.
    """
    if truth.all() or not truth.any():
        return None
    positive, negative = int(truth.sum()), int((~truth).sum())
    return float((average_ranks(score)[truth].sum() - positive * (positive + 1) / 2) / (positive * negative))
