"""Effects on single cells keep what belongs to each cell; a trial, whose rows are labels, the columns of genes."""

import numpy as np
import pandas as pd
import pytest

from causcell.errors import CausCellWarning, ConfigurationError


@pytest.fixture(scope="module")
def noted(few):
    noted = few[:20].copy()
    noted.obs["sample"] = pd.Categorical(["s1", "s2"] * 10)
    noted.obs["day"] = pd.date_range("2026", periods=20)
    noted.obsm["spatial"] = np.arange(40.0).reshape(20, 2)
    noted.var["symbol"] = [f"S{name}" for name in noted.var_names]
    return noted


@pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")
def test_effects_on_cells_keep_their_annotations(generator, noted, tmp_path):
    effects = generator.trial(noted, do={"stim": "IFN"}, draws=2)
    assert effects.obs.columns.tolist() == ["stim", "donor", "cell_type", "state", "sample"]
    pd.testing.assert_series_equal(effects.obs["sample"], noted.obs["sample"])
    np.testing.assert_array_equal(effects.obsm["spatial"], noted.obsm["spatial"])
    assert effects.var["symbol"].tolist() == [f"S{name}" for name in effects.var_names]
    assert "log1p" not in effects.uns
    effects.write_h5ad(tmp_path / "effects.h5ad")


def test_what_does_not_travel_is_told(generator, noted):
    with pytest.warns(CausCellWarning, match=r"obs\['day'\] holds datetime64"):
        generator.trial(noted, do={"stim": "IFN"}, draws=2)


def test_columns_are_chosen(generator, noted):
    effects = generator.trial(noted, do={"stim": "IFN"}, draws=2, keep_obs=["sample"], keep_obsm="none")
    assert effects.obs.columns.tolist() == ["sample"]
    assert not effects.obsm
    with pytest.raises(ConfigurationError, match="keep_obs= names 'nothing'"):
        generator.trial(noted, do={"stim": "IFN"}, draws=2, keep_obs="nothing")
    with pytest.raises(ConfigurationError, match="a row of a trial is no cell"):
        generator.trial(noted, "stim", draws=2, keep_obs="sample")


def test_a_trial_keeps_the_columns_of_genes_and_says_its_scale(generator, noted):
    trial = generator.trial(noted, "stim", draws=1)
    assert trial.var["symbol"].tolist() == [f"S{name}" for name in trial.var_names]
    assert trial.uns["log1p"] == {"base": None}
