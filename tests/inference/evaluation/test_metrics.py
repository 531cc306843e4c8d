"""Measures on arrays whose answer is known."""

import numpy as np
import pytest

from causcell.evaluation.correlations import correlations_kept
from causcell.evaluation.distances import energy_distance, maximum_mean_discrepancy, median_distance
from causcell.evaluation.metrics import (
    differential_genes,
    effect_agreement,
    mean_shift,
    mean_squared_error,
    pearson,
    ranking_score,
    shared_noise,
    shift_size,
    shift_slope,
)
from causcell.evaluation.quality import measure_effect, measure_quality, sample_quality


def test_pearson_is_over_genes_for_each_cell():
    rng = np.random.default_rng(0)
    real, generated = rng.random((5, 30)), rng.random((5, 30))
    expected = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(real, generated, strict=True)])
    assert pearson(real, generated) == pytest.approx(expected)
    assert pearson(real, 3 * real + 1) == pytest.approx(1)
    assert pearson(real, np.ones_like(real)) == 0  # the same in all genes: no cell has a correlation


def test_mean_squared_error():
    assert mean_squared_error(np.zeros((2, 2)), np.array([[1.0, 0], [0, 1]])) == 0.5


def test_energy_distance_of_like_cells_is_zero_and_of_moved_cells_is_not():
    """Unbiased: over twenty pairs of sets of 100 the mean is within four standard errors of zero."""
    rng = np.random.default_rng(0)
    same = [energy_distance(rng.standard_normal((100, 5)), rng.standard_normal((100, 5))) for _ in range(20)]
    assert abs(np.mean(same)) < 4 * np.std(same) / np.sqrt(20)
    # in one dimension two points at distance 1 have energy distance 2, less nothing within each
    assert energy_distance(np.zeros((3, 1)), np.ones((4, 1))) == pytest.approx(2)


def test_sample_quality_of_samples_and_of_profiles():
    rng = np.random.default_rng(1)
    labels = np.repeat(["a", "b", "rare"], [60, 60, 5])
    centre = np.repeat([1.0, 3.0, 9.0], [60, 60, 5])[:, None]

    def sampled():
        return (centre + rng.standard_normal((125, 20))) * (rng.random((125, 20)) < 0.4)

    real = sampled()
    good, profile = sample_quality(real, sampled(), labels), sample_quality(real, np.tile(0.4 * centre, 20), labels)
    assert good["variance_ratio"] == pytest.approx(1, abs=0.1)
    assert good["energy_distance"] < 0.1 < 1 < profile["energy_distance"]
    assert profile["variance_ratio"] == pytest.approx(0, abs=1e-9)
    assert good["nonzero"] == pytest.approx(good["nonzero_real"], abs=0.05) != profile["nonzero"]
    assert abs(good["energy_distance_real"]) < 0.1


def test_quality_is_that_of_matched_cells_and_of_samples():
    """The names, and their order, that a model's manifest holds."""
    rng = np.random.default_rng(8)
    real, generated = modules(rng, 100, 0.6), modules(rng, 100, 0.3)
    labels = np.repeat(["a", "b"], 50)
    quality = measure_quality(real, generated, labels)
    expected = {"pcc": pearson(real, generated), "mse": mean_squared_error(real, generated)}
    assert list(quality.items()) == list((expected | sample_quality(real, generated, labels)).items())
    assert list(quality) == [
        *("pcc", "mse", "energy_distance", "mmd", "correlations"),
        *("energy_distance_real", "mmd_real", "correlations_real", "variance_ratio"),
        *("nonzero", "nonzero_mean", "nonzero_real", "nonzero_mean_real"),
    ]


def test_arguments_by_their_old_names_are_taken_with_a_warning():
    real = modules(np.random.default_rng(9), 30, 0.6)
    with pytest.warns(DeprecationWarning, match="use min_cells="):
        assert correlations_kept(real, real, least=31) is None
    with pytest.warns(DeprecationWarning, match="use min_cells="):
        assert "energy_distance" not in sample_quality(real, real, np.zeros(30), least=31)
    with pytest.warns(DeprecationWarning, match="use fdr="):
        assert not differential_genes(real, real, rate=0.1).any()


def test_sample_quality_without_a_label_of_enough_cells():
    assert "energy_distance" not in sample_quality(np.ones((4, 3)), np.ones((4, 3)), np.array(list("abcd")))


def modules(rng, cells, strength):
    """Thirty genes in three modules that vary together, correlated by ``strength`` within a module."""
    shared = rng.standard_normal((cells, 3)).repeat(10, axis=1)
    return 5 + np.sqrt(strength) * shared + np.sqrt(1 - strength) * rng.standard_normal((cells, 30))


def test_correlations_kept_is_the_ratio_of_their_strengths():
    """500 cells: correlations within 0.05, and the 100 strongest of 435 pairs are within modules."""
    rng = np.random.default_rng(2)
    real = modules(rng, 500, 0.6)
    assert correlations_kept(modules(rng, 500, 0.6), real, pairs=100) == pytest.approx(1, abs=0.1)
    assert correlations_kept(modules(rng, 500, 0.3), real, pairs=100) == pytest.approx(0.5, abs=0.1)
    assert correlations_kept(modules(rng, 500, 0.0), real, pairs=100) == pytest.approx(0, abs=0.1)
    assert correlations_kept(10 - real, real, pairs=100) == pytest.approx(1)  # all reversed: the same correlations
    reversed_half = np.where(np.arange(30) % 2, 10 - real, real)
    assert correlations_kept(reversed_half, real, pairs=135) == pytest.approx(-1 / 9, abs=0.1)  # 60 keep, 75 turn


def test_correlations_of_constant_genes_count_as_none():
    real = modules(np.random.default_rng(3), 100, 0.6)
    assert correlations_kept(np.ones_like(real), real) == 0


def test_correlations_of_too_few_cells_or_genes_are_not_said():
    real = modules(np.random.default_rng(4), 100, 0.6)
    assert correlations_kept(real[:23], real) is None
    assert correlations_kept(real, real[:23]) is None
    assert correlations_kept(real[:, :20], real[:, :20]) is None  # 190 pairs
    assert correlations_kept(real, np.where(np.arange(100)[:, None] < 9, real, 0)) is None  # expressed by a tenth
    quality = sample_quality(real, real, np.array(["a"] * 47 + ["b"] * 53))
    assert quality["correlations"] == quality["correlations_real"]
    assert "correlations" not in sample_quality(real, real, np.array(["a", "b", "c"] * 33 + ["c"]))


def test_mmd_is_zero_for_like_cells_and_two_for_cells_far_apart():
    """Unbiased, as the energy distance; between sets at one point each, far apart beside the bandwidth: 1 + 1 - 0."""
    rng = np.random.default_rng(5)
    same = [
        maximum_mean_discrepancy(rng.standard_normal((100, 5)), rng.standard_normal((100, 5)), 2.0) for _ in range(20)
    ]
    assert abs(np.mean(same)) < 4 * np.std(same) / np.sqrt(20)
    assert maximum_mean_discrepancy(np.zeros((3, 1)), np.full((4, 1), 50.0), 1.0) == pytest.approx(2)
    assert median_distance(np.array([[0.0], [1.0], [3.0]])) == 2


def test_an_effect_agrees_with_itself_and_its_size_shows_in_the_sizes_alone():
    real = np.random.default_rng(6).standard_normal(200)
    alike = {"pcc": 1, "spearman": 1, "top_overlap": 1}
    right = {"size": 1, "norm_ratio": 1, "calibration": 1}
    assert effect_agreement(real, real) == pytest.approx(alike | right)
    half = effect_agreement(0.5 * real, real)
    assert half == pytest.approx(alike | {"size": 0.5, "norm_ratio": 0.5, "calibration": 2})
    assert effect_agreement(-real, real)["pcc"] == pytest.approx(-1)
    nothing = effect_agreement(np.zeros(200), real)
    assert nothing.pop("calibration") is None
    assert set(nothing.values()) == {0.0}


def test_the_size_of_a_right_prediction_is_one_however_noisy_the_real_cells_are():
    """Thirty cells of either kind, a true shift as long as its noise: the slope alone would be a half."""
    rng = np.random.default_rng(8)
    true = 0.25 * rng.standard_normal(1000)
    sizes, slopes = [], []
    for _ in range(40):
        real, variance = mean_shift(rng.standard_normal((30, 1000)), true + rng.standard_normal((30, 1000)))
        found = effect_agreement(true, real, variance=variance)
        sizes.append([found["size"], found["norm_ratio"], found["calibration"]])
        slopes.append(shift_slope(true, real))
    assert np.mean(slopes) == pytest.approx(0.48, abs=0.03)  # 62 / (62 + 67) of the square is not noise
    # 40 repetitions of a deviation below .1
    np.testing.assert_allclose(np.mean(sizes, axis=0), 1, atol=0.05)


def test_a_prediction_does_not_gain_by_the_noise_of_its_own_source_cells():
    """Cells that know half of the effect, less the real source cells, which are in the real shift as well."""
    rng = np.random.default_rng(5)
    true, cells = 0.3 * rng.standard_normal(1000), 12
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(40):
        source, target = rng.standard_normal((cells, 1000)), true + rng.standard_normal((cells, 1000))
        real, variance = mean_shift(source, target)
        predicted = 0.5 * true - source  # half of the effect, and all of the noise
        noise = shared_noise(predicted, source)
        given = predicted.mean(axis=0), real, variance, np.zeros(1000, dtype=bool)
        with_noise, without = measure_effect(*given), measure_effect(*given, shared=noise)
        for measure in ("size", "error", "pcc", "calibration"):
            found.setdefault(measure, []).append((with_noise[measure], without[measure]))
    means = {measure: np.mean(values, axis=0) for measure, values in found.items()}
    assert means["size"][0] > 1.2
    assert means["size"][1] == pytest.approx(0.5, abs=0.05)
    assert means["error"][0] < 0
    assert means["error"][1] == pytest.approx(
        0.25 + 1000 / cells / (true @ true), abs=0.1
    )  # the prediction's own noise
    assert means["pcc"][1] == pytest.approx(
        0.5 * (true @ true) / np.sqrt((0.25 * (true @ true) + 1000 / cells) * (true @ true + 2000 / cells)), abs=0.03
    )
    assert means["calibration"][1] < means["calibration"][0]


def test_shared_noise_over_replicates_counts_what_their_cells_have_in_common():
    rng = np.random.default_rng(6)
    donors = np.repeat(np.arange(6), 10)
    of_donors = rng.standard_normal((6, 200))[donors]
    source = of_donors + 0.1 * rng.standard_normal((60, 200))
    over_cells, over_donors = shared_noise(-source, source), shared_noise(-source, source, donors)
    assert over_donors == pytest.approx(10 * over_cells, rel=0.3)
    assert over_donors == pytest.approx(source.reshape(6, 10, 200).mean(axis=1).var(axis=0, ddof=1).sum() / 6)
    assert shared_noise(-source.mean(axis=0), source) == 0
    assert shared_noise(-source[:1], source[:1]) == 0
    assert shared_noise(-source, source, np.zeros(60)) == 0


def test_no_size_is_told_of_a_shift_that_is_noise():
    rng = np.random.default_rng(9)
    found = [
        shift_size(np.ones(500), *mean_shift(rng.standard_normal((20, 500)), rng.standard_normal((20, 500))))
        for _ in range(100)
    ]
    assert sum(size is not None for size in found) <= 8  # two standard errors: 2.3 of a hundred by chance


def test_the_strongest_genes_are_those_that_move_most_either_way():
    real, predicted = np.zeros(10), np.zeros(10)
    real[[0, 1]], predicted[[1, 2]] = [-5, 3], [4, 1]
    assert effect_agreement(predicted, real, top=2)["top_overlap"] == 0.5


def test_differential_genes_are_found_and_others_seldom():
    """Of 1,000 genes 100 differ by two deviations; at 5 % false discoveries a tenth would be beyond chance."""
    rng = np.random.default_rng(7)
    source, target = rng.standard_normal((2, 60, 1000))
    target[:, :100] += 2
    found = differential_genes(source, target)
    assert found[:100].all()
    assert found[100:].sum() < 0.1 * found.sum()
    assert not differential_genes(np.zeros((20, 3)), np.zeros((20, 3))).any()  # genes that nobody expresses


def test_ranking_score_is_the_share_of_pairs_in_order():
    truth = np.array([True, False, True, False])
    assert ranking_score(np.array([4.0, 1, 3, 2]), truth) == 1
    assert ranking_score(np.array([4.0, 1, 2, 3]), truth) == 0.75
    assert ranking_score(np.zeros(4), truth) == 0.5
    assert ranking_score(np.zeros(4), np.ones(4, dtype=bool)) is None
