"""Effects as tables of genes: the form, the statistics and the cutoffs of scanpy's own table."""

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import causcell
from causcell.errors import ConfigurationError, UnknownLabelError
from causcell.generator import Generator
from causcell.get import effects_df

FORM = ["names", "scores", "logfoldchanges", "pvals", "pvals_adj"]
MORE = ["effect", "lower", "upper", "changed", "unseen"]

pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")


@pytest.fixture(scope="module")
def trial(generator: Generator, cells: anndata.AnnData) -> anndata.AnnData:
    return generator.trial(cells, "cell_type", baseline="B", replicate="donor", draws=1)


@pytest.fixture(scope="module")
def arms(generator: Generator, cells: anndata.AnnData) -> anndata.AnnData:
    """The rows that a trial over cells averages: each cell under every label, mean estimates."""
    return generator.counterfactual(cells, grid=["cell_type"], preset="mean")


def test_fold_changes_and_scores_are_those_of_scanpy(
    generator: Generator, cells: anndata.AnnData, arms: anndata.AnnData
) -> None:
    """The same rows are compared; scanpy's unpaired scores differ, the folds don't (it keeps them as float32)."""
    scanpy = pytest.importorskip("scanpy", reason="takes causcell[evaluate]")
    trial = generator.trial(cells, "cell_type", baseline="B", draws=1, min_effect=0.0)
    scanpy.tl.rank_genes_groups(arms, "intervention", reference="cell_type=B", method="t-test")
    expected = scanpy.get.rank_genes_groups_df(arms, "cell_type=T").set_index("names")
    found = effects_df(trial, "T").set_index("names").loc[expected.index]
    np.testing.assert_allclose(found["logfoldchanges"], expected["logfoldchanges"], rtol=1e-3, atol=1e-4)
    x = np.asarray(arms.X, dtype=np.float64).reshape(cells.n_obs, 3, -1)
    paired = stats.ttest_rel(x[:, 2], x[:, 0])
    by_gene = found.loc[list(trial.var_names)]
    np.testing.assert_allclose(by_gene["scores"], np.nan_to_num(paired.statistic), rtol=1e-2, atol=1e-3)


def test_the_form_is_that_of_scanpy(trial: anndata.AnnData) -> None:
    scanpy = pytest.importorskip("scanpy", reason="takes causcell[evaluate]")
    one, all_labels = effects_df(trial, "T"), effects_df(trial)
    other = anndata.AnnData(np.random.default_rng(0).random((30, 5), dtype=np.float32))
    other.obs["kind"] = pd.Categorical(np.resize(["a", "b", "c"], 30))
    scanpy.tl.rank_genes_groups(other, "kind", reference="a", method="t-test")
    assert list(one.columns) == [*scanpy.get.rank_genes_groups_df(other, "b").columns, *MORE] == [*FORM, *MORE]
    expected = scanpy.get.rank_genes_groups_df(other, None)
    assert list(all_labels.columns) == [*expected.columns, *MORE]
    assert all_labels["group"].dtype == pd.CategoricalDtype(["NK", "T"])
    for table in (one, all_labels.query("group == 'NK'")):
        assert (np.diff(table["scores"]) <= 0).all()
    assert list(all_labels.index) == list(range(2 * trial.n_vars))


def test_columns_are_the_trial_s_rows(trial: anndata.AnnData) -> None:
    table = effects_df(trial, "NK").set_index("names").loc[trial.var_names]
    for column, layer in {"effect": "effect", "lower": "lower", "upper": "upper", "pvals": "p_value"}.items():
        np.testing.assert_array_equal(table[column], trial.layers[layer][1])
    np.testing.assert_array_equal(table["pvals_adj"], trial.layers["q_value"][1])
    np.testing.assert_array_equal(table["changed"], trial.layers["changed"][1])
    assert (table["unseen"] == trial.obs.loc["NK", "unseen"]).all()
    called = table["scores"] != 0
    np.testing.assert_array_equal(called, table["effect"].abs() > 0.1)
    np.testing.assert_array_equal(np.sign(table["scores"][called]), np.sign(table["effect"][called]))


def test_unseen_is_the_share_of_cells_in_combinations_never_trained_on(
    generator: Generator, cells: anndata.AnnData, trial: anndata.AnnData, arms: anndata.AnnData
) -> None:
    expected = arms.obs.groupby("intervention", observed=True)["unseen_combination"].mean()
    assert trial.obs["intervention"].tolist() == ["cell_type=B", "cell_type=NK", "cell_type=T"]
    np.testing.assert_allclose(trial.obs["unseen"], expected[trial.obs["intervention"].tolist()])


@pytest.mark.parametrize(
    ("options", "keep"),
    [
        ({"pval_cutoff": 0.05}, "pvals_adj < 0.05"),
        ({"log2fc_min": 0.5}, "logfoldchanges > 0.5"),
        ({"log2fc_max": -0.5}, "logfoldchanges < -0.5"),
    ],
)
def test_cutoffs_keep_what_they_say(trial: anndata.AnnData, options: dict[str, Any], keep: str) -> None:
    found = effects_df(trial, **options)
    assert 0 < len(found) < 2 * trial.n_vars
    pd.testing.assert_frame_equal(found, effects_df(trial).query(keep).reset_index(drop=True))


def test_symbols_are_added(trial: anndata.AnnData) -> None:
    named = trial.copy()
    named.var["symbol"] = [f"symbol {name}" for name in named.var_names]
    found = effects_df(named, ["NK", "T"], gene_symbols="symbol")
    assert (found["symbol"] == "symbol " + found["names"].astype(str)).all()
    with pytest.raises(ConfigurationError, match="gene_symbols='symbols' is no column of var; did you mean 'symbol'"):
        effects_df(named, gene_symbols="symbols")


def test_a_file_read_back_gives_the_same_table_and_says_what_it_holds(trial: anndata.AnnData, tmp_path: Path) -> None:
    trial.write_h5ad(tmp_path / "trial.h5ad")
    again = anndata.read_h5ad(tmp_path / "trial.h5ad")
    pd.testing.assert_frame_equal(effects_df(again), effects_df(trial))
    facts = again.uns["causcell"]
    assert set(facts["layers"]) == set(again.layers)
    assert facts["X"] == "mean over cells of expression under the label, natural logarithm of 1 + counts per 10,000"
    assert "less that under cell_type=B" in facts["layers"]["effect"]
    assert list(again.obs_names) == ["B", "NK", "T"]


def test_a_trial_of_an_earlier_version_has_no_intervals(trial: anndata.AnnData) -> None:
    old = trial.copy()
    del old.layers["lower"], old.layers["upper"], old.obs["unseen"], old.uns["causcell"]["layers"]
    found = effects_df(old, "T")
    assert found[["lower", "upper", "unseen"]].isna().all(axis=None)
    pd.testing.assert_frame_equal(found[FORM], effects_df(trial, "T")[FORM])


def test_effects_on_cells_are_tables_of_named_cells(generator: Generator, cells: anndata.AnnData) -> None:
    effects = generator.trial(cells[:5], do={"stim": "IFN"}, draws=3)
    first, second = effects.obs_names[:2]
    table = effects_df(effects, first).set_index("names").loc[effects.var_names]
    np.testing.assert_allclose(table["logfoldchanges"], effects.X[0] / np.log(2), rtol=1e-6)
    np.testing.assert_array_equal(table["pvals"], effects.layers["p_value"][0])
    assert table["unseen"].isna().all()
    assert effects_df(effects, [first, second])["group"].unique().tolist() == [first, second]
    assert "under stim=IFN less its factual expression" in effects.uns["causcell"]["X"]
    with pytest.raises(ConfigurationError, match=r"effects on 5 cells.*name cells"):
        effects_df(effects)
    with pytest.raises(UnknownLabelError, match="has no label 'nobody'"):
        effects_df(effects, "nobody")


def test_what_is_no_effect_is_refused(trial: anndata.AnnData, arms: anndata.AnnData) -> None:
    with pytest.raises(ConfigurationError, match="no effects of a trial"):
        effects_df(arms, "T")
    with pytest.raises(ConfigurationError, match="label 'B' is the trial's baseline"):
        effects_df(trial, ["T", "B"])
    with pytest.raises(UnknownLabelError, match="concept 'cell_type' has no label 'nk'; did you mean 'NK'"):
        effects_df(trial, "nk")
    with pytest.raises(ConfigurationError, match="no label was given"):
        effects_df(trial, [])


def test_a_generator_runs_trials(generator: Generator, cells: anndata.AnnData, trial: anndata.AnnData) -> None:
    from causcell.effects import simulated_trial

    same = simulated_trial(generator, cells, "cell_type", baseline="B", replicate="donor", draws=1)
    np.testing.assert_array_equal(same.layers["effect"], trial.layers["effect"])
    for given in ({}, {"concept": "stim", "do": {"stim": "IFN"}}):
        with pytest.raises(ConfigurationError, match="give either concept="):
            generator.trial(cells, **given)
    with pytest.raises(ConfigurationError, match="baseline= and replicate= belong to concept="):
        generator.trial(cells, do={"stim": "IFN"}, replicate="donor")


def test_the_module_is_found_on_the_package() -> None:
    assert causcell.get.effects_df is effects_df
