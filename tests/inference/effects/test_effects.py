"""Simulated trials and effects on single cells: averages, their errors, and false discovery control."""

from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pytest
from scipy import stats

from causcell._internal.significance import false_discovery_rate, two_sided_p
from causcell.counterfactual.stream import stream_blocks
from causcell.counterfactual.uncertainty import EffectUncertainty
from causcell.effects import cell_effects, simulated_trial
from causcell.errors import CausCellWarning, ConfigurationError, DataError, UnknownConceptError, UnknownLabelError
from causcell.generator import Generator
from causcell.repository.effect_error import EffectError, ErrorSize


@pytest.fixture(scope="module")
def trial(generator: Generator, cells: anndata.AnnData) -> anndata.AnnData:
    return simulated_trial(generator, cells, "cell_type", baseline="B", replicate="donor", draws=2)


def arms_of(generator: Generator, cells: anndata.AnnData, draws: int) -> np.ndarray:
    """Expression of every cell under each cell type, mean over draws, [n x labels x G]."""
    with pytest.warns(CausCellWarning, match="combinations of labels that no training cell carries"):
        grid = generator.counterfactual(cells, grid=["cell_type"], preset="mean", draws=draws)
    return grid.X.reshape(cells.n_obs, 3, draws, -1).mean(axis=2, dtype=np.float64)


def test_a_trial_averages_the_same_cells_under_every_label(
    generator: Generator, cells: anndata.AnnData, trial: anndata.AnnData
) -> None:
    arms = arms_of(generator, cells, 2)
    assert list(trial.obs_names) == ["B", "NK", "T"]
    np.testing.assert_allclose(trial.X, arms.mean(axis=0), rtol=1e-4, atol=1e-5)
    effect = (arms - arms[:, :1]).mean(axis=0)
    by_donor = np.stack(
        [(arms - arms[:, :1])[(cells.obs["donor"] == donor).to_numpy()].mean(axis=0) for donor in ("d1", "d2", "d3")]
    )
    np.testing.assert_allclose(trial.layers["effect"], by_donor.mean(axis=0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(
        trial.layers["standard_error"], by_donor.std(axis=0, ddof=1) / np.sqrt(3), rtol=1e-3, atol=1e-5
    )
    assert not np.allclose(effect[1:], 0, atol=0.01)


@pytest.mark.parametrize("replicate", [None, "donor"])
def test_arms_that_memory_has_no_room_for_at_once_give_the_same(generator, cells, monkeypatch, replicate):
    options = {"baseline": "NK", "replicate": replicate, "draws": 2}  # the baseline is neither first nor last
    whole = simulated_trial(generator, cells, "cell_type", **options)
    monkeypatch.setattr("causcell.effects.trial._MEMORY", 1)
    asked = []

    def noted(model, source, request, ranges):
        asked.append([each.name for each in request.interventions])
        return stream_blocks(model, source, request, ranges)

    monkeypatch.setattr("causcell.effects.trial.stream_blocks", noted)
    parts = simulated_trial(generator, cells, "cell_type", **options)
    assert asked == [["cell_type=NK", "cell_type=B"], ["cell_type=NK", "cell_type=T"]]
    assert list(parts.obs_names) == ["B", "NK", "T"]
    np.testing.assert_array_equal(parts.X, whole.X)
    for name in whole.layers:
        np.testing.assert_array_equal(parts.layers[name], whole.layers[name])
    np.testing.assert_array_equal(parts.obs["unseen"], whole.obs["unseen"])


def test_p_values_are_of_a_t_test_over_the_independent_units(generator: Generator, cells: anndata.AnnData) -> None:
    trial = simulated_trial(generator, cells, "cell_type", baseline="NK", draws=1, min_effect=0.0)
    arms = arms_of(generator, cells, 1)
    expected = stats.ttest_1samp(arms[:, 2] - arms[:, 1], 0).pvalue  # T against NK
    np.testing.assert_allclose(trial.layers["p_value"][2], expected, rtol=1e-2, atol=1e-12)
    assert (trial.layers["p_value"][1] == 1).all()  # the baseline against itself
    np.testing.assert_allclose(
        trial.layers["q_value"][2], stats.false_discovery_control(trial.layers["p_value"][2]), rtol=1e-12
    )
    np.testing.assert_array_equal(trial.layers["changed"], trial.layers["q_value"] < 0.05)


def test_units_are_counted_and_settings_recorded(trial: anndata.AnnData, cells: anndata.AnnData) -> None:
    settings = trial.uns["causcell"]["trial"]
    assert (settings["units"], settings["cells"], settings["replicate"]) == (3, cells.n_obs, "donor")
    assert (settings["rate"], settings["least"]) == (0.05, 0.1)  # as files have spelt them from the first version


def test_a_population_can_be_chosen(generator: Generator, cells: anndata.AnnData) -> None:
    some = simulated_trial(generator, cells, "stim", where='cell_type == "T"')
    assert some.uns["causcell"]["trial"]["cells"] == int((cells.obs["cell_type"] == "T").sum())


def test_false_discoveries_among_true_nulls_are_controlled() -> None:
    """Of 1,000 nulls and 100 real effects at five deviations: at most a tenth of what is found at 5 % is false."""
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.standard_normal(1000), 5 + rng.standard_normal(100)])
    found = false_discovery_rate(two_sided_p(z, np.ones(1100), None)) < 0.05
    assert found[1000:].mean() > 0.9
    assert found[:1000].sum() <= 0.1 * found.sum()


def test_two_sided_p_without_deviation() -> None:
    np.testing.assert_array_equal(two_sided_p(np.array([0.0, 1.0]), np.zeros(2), 5), [1.0, 0.0])
    np.testing.assert_array_equal(two_sided_p(np.array([-0.05, 0.1, 1.0]), np.zeros(3), 5, 0.1)[[0, 2]], [1.0, 0.0])


def test_effects_within_the_smallest_are_seldom_called() -> None:
    """Means at the smallest effect itself, known to a tenth of it: at its boundary a test of 5 % is passed by 5 %."""
    rng = np.random.default_rng(1)
    p = two_sided_p(0.1 + 0.01 * rng.standard_normal(2000), np.full(2000, 0.01), None, 0.1)
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=0.02)
    np.testing.assert_allclose(two_sided_p(np.array([0.3]), np.array([0.1]), None), 2 * stats.norm.sf(3))


def test_effects_on_cells_are_means_and_deviations_of_paired_draws(
    generator: Generator, cells: anndata.AnnData
) -> None:
    few = cells[:20]
    found = cell_effects(generator, few, {"stim": "IFN"}, draws=3)
    options = {"preset": "mean", "draws": 3}
    effect = generator.counterfactual(few, {"stim": "IFN"}, **options).X - generator.reconstruct(few, **options).X
    effect = effect.reshape(20, 3, -1)
    np.testing.assert_allclose(found.X, effect.mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(found.layers["deviation"], effect.std(axis=1, ddof=1), atol=1e-5)
    assert list(found.obs_names) == list(few.obs_names)
    carries = (few.obs["stim"] == "IFN").to_numpy()
    assert not found.X[carries].any()  # consistency: a cell that has the label is not changed
    assert not found.layers["changed"][carries].any()


@pytest.mark.parametrize("constant", [None, 0.04, 1e4])
def test_tests_count_the_error_that_was_measured_of_small_effects(
    generator: Generator, cells: anndata.AnnData, monkeypatch: pytest.MonkeyPatch, constant: float | None
) -> None:
    """The larger it is, the fewer genes are called; without any the model is taken for right."""
    size = None if constant is None else ErrorSize(constant=constant, relative=0.5)
    error = size and EffectError(strata=(), shifts=9, stratum=size, shared=size, unseen=size)
    of = EffectUncertainty.of
    errors = {} if error is None else {"stim": error}
    monkeypatch.setattr(EffectUncertainty, "of", classmethod(lambda cls, model: replace(of(model), errors=errors)))
    few, settings = cells[:60], {"draws": 3, "min_effect": 0.1}
    of_small = 0 if constant is None else constant * generator.preprocessing.deviation**2 + 0.5 * 0.1**2
    trial = simulated_trial(generator, few, "stim", baseline="ctrl", **settings)
    row = trial["IFN"]
    np.testing.assert_allclose(
        row.layers["test_error"] ** 2, row.layers["standard_error"] ** 2 + of_small, rtol=1e-4, atol=1e-9
    )
    alone = two_sided_p(row.layers["effect"], row.layers["standard_error"], len(few) - 1, 0.1)
    if constant is None:
        np.testing.assert_allclose(row.layers["p_value"], alone, rtol=1e-2, atol=1e-9)
    else:
        assert (row.layers["p_value"] >= alone - 1e-9)[np.abs(row.layers["effect"]) > 0.1].all()
    assert constant != 1e4 or not row.layers["changed"].any()
    of_cells = cell_effects(generator, few[(few.obs["stim"] == "ctrl").to_numpy()], {"stim": "IFN"}, **settings)
    np.testing.assert_allclose(
        of_cells.layers["test_error"] ** 2, of_cells.layers["deviation"] ** 2 + of_small, rtol=1e-4, atol=1e-9
    )


def test_a_trial_is_written_and_read(trial: anndata.AnnData, tmp_path: Path) -> None:
    trial.write_h5ad(tmp_path / "trial.h5ad")
    again = anndata.read_h5ad(tmp_path / "trial.h5ad")
    np.testing.assert_array_equal(again.layers["q_value"], trial.layers["q_value"])


def test_what_a_trial_refuses(generator: Generator, cells: anndata.AnnData) -> None:
    with pytest.raises(UnknownLabelError, match="no label 'D'"):
        simulated_trial(generator, cells, "cell_type", baseline="D")
    with pytest.raises(UnknownConceptError, match="no column 'batch'"):
        simulated_trial(generator, cells, "cell_type", replicate="batch")
    with pytest.raises(DataError, match="at least 2"):
        simulated_trial(generator, cells, "cell_type", where='donor == "d1"', replicate="donor")
    with pytest.raises(DataError, match="draws is 1"):
        cell_effects(generator, cells, {"stim": "IFN"}, draws=1)
    with pytest.raises(ConfigurationError, match=r"fdr=1\.5"):
        simulated_trial(generator, cells, "cell_type", fdr=1.5)


def test_settings_by_their_old_names_are_taken_with_a_warning(generator: Generator, cells: anndata.AnnData) -> None:
    with pytest.warns(DeprecationWarning, match="use fdr="):
        assert simulated_trial(generator, cells[:10], "stim", draws=1, rate=0.2).uns["causcell"]["trial"]["rate"] == 0.2
    with pytest.warns(DeprecationWarning, match="use min_effect="):
        assert two_sided_p(np.array([0.1]), np.zeros(1), None, least=0.2) == [1.0]
    few = cells[:10]
    with pytest.warns(DeprecationWarning, match=r"simulated_trial\(least=\)"):
        old = simulated_trial(generator, few, "stim", draws=1, least=0.2)
    with pytest.warns(DeprecationWarning, match=r"cell_effects\(rate=\)"):
        assert (
            cell_effects(generator, few, {"stim": "IFN"}, draws=2, rate=0.2).uns["causcell"]["effects"]["rate"] == 0.2
        )
    new = simulated_trial(generator, few, "stim", draws=1, min_effect=0.2)
    np.testing.assert_array_equal(old.layers["p_value"], new.layers["p_value"])
    with pytest.raises(TypeError, match="'fdr' by that name and by its old one"):
        simulated_trial(generator, few, "stim", fdr=0.1, rate=0.1)
