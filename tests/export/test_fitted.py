"""Cells to an open model in one call: what it keeps, where it is, what it refuses."""

from pathlib import Path

import anndata
import numpy as np
import pytest
from short_runs import tiny_config

from causcell.errors import CausCellWarning, ConfigurationError, OutputExistsError
from causcell.fitting import fit
from causcell.generator import Generator
from causcell_export.fitted import FittedModel

pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")


@pytest.fixture(scope="module")
def cells_with_a_map(cells: anndata.AnnData) -> anndata.AnnData:
    mapped = cells.copy()
    mapped.obsm["X_umap"] = np.arange(2 * mapped.n_obs, dtype=np.float32).reshape(-1, 2)
    mapped.obs["batch"] = "one"
    mapped.var["symbol"] = mapped.var_names.str.lower()
    return mapped


@pytest.fixture(scope="module")
def model(cells_with_a_map: anndata.AnnData) -> FittedModel:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausCellWarning)
        return fit(
            cells_with_a_map,
            concepts=["stim", "donor", "cell_type"],
            edges=["donor:cell_type"],
            config=tiny_config(concept=(), edge=()),
            progress=False,
            threads=1,
        )


def test_a_counterfactual_keeps_obs_obsm_and_var(model: FittedModel, cells_with_a_map: anndata.AnnData) -> None:
    result = model.counterfactual(cells_with_a_map, do={"stim": "IFN"})
    assert result.obs_names.equals(cells_with_a_map.obs_names)
    assert (result.obs["batch"] == "one").all()
    np.testing.assert_array_equal(result.obsm["X_umap"], cells_with_a_map.obsm["X_umap"])
    assert result.var["symbol"].tolist() == [name.lower() for name in result.var_names]
    assert "X_umap" not in model.counterfactual(cells_with_a_map, do={"stim": "IFN"}, keep_obsm="none").obsm


def test_it_shows_its_graph_and_verdicts(model: FittedModel) -> None:
    assert repr(model).startswith("FittedModel of model ")
    assert "donor -> cell_type" in repr(model)
    assert "verdict on stim" in repr(model)
    html = model._repr_html_()
    assert "<svg" in html and "verdict on stim" in html
    assert model.run.model.schema.names == model.schema.names


def test_it_is_saved_and_opened_again(model: FittedModel, cells: anndata.AnnData, tmp_path: Path) -> None:
    folder = model.save(tmp_path / "kept")
    with Generator.open(folder / "models", threads=1) as again:
        one, other = (each.reconstruct(cells[:8].copy()).X for each in (again, model))
    np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert (folder / "run" / "config.toml").is_file()
    with pytest.raises(OutputExistsError):
        model.save(folder)


def test_what_is_there_is_not_overwritten(cells: anndata.AnnData, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(OutputExistsError):
        fit(cells, concepts=["stim"], out=tmp_path)
    with pytest.raises(ConfigurationError, match="does not take resume="):
        fit(cells, concepts=["stim"], resume=True)
