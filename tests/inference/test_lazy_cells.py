"""A lazy or backed AnnData gives what the same cells in memory give, wherever cells are taken."""

import anndata
import h5py
import numpy as np
import pytest
from short_runs import small_config

from causcell.evaluation.evaluate import evaluate
from causcell_training import fit

pytestmark = pytest.mark.filterwarnings("ignore::Warning:xarray", "ignore::FutureWarning:anndata")


@pytest.fixture(scope="module")
def path(cells, tmp_path_factory):
    path = tmp_path_factory.mktemp("lazy") / "cells.h5ad"
    cells.write_h5ad(path)
    return path


def half_lazy(path):
    """X as a dask array of sparse chunks, obs and var in memory."""
    with h5py.File(path) as file:
        obs, var = anndata.io.read_elem(file["obs"]), anndata.io.read_elem(file["var"])
    x = anndata.experimental.read_lazy(path).X
    return anndata.AnnData(x, obs=obs, var=var)


FORMS = {
    "lazy": anndata.experimental.read_lazy,
    "half lazy": half_lazy,
    "backed": lambda path: anndata.read_h5ad(path, backed="r"),
}


@pytest.mark.parametrize("form", sorted(FORMS))
def test_generate_and_embed_give_the_same(generator, cells, path, form):
    few = cells.obs_names[:40]
    expected = generator.counterfactual(cells[few], do={"stim": "IFN"}, seed=1)
    embedded = generator.embed(cells[few])
    given = FORMS[form](path)[:40]
    found = generator.counterfactual(given, do={"stim": "IFN"}, seed=1)
    np.testing.assert_array_equal(found.X, expected.X)
    assert found.obs["stim_factual"].tolist() == expected.obs["stim_factual"].tolist()
    np.testing.assert_array_equal(generator.embed(given).obsm["X_causcell"], embedded.obsm["X_causcell"])


@pytest.mark.slow
@pytest.mark.parametrize("form", ["lazy"])
def test_evaluate_and_train_give_the_same(generator, cells, path, form, tmp_path, run):
    expected, found = evaluate(cells, generator), evaluate(FORMS[form](path), generator)
    assert found.facts == expected.facts
    assert [table.rows for table in found.tables] == [table.rows for table in expected.tables]
    again = fit(FORMS[form](path), tmp_path / "run", config=small_config())
    for name, weight in run.model.state_dict().items():
        np.testing.assert_array_equal(again.model.state_dict()[name].numpy(), weight.numpy())
