"""The form of results: rows, labels, provenance, and what a user is told of them."""

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from simulation import CONCEPTS

from causcell.counterfactual.outputs import OUTPUT_KINDS
from causcell.counterfactual.request import make_request
from causcell.counterfactual.tables import ResultTable
from causcell.errors import CausCellWarning

# -- rows and columns --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table(generator, few):
    """Two interventions, three draws."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausCellWarning)
        return generator.counterfactual(few, [{}, {"donor": "d1"}], draws=3, solver="ddim", steps=3, seed=5)


def test_columns_of_obs(table):
    columns = ["source_cell", "intervention", "draw"]
    columns += [column for concept in CONCEPTS for column in (concept, f"{concept}_factual")]
    assert table.obs.columns.tolist() == [*columns, "unseen_combination"]
    assert table.obs["draw"].dtype == np.int32
    assert table.obs["unseen_combination"].dtype == bool
    assert all(isinstance(table.obs[concept].dtype, pd.CategoricalDtype) for concept in CONCEPTS)


@pytest.mark.parametrize("store", OUTPUT_KINDS)
def test_the_columns_that_are_announced_are_those_of_results(generator, store):
    request = make_request(generator.manifest, {"stim": "IFN"}, draws=2, store=store, library_size=None)
    form = ResultTable.of(generator.model, request)
    assert form.own_columns() == list(form.example(0))


def test_rows_are_cells_then_interventions_then_draws(table, few):
    interventions = ["factual"] * 3 + ["donor=d1"] * 3
    assert table.shape == (96 * 6, 50)
    assert table.obs["source_cell"].tolist() == np.repeat(few.obs_names, 6).tolist()
    assert table.obs["intervention"].tolist() == interventions * 96
    assert table.obs["draw"].tolist() == [0, 1, 2] * 2 * 96
    assert table.obs_names[:2].tolist() == ["cell_0000|factual|0", "cell_0000|factual|1"]
    assert table.obs_names[-1] == "cell_0095|donor=d1|2"
    assert table.obs_names.is_unique


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"do": {"stim": "IFN"}}, ["cell_0000"]),
        ({"do": {"stim": "IFN"}, "draws": 2}, ["cell_0000|stim=IFN|0", "cell_0000|stim=IFN|1"]),
        ({"grid": ["stim"]}, ["cell_0000|stim=IFN", "cell_0000|stim=ctrl"]),
    ],
)
def test_rows_have_the_cells_name_or_what_tells_them_apart(generator, few, options, names, quiet):
    assert generator.counterfactual(few[:1], **options).obs_names.tolist() == names


def test_labels_before_and_after(table, few):
    before = few.obs.loc[table.obs["source_cell"], list(CONCEPTS)].reset_index(drop=True)
    after = table.obs[list(CONCEPTS)].reset_index(drop=True)
    for concept in CONCEPTS:
        assert table.obs[f"{concept}_factual"].tolist() == before[concept].tolist()
        assert table.obs[concept].cat.categories.tolist() == sorted(few.obs[concept].unique())
    factual = (table.obs["intervention"] == "factual").to_numpy()
    assert (after[factual].astype(str) == before[factual].astype(str)).all(axis=None)
    assert (after.loc[~factual, "donor"] == "d1").all()
    assert (after["stim"].astype(str) == before["stim"].astype(str)).all()


def test_expression_is_on_the_log_scale_of_the_panel(table, generator):
    assert table.X.dtype == np.float32
    assert (table.X >= 0).all()
    assert np.isfinite(table.X).all()
    assert table.var_names.tolist() == list(generator.preprocessing.genes)
    assert table.var["filled"].tolist() == [False] * 50


def test_provenance(table, generator):
    made = table.uns["causcell"]
    assert set(made) == {
        "model_digest",
        "engine",
        "batch_size",
        "versions",
        "seed",
        "estimate",
        "solver",
        "store",
        "mode",
        "match_parents",
        "draws",
        "interventions",
        "expression",
        "X",
    }
    assert made["model_digest"] == generator.manifest.digest
    assert made["solver"] == {"solver": "ddim", "steps": 3, "spacing": "trailing", "eta": 0.0}
    assert made["interventions"] == ["factual", "donor=d1"]
    assert (made["seed"], made["draws"], made["mode"], made["estimate"]) == (5, 3, "do", "sample")
    assert set(made["versions"]) == {"causcell", "numpy", "anndata"}


def test_the_default_estimate_is_stated(generator, few):
    made = generator.reconstruct(few).uns["causcell"]
    assert made["estimate"] == generator.manifest.preset(None).solver.estimate


def test_results_can_be_saved(table, tmp_path):
    table.write_h5ad(tmp_path / "result.h5ad")
    read = anndata.read_h5ad(tmp_path / "result.h5ad")
    np.testing.assert_array_equal(read.X, table.X)
    pd.testing.assert_frame_equal(read.obs, table.obs)
    assert read.uns["causcell"]["interventions"].tolist() == table.uns["causcell"]["interventions"]
    assert {key: read.uns["causcell"][key] for key in ("seed", "mode", "solver")} == {
        key: table.uns["causcell"][key] for key in ("seed", "mode", "solver")
    }


# -- what a user is told -----------------------------------------------------------------------------------------------


def test_unseen_combinations_are_warned_of_counted_and_marked(generator, few):
    seen = {tuple(row) for row in generator.engine.reference.combinations.tolist()}
    with pytest.warns(
        CausCellWarning, match="rows have combinations of labels that no training cell carries"
    ) as caught:
        result = generator.counterfactual(few, grid=["donor", "cell_type"])
    codes = generator.schema.encode(result.obs)
    expected = np.array([tuple(row) not in seen for row in codes.tolist()])
    assert 0 < expected.sum() < len(expected)
    np.testing.assert_array_equal(result.obs["unseen_combination"], expected)
    (message,) = [str(each.message) for each in caught if "combinations" in str(each.message)]
    assert message.startswith(f"{expected.sum()} of {len(expected)} rows")
    assert " + d1 + NK + " in message


def test_factual_rows_are_marked_but_not_warned_of(generator, few, recwarn):
    """Cells that carry a combination themselves show that there is such a thing."""
    new = few.copy()
    new.obs["donor"], new.obs["cell_type"] = "d1", "NK"
    assert generator.reconstruct(new).obs["unseen_combination"].all()
    assert not [each for each in recwarn if each.category is CausCellWarning]


def test_unmatched_reference_cells_are_warned_of_and_counted(generator, few):
    """No training cell of donor d1 is an NK cell."""
    with pytest.warns(CausCellWarning) as caught:
        generator.counterfactual(few, {"cell_type": "NK"}, match_parents=True)
    (message,) = [str(each.message) for each in caught if "reference cell" in str(each.message)]
    assert message.startswith(f"{(few.obs['donor'] == 'd1').sum()} of 96 rows found no reference cell")


# -- unlabelled cells --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def partly_labelled(few):
    """Without donors, and with no stimulation for the first ten cells."""
    partly = few.copy()
    del partly.obs["donor"]
    partly.obs.loc[partly.obs_names[:10], "stim"] = np.nan
    return partly


def test_labels_are_not_needed_to_reconstruct(generator, few, partly_labelled):
    result = generator.reconstruct(partly_labelled)
    assert result.shape == generator.reconstruct(few).shape
    assert result.obs["donor"].isna().all()
    assert result.obs["donor_factual"].isna().all()
    assert result.obs["stim"].isna().sum() == 10
    assert not result.obs["unseen_combination"].any()


def test_an_unlabelled_cell_takes_the_label_it_is_given(generator, few, partly_labelled, quiet):
    result = generator.counterfactual(partly_labelled, {"stim": "IFN"})
    assert (result.obs["stim"] == "IFN").all()
    assert result.obs["stim_factual"].isna().sum() == 10
    factual = generator.reconstruct(few).X
    assert (result.X[:10] != factual[:10]).any(axis=1).all()
