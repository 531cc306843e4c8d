"""Tables about generated expression: the mean estimate, clusters, markers, and samples as a distribution."""

from __future__ import annotations

import warnings

import numpy as np

from causcell._internal.rank_sums import rank_sums
from causcell.concepts import UNLABELLED
from causcell.evaluation.data import EvaluationData
from causcell.evaluation.probes import cluster_cells, partition_agreement
from causcell.evaluation.real_cells import RealCells, measure_matched_cells
from causcell.evaluation.registry import REAL_SUFFIX, metric_titles, registered_metrics
from causcell.evaluation.scores import Role, score_rows
from causcell.evaluation.self_test import name_trivial_winners
from causcell.evaluation.table import Table

_MARKERS = 50
_MIN_LABEL_CELLS = 16
_COMPONENTS, _MORE_COMPONENTS = 32, 128
_ANOTHER, _REAL = "another real cell with the same labels", "real cells (ceiling)"
_MODEL = "model, samples", "model, mean estimate"
_ANEW, _OTHER_CELLS, _CHANCE = "real cells, clustered anew (ceiling)", "other real cells (ceiling)", "by chance"


def tabulate_mean_estimate(data: EvaluationData) -> Table:
    """Measure the mean estimate cell by cell, beside label means and principal components."""
    estimates = {} if data.mean_estimate is None else {"model, mean estimate": data.mean_estimate}
    estimates |= {f"PCA-{count}": data.project_on_components(count)[1] for count in (_COMPONENTS, _MORE_COMPONENTS)}
    estimates[_label_means(data)] = data.label_means
    estimates["mean of all cells"] = np.tile(data.training_expression.mean(axis=0), (len(data.test_rows), 1))
    roles: dict[str, Role] = {"model, mean estimate": "model", _ANOTHER: "replicate"}
    roles |= dict.fromkeys((_label_means(data), "mean of all cells"), "trivial")
    estimates[_ANOTHER] = _resample_training_cells(data, np.random.default_rng(0))
    titles = metric_titles("cells")
    rows: dict[str, dict[str, float | None]] = {
        name: {titles[key]: value for key, value in measure_matched_cells(data.test_expression, each).items()}
        for name, each in estimates.items()
    }
    scores = score_rows(rows, roles, {metric.title: metric.better for metric in registered_metrics("cells")})
    return Table.of(
        "Mean estimate of the judged cells",
        rows,
        roles=roles,
        scores=scores,
        distrusted=name_trivial_winners(scores, [row for row in rows if roles.get(row) == "trivial"]),
        interpretation="Pearson correlation over genes for each cell, averaged, and squared error over all entries, on "
        "the log scale. Principal components and means are of the cells learned from.",
        limitations="Whether cells look real: both measures improve as variance is lost. No ceiling can be split off: "
        "each cell was measured once, and another real cell with its labels is further from it than their mean.",
    )


def _label_means(data: EvaluationData) -> str:
    return f"mean of each {data.stratum_name}"


def _generate_estimates(data: EvaluationData, seed: int) -> dict[str, np.ndarray]:
    """Generate the test cells' expression by every means, [t x G] each: the model's, and principal components."""
    made = dict(zip(_MODEL, (data.generate_samples(seed), data.mean_estimate), strict=True))
    estimates = {name: each for name, each in made.items() if each is not None}
    return estimates | {f"PCA-{_COMPONENTS}": data.project_on_components(_COMPONENTS)[1]}


def tabulate_clusters(data: EvaluationData, seed: int = 0) -> Table:
    """Hold clusters of generated cells against those of the real ones, and against labels."""
    truth = data.test_labels[:, data.stratum_concept]
    labelled = truth != UNLABELLED
    count = max(2, len(np.unique(truth[labelled])))
    pca = data.fit_components(_COMPONENTS)
    real = cluster_cells(pca.transform(data.test_expression), count)
    estimates = _generate_estimates(data, seed) | {
        _label_means(data): data.label_means,
        _ANEW: data.test_expression,
    }
    rows: dict[str, dict[str, float | None]] = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Number of distinct clusters")  # of means, fewer than labels
        for name, estimate in estimates.items():
            found = cluster_cells(pca.transform(estimate), count, seed=seed + 1)
            against_real = partition_agreement(real, found)
            against_labels = partition_agreement(truth[labelled], found[labelled])
            rows[name] = {f"{measure}, clusters of real cells": each for measure, each in against_real.items()}
            rows[name] |= {f"{measure}, {data.stratum_name}": each for measure, each in against_labels.items()}
    roles: dict[str, Role] = {**dict.fromkeys(_MODEL, "model"), _label_means(data): "trivial", _ANEW: "replicate"}
    scores = score_rows(rows, roles, dict.fromkeys(rows[_ANEW], "higher"))
    return Table.of(
        "Clusters of generated cells",
        rows,
        roles=roles,
        scores=scores,
        distrusted=name_trivial_winners(scores, [_label_means(data)]),
        interpretation="Generated cells are clustered (k-means in the real cells' principal components, as many "
        "clusters as labels) and held against the clusters of the real cells they were generated from, and against "
        "labels.",
        limitations="Whether clusters are real populations; label means agree with labels by construction.",
        better=dict.fromkeys(rows[_ANEW], "higher"),
    )


def tabulate_markers(data: EvaluationData, seed: int = 0) -> Table:
    """Measure how many of each label's top marker genes (Wilcoxon) generated cells share with the real ones."""
    codes = data.test_labels[:, data.stratum_concept]
    training = data.training_labels[:, data.stratum_concept]
    frequent = [
        code
        for code in np.unique(codes[codes != UNLABELLED])
        if (codes == code).sum() >= _MIN_LABEL_CELLS and (training == code).sum() >= _MIN_LABEL_CELLS
    ]
    if len(frequent) < 2:
        return _make_marker_table({})
    kept, kept_training = np.isin(codes, frequent), np.isin(training, frequent)
    genes = data.test_expression.shape[1]
    count = min(_MARKERS, genes)
    reference = find_top_markers(data.test_expression[kept], codes[kept], count)
    found = {
        name: find_top_markers(estimate[kept], codes[kept], count)
        for name, estimate in _generate_estimates(data, seed).items()
    }
    others = data.training_expression[kept_training]
    found[_OTHER_CELLS] = find_top_markers(others, training[kept_training], count)
    rows = {
        name: {"overlap": float(np.mean([len(top[code] & reference[code]) / count for code in frequent]))}
        for name, top in found.items()
    }
    rows[_CHANCE] = {"overlap": count / genes}
    return _make_marker_table(rows)


def _make_marker_table(rows: dict[str, dict[str, float]]) -> Table:
    roles: dict[str, Role] = {**dict.fromkeys(_MODEL, "model"), _CHANCE: "trivial", _OTHER_CELLS: "replicate"}
    return Table.of(
        "Marker genes",
        rows,
        roles=roles,
        scores=score_rows(rows, roles, {"overlap": "higher"}),
        interpretation=f"Share of each label's {_MARKERS} top genes (Wilcoxon, one label against the rest) of the "
        "judged cells that generated cells have too. The ceiling is the real cells learned from, which are more.",
        limitations="The order and the size of differences. Estimates with less noise than cells rank genes by "
        "differences that cells can't show.",
        better={"overlap": "higher"},
    )


def find_top_markers(expression: np.ndarray, codes: np.ndarray, count: int) -> dict[int, set[int]]:
    """Find the genes that are highest in each label's cells against the rest, by Wilcoxon's rank sums.

    Parameters
    ----------
    expression
        Expression, [n x G].
    codes
        Label codes, int [n].
    count
        Genes a label.

    Returns
    -------
    Columns by label code.
    """
    found, groups = np.unique(codes, return_inverse=True)
    cells, (sums, _) = len(codes), rank_sums(expression, groups, len(found))
    sizes = np.bincount(groups)[:, None]
    scores = (sums - sizes * (cells + 1) / 2) / np.sqrt(sizes * (cells - sizes) * (cells + 1) / 12)
    return {
        int(code): set(np.argpartition(score, -count)[-count:].tolist())
        for code, score in zip(found, scores, strict=True)
    }


def tabulate_samples(data: EvaluationData, seed: int = 0) -> Table:
    """Measure samples as a distribution within labels: distances, variance, zeros, correlations."""
    codes = data.test_labels[:, data.stratum_concept]
    others = _resample_training_cells(data, np.random.default_rng(seed))
    estimates = _generate_estimates(data, seed) | {
        _label_means(data): data.label_means,
        "training cells of the same label": others,
    }
    rows: dict[str, dict[str, float | None]] = {}
    titles = metric_titles("distribution", "label", "summary")
    ceiling: dict[str, float | None] = {
        metric.title: 1.0 for metric in registered_metrics("label") if metric.better == "one"
    }
    real_cells = RealCells(data.test_expression, codes)
    for name, estimate in estimates.items():
        quality = real_cells.sample_quality(estimate)
        rows[name] = {titles[key]: value for key, value in quality.items() if not key.endswith(REAL_SUFFIX)}
        ceiling |= {
            titles[key.removesuffix(REAL_SUFFIX)]: value for key, value in quality.items() if key.endswith(REAL_SUFFIX)
        }
    rows[_REAL] = ceiling
    trivial = _label_means(data), f"PCA-{_COMPONENTS}"
    roles: dict[str, Role] = {**dict.fromkeys(_MODEL, "model"), **dict.fromkeys(trivial, "trivial"), _REAL: "replicate"}
    better = {metric.title: metric.better for metric in registered_metrics("distribution", "label", "summary")}
    real = {measure: value for measure, value in ceiling.items() if value is not None}
    scores = score_rows(rows, roles, better, real=real)
    return Table.of(
        "Samples as a distribution",
        rows,
        roles=roles,
        scores=scores,
        distrusted=name_trivial_winners(scores, trivial),
        interpretation="Within each label of at least 16 cells, generated from one half against the real cells of the "
        "other: energy distance (Euclidean, unbiased), MMD (Gaussian kernel, bandwidth the real cells' median "
        "distance), the ratio of variances, the strength kept of the 200 strongest gene-gene correlations; and the "
        "share and mean of nonzero values.",
        limitations="Whether a cell resembles the cell it was generated from, or a rare state is missing: distances in "
        "thousands of genes are led by common, highly expressed ones.",
    )


def _resample_training_cells(data: EvaluationData, rng: np.random.Generator) -> np.ndarray:
    """Choose for each test cell a random training cell with its labels: all, else the stratum's, else any; [t x G]."""
    training, chosen = data.training_labels, np.empty(len(data.test_rows), dtype=np.int64)
    every = np.ones(training.shape[1], dtype=bool)
    stratum = np.arange(training.shape[1]) == data.stratum_concept
    for row, labels in enumerate(data.test_labels):
        for wanted in (every, stratum, ~every):
            pool = np.flatnonzero((training[:, wanted] == labels[wanted]).all(axis=1))
            if len(pool):
                chosen[row] = rng.choice(pool)
                break
    return data.training_expression[chosen]
