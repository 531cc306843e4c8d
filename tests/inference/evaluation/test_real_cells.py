"""Cells held against real ones: values computed together are those of each metric by itself."""

import numpy as np
import pytest
import scanpy
from scipy.spatial.distance import cdist, pdist

from causcell.errors import ConfigurationError
from causcell.evaluation import Metric
from causcell.evaluation.correlations import correlations_kept
from causcell.evaluation.distances import (
    energy_distance,
    maximum_mean_discrepancy,
    median_distance,
    squared_distances,
)
from causcell.evaluation.expression import find_top_markers
from causcell.evaluation.intervals import measure_samples
from causcell.evaluation.metrics import (
    mean_shift,
    shift_calibration,
    shift_correlation,
    shift_norm_ratio,
    shift_size,
)
from causcell.evaluation.real_cells import RealCells


def cells(count: int, *, seed: int, genes: int = 60) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shared = np.repeat(rng.standard_normal((count, 3)), genes // 3, axis=1)
    return np.maximum(0.5 + 0.8 * shared + 0.5 * rng.standard_normal((count, genes)), 0).astype(np.float32)


def test_values_within_labels_are_those_of_the_metrics_on_every_half() -> None:
    real, made = cells(130, seed=0), 0.9 * cells(130, seed=1)
    labels = np.array(["a"] * 70 + ["b"] * 50 + ["few"] * 10)
    expected: dict[str, list[float]] = {}
    rng = np.random.default_rng(0)
    for label in "ab":
        rows = np.flatnonzero(labels == label)
        bandwidth = median_distance(real[rows])
        for a, b in (np.array_split(rng.permutation(rows), 2) for _ in range(5)):
            for suffix, other in (("", made), ("_real", real)):
                for name, value in (
                    ("energy_distance", energy_distance(other[a], real[b])),
                    ("mmd", maximum_mean_discrepancy(other[a], real[b], bandwidth)),
                    ("correlations", correlations_kept(other[a], real[b])),
                ):
                    assert value is not None
                    expected.setdefault(name + suffix, []).append(value)
    found = RealCells(real, labels).sample_quality(made)
    for name, values in expected.items():
        weighted = (70 * np.mean(values[:5]) + 50 * np.mean(values[5:])) / 120
        assert found[name] == pytest.approx(weighted, abs=1e-6), name  # float32 sums of 60 genes


def test_distances_and_what_follows_are_those_of_pairs() -> None:
    a, b = cells(40, seed=7) + 5, cells(30, seed=8)
    between, within = cdist(a, b), (pdist(a), pdist(b))
    assert energy_distance(a, b) == pytest.approx(2 * between.mean() - within[0].mean() - within[1].mean(), abs=1e-9)
    similar = [np.exp(-(each**2) / 18).mean() for each in (*within, between)]
    assert maximum_mean_discrepancy(a, b, 3) == pytest.approx(similar[0] + similar[1] - 2 * similar[2], abs=1e-12)
    assert median_distance(a) == pytest.approx(np.median(within[0]), abs=1e-9)


def test_distances_of_alike_cells_are_nothing() -> None:
    x = np.tile(cells(1, seed=2).astype(np.float64), (9, 1)) * 1e3
    assert np.sqrt(squared_distances(x, x)).max() < 1e-7 * np.linalg.norm(x[0])
    far = squared_distances(x, x + 1)
    np.testing.assert_allclose(far, 60, rtol=1e-6)  # of squares a million times as large


def test_metrics_that_prepare_nothing_are_taken_too_and_other_kinds_can_not() -> None:
    with pytest.raises(ConfigurationError, match="kernel and prepare are for kind 'distribution' alone"):
        Metric("error", lambda real, made: 0.0, "cells", "lower", kernel=lambda squared, bandwidth: squared)


def test_markers_are_those_of_scanpy() -> None:
    expression, codes = cells(120, seed=3), np.arange(120) % 3
    expression[codes == 1, :20] += 0.4
    labelled = scanpy.AnnData(expression)
    labelled.obs["label"] = np.array(list("abc"))[codes]
    labelled.obs["label"] = labelled.obs["label"].astype("category")
    labelled.uns["log1p"] = {"base": None}
    scanpy.tl.rank_genes_groups(labelled, "label", method="wilcoxon", n_genes=10)
    names = labelled.uns["rank_genes_groups"]["names"]
    found = find_top_markers(expression, codes, 10)
    assert found == {code: set(map(int, names["abc"[code]])) for code in range(3)}


def test_measures_of_many_samples_are_those_of_each() -> None:
    rng = np.random.default_rng(4)
    _, variance = mean_shift(cells(30, seed=5), cells(30, seed=6))
    real = rng.standard_normal((6, 60)) * np.array([1, 1, 1, 1, 0.01, 0])[:, None]  # the last two: noise, and none
    predicted = real + 0.3 * rng.standard_normal((6, 60))
    predicted[1] = 0
    found = measure_samples(predicted, real, variance)
    for i, (p, r) in enumerate(zip(predicted, real, strict=True)):
        expected = {
            "pcc": shift_correlation(p, r),
            "calibration": shift_calibration(p, r),
            "size": shift_size(p, r, variance),
            "norm_ratio": shift_norm_ratio(p, r, variance),
        }
        for name, value in expected.items():
            assert found[name][i] == pytest.approx(np.nan if value is None else value, nan_ok=True, abs=1e-12), name
    assert np.isnan(measure_samples(predicted, real, np.full(60, np.inf))["size"]).all()
