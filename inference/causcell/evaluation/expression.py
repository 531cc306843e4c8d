"""Tables about generated expression: the mean estimate, clusters, markers, and samples as a distribution."""

from __future__ import annotations

import warnings

import numpy as np

from causcell.concepts import UNLABELLED
from causcell.evaluation.data import Subject
from causcell.evaluation.metrics import mean_squared_error, pearson, sample_quality
from causcell.evaluation.probes import clusters, partition_agreement
from causcell.evaluation.table import Table

_MARKERS = 50


_COMPONENTS = (32, 128)


_LEAST = 16


_CLUSTER_COMPONENTS = 32


def mean_estimate(subject: Subject) -> Table:
    """PCC and MSE of the mean estimate, beside label means and principal components."""
    estimates = {"model, mean estimate": subject.mean_estimate}
    estimates |= {f"PCA-{count}": subject.principal_components(count)[1] for count in _COMPONENTS}
    estimates[f"mean of each {_stratum_name(subject)}"] = subject.label_means
    estimates["mean of all cells"] = np.tile(subject.expression[subject.learned].mean(axis=0), (len(subject.real), 1))
    rows = {
        name: {"PCC": pearson(subject.real, each), "MSE": mean_squared_error(subject.real, each)}
        for name, each in estimates.items()
    }
    return Table.of(
        "Mean estimate of the judged cells",
        rows,
        tells="Pearson correlation over genes for each cell, averaged, and squared error over all entries, on the log "
        "scale. Principal components and means are of the cells learned from.",
        silent="Whether cells look real: both measures improve as variance is lost. No ceiling can be split off: each "
        "cell was measured once.",
    )


def cluster_agreement(subject: Subject, seed: int = 0) -> Table:
    """Clusters found among generated cells against those of the real ones, and against labels."""
    truth = subject.truth[:, subject.stratum]
    labelled = truth != UNLABELLED
    count = max(2, len(np.unique(truth[labelled])))
    pca = subject.components(_CLUSTER_COMPONENTS)
    real = clusters(pca.transform(subject.real), count)
    estimates = {
        "model, samples": subject.samples(seed),
        "model, mean estimate": subject.mean_estimate,
        "PCA-32": subject.principal_components(32)[1],
        f"mean of each {_stratum_name(subject)}": subject.label_means,
        "real cells, clustered anew (ceiling)": subject.real,
    }
    rows: dict[str, dict[str, float | None]] = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Number of distinct clusters")  # of means, fewer than labels
        for name, estimate in estimates.items():
            found = clusters(pca.transform(estimate), count, seed=seed + 1)
            against_real = partition_agreement(real, found)
            against_labels = partition_agreement(truth[labelled], found[labelled])
            rows[name] = {f"{measure}, clusters of real cells": each for measure, each in against_real.items()}
            rows[name] |= {f"{measure}, {_stratum_name(subject)}": each for measure, each in against_labels.items()}
    return Table.of(
        "Clusters of generated cells",
        rows,
        tells="Generated cells are clustered (k-means in the real cells' principal components, as many clusters as "
        "labels) and held against the clusters of the real cells they were generated from, and against labels.",
        silent="Whether clusters are real populations; label means agree with labels by construction.",
    )


def markers(subject: Subject, seed: int = 0) -> Table:
    """Overlap of each label's top marker genes (Wilcoxon) between generated and real cells."""
    codes = subject.truth[:, subject.stratum]
    learned = subject.labels[subject.learned, subject.stratum]
    frequent = [
        code
        for code in np.unique(codes[codes != UNLABELLED])
        if (codes == code).sum() >= _LEAST and (learned == code).sum() >= _LEAST
    ]
    if len(frequent) < 2:
        return _marker_table({})
    kept, kept_learned = np.isin(codes, frequent), np.isin(learned, frequent)
    reference = _top_markers(subject.real[kept], codes[kept])
    estimates = {
        "model, samples": subject.samples(seed),
        "model, mean estimate": subject.mean_estimate,
        "PCA-32": subject.principal_components(32)[1],
    }
    found = {name: _top_markers(estimate[kept], codes[kept]) for name, estimate in estimates.items()}
    others = subject.expression[subject.learned][kept_learned]
    found["other real cells (ceiling)"] = _top_markers(others, learned[kept_learned])
    genes = subject.real.shape[1]
    rows = {
        name: {"overlap": float(np.mean([len(top[code] & reference[code]) / _count(genes) for code in frequent]))}
        for name, top in found.items()
    }
    rows["by chance"] = {"overlap": _count(genes) / genes}
    return _marker_table(rows)


def _marker_table(rows: dict[str, dict[str, float]]) -> Table:
    return Table.of(
        "Marker genes",
        rows,
        tells=f"Share of each label's {_MARKERS} top genes (Wilcoxon, one label against the rest) of the judged cells "
        "that generated cells have too. The ceiling is the real cells learned from, which are more.",
        silent="The order and the size of differences. Estimates with less noise than cells rank genes by "
        "differences that cells can't show.",
    )


def _count(genes: int) -> int:
    return min(_MARKERS, genes)


def _top_markers(expression: np.ndarray, codes: np.ndarray) -> dict[int, set[str]]:
    import anndata
    import pandas as pd
    import scanpy

    labels = pd.DataFrame({"label": pd.Categorical(codes.astype(str))}, index=np.arange(len(codes)).astype(str))
    cells = anndata.AnnData(expression, obs=labels)
    cells.uns["log1p"] = {"base": None}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=RuntimeWarning)  # logarithms of fold changes of absent genes
        warnings.filterwarnings("ignore", category=pd.errors.PerformanceWarning)
        scanpy.tl.rank_genes_groups(cells, "label", method="wilcoxon", n_genes=_count(expression.shape[1]))
    names = cells.uns["rank_genes_groups"]["names"]
    return {int(code): set(names[code].tolist()) for code in names.dtype.names}


def samples(subject: Subject, seed: int = 0) -> Table:
    """Samples as a distribution within labels: distances, variance, zeros, correlations."""
    codes = subject.truth[:, subject.stratum]
    others = _resampled(subject, np.random.default_rng(seed))
    estimates = {"model, samples": subject.samples(seed), "model, mean estimate": subject.mean_estimate}
    estimates |= {"PCA-32": subject.principal_components(32)[1], "training cells of the same label": others}
    rows: dict[str, dict[str, float | None]] = {}
    ceiling: dict[str, float | None] = {"variance ratio": 1.0}
    for name, estimate in estimates.items():
        quality = sample_quality(subject.real, estimate, codes)
        rows[name] = {_shown_measure(key): each for key, each in quality.items() if not key.endswith("_real")}
        ceiling |= {_shown_measure(key.removesuffix("_real")): v for key, v in quality.items() if key.endswith("_real")}
    rows["real cells (ceiling)"] = ceiling
    return Table.of(
        "Samples as a distribution",
        rows,
        tells="Within each label of at least 16 cells, generated from one half against the real cells of the other: "
        "energy distance (Euclidean, unbiased), MMD (Gaussian kernel, bandwidth the real cells' median distance), the "
        "ratio of variances, the strength kept of the 200 strongest gene-gene correlations; and the share and mean of "
        "nonzero values.",
        silent="Whether a cell resembles the cell it was generated from, or a rare state is missing: distances in "
        "thousands of genes are led by common, highly expressed ones.",
    )


def _shown_measure(key: str) -> str:
    return {"mmd": "MMD"}.get(key, key.replace("_", " "))


def _resampled(subject: Subject, rng: np.random.Generator) -> np.ndarray:
    """For each judged cell a random cell learned from, with the same labels where there is one, else of any."""
    learned, chosen = subject.labels[subject.learned], np.empty(len(subject.real), dtype=np.int64)
    for row, labels in enumerate(subject.truth):
        for wanted in (labels == labels, np.arange(len(labels)) == subject.stratum, np.zeros(len(labels), dtype=bool)):
            pool = np.flatnonzero((learned[:, wanted] == labels[wanted]).all(axis=1))
            if len(pool):
                chosen[row] = rng.choice(pool)
                break
    return subject.expression[subject.learned][chosen]


def _stratum_name(subject: Subject) -> str:
    return subject.schema.names[subject.stratum]
