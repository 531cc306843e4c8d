"""What users do with cells and a model: results do not depend on how the cells were handed over.

Where a batch changes, results agree within 1e-4 (float32 sums in another order); where it does not, bit for bit.
"""

import anndata
import numpy as np
import pandas as pd
import pytest
from results import JOINT, assert_same_cells, log1p_of, solvers
from scipy import sparse

from causcell.cells.collection import open_cells
from causcell.cells.log_scale import LogScaleCheck
from causcell.errors import (
    CausCellError,
    CausCellWarning,
    ConfigurationError,
    DataError,
    EngineError,
    ExpressionError,
    GenePanelError,
)
from causcell.generator import Generator

# -- how cells are handed over -----------------------------------------------------------------------------------------


@solvers
@pytest.mark.parametrize("batch_size", [1, 7, 200])
def test_batch_size_makes_no_difference(generator, repository, few, options, batch_size, quiet):
    with Generator.open(repository, threads=1, batch_size=batch_size) as other:
        result = other.counterfactual(few, JOINT, **options)
    assert_same_cells(result, generator.counterfactual(few, JOINT, **options), few.obs_names)


@solvers
def test_order_of_cells_makes_no_difference(generator, few, options, quiet):
    shuffled = few[np.random.default_rng(0).permutation(96)].copy()
    result = generator.counterfactual(shuffled, JOINT, **options)
    assert result.obs["source_cell"].drop_duplicates().tolist() == shuffled.obs_names.tolist()
    assert_same_cells(result, generator.counterfactual(few, JOINT, **options), few.obs_names)


@solvers
def test_other_cells_make_no_difference(generator, few, options, quiet):
    chosen = few[[80, 3, 41]].copy()
    result = generator.counterfactual(chosen, JOINT, **options)
    assert_same_cells(result, generator.counterfactual(few, JOINT, **options), chosen.obs_names)


@solvers
def test_order_of_genes_makes_no_difference(generator, few, options, quiet):
    """Bit for bit: genes are put in the panel's order before anything is computed."""
    shuffled = few[:, np.random.default_rng(0).permutation(few.n_vars)].copy()
    result = generator.counterfactual(shuffled, JOINT, **options)
    np.testing.assert_array_equal(result.X, generator.counterfactual(few, JOINT, **options).X)
    assert result.var_names.tolist() == list(generator.preprocessing.genes)


@solvers
def test_genes_outside_the_model_make_no_difference(generator, few, options, quiet):
    more = anndata.concat(
        [few, anndata.AnnData(few.X[:, :5] * 7, few.obs[[]], pd.DataFrame(index=list("abcde")))], axis=1
    )
    more.obs = few.obs
    result = generator.counterfactual(more, JOINT, **options)
    np.testing.assert_array_equal(result.X, generator.counterfactual(few, JOINT, **options).X)


@solvers
def test_a_repeat_is_bit_identical(generator, repository, few, options, quiet):
    """In the same session, and in a new one."""
    first = generator.counterfactual(few, JOINT, **options)
    np.testing.assert_array_equal(generator.counterfactual(few, JOINT, **options).X, first.X)
    with Generator.open(repository, threads=1, batch_size=64) as other:
        np.testing.assert_array_equal(other.counterfactual(few, JOINT, **options).X, first.X)


@pytest.mark.parametrize("form", [sparse.csc_matrix, lambda x: x.toarray(), lambda x: x.astype(np.float64)])
def test_form_of_the_matrix_makes_no_difference(generator, few, form):
    other = few.copy()
    other.X = form(few.X)
    np.testing.assert_array_equal(generator.reconstruct(other).X, generator.reconstruct(few).X)


def test_a_file_gives_what_memory_gives(generator, few, tmp_path, quiet):
    few.write_h5ad(tmp_path / "cells.h5ad")
    result = generator.counterfactual(tmp_path / "cells.h5ad", JOINT)
    expected = generator.counterfactual(few, JOINT)
    np.testing.assert_array_equal(result.X, expected.X)
    pd.testing.assert_frame_equal(result.obs, expected.obs)


def test_a_layer_is_read_in_place_of_x(generator, few):
    layered = few.copy()
    layered.layers["counts"], layered.X = few.X, few.X * 0
    np.testing.assert_array_equal(generator.reconstruct(layered, layer="counts").X, generator.reconstruct(few).X)


def test_the_cells_given_are_left_alone(generator, cells, quiet):
    given = cells[:10].copy()
    generator.counterfactual(given, JOINT)
    generator.embed(given)
    np.testing.assert_array_equal(given.X.toarray(), cells.X[:10].toarray())
    pd.testing.assert_frame_equal(given.obs, cells.obs[:10])
    assert not given.obsm
    assert not given.uns


# -- the scale of the values -------------------------------------------------------------------------------------------


@solvers
def test_normalised_values_give_what_counts_give(generator, few, options, quiet):
    """The values differ in their last bit at most, so results agree as they do across batches."""
    assert set(generator.preprocessing.normalisation_genes) == set(few.var_names)
    result = generator.counterfactual(log1p_of(few), JOINT, expression="log1p", **options)
    assert_same_cells(result, generator.counterfactual(few, JOINT, **options), few.obs_names)


def test_normalised_values_are_not_taken_for_counts(generator, few):
    with pytest.raises(ExpressionError, match=r"declared as counts, but holds .*expression=.log1p.\)"):
        generator.reconstruct(log1p_of(few))


def test_counts_are_not_taken_for_normalised_values(generator, few):
    with pytest.raises(ExpressionError, match="declared as log1p, but holds whole numbers only"):
        generator.reconstruct(few, expression="log1p")


# -- missing genes -----------------------------------------------------------------------------------------------------


def test_missing_genes_are_refused(generator, few):
    with pytest.raises(GenePanelError, match="2 of 50 panel genes are missing"):
        generator.reconstruct(few[:, ~few.var_names.isin(generator.preprocessing.genes[:2])])


def test_missing_genes_that_are_allowed_are_warned_of_and_marked(generator, few, monkeypatch):
    """With log1p values the totals do not matter: the genes that are there give what the training mean beside gives."""
    missing = list(generator.preprocessing.genes[3:5])
    values = log1p_of(few)
    with pytest.warns(CausCellWarning, match=f"2 of 50 panel genes are missing.*training mean: '{missing[0]}'"):
        result = generator.reconstruct(
            values[:, ~values.var_names.isin(missing)], expression="log1p", allow_missing_genes=0.04
        )
    assert result.var_names[result.var["filled"]].tolist() == missing
    values.X[:, values.var_names.get_indexer(missing)] = generator.preprocessing.mean[3:5]
    monkeypatch.setattr(LogScaleCheck, "check", lambda *_: None)  # with means in place of values there is no total
    np.testing.assert_array_equal(result.X, generator.reconstruct(values, expression="log1p").X)


# -- solvers and options -----------------------------------------------------------------------------------------------


def test_presets_are_the_solvers_that_they_name(generator, few):
    for name, preset in generator.manifest.presets.items():
        if preset.solver.steps <= 20:
            named, spelled = generator.reconstruct(few, preset=name), generator.reconstruct(few, **spell(preset.solver))
            np.testing.assert_array_equal(named.X, spelled.X)
            assert named.uns["causcell"]["solver"] == spelled.uns["causcell"]["solver"]


def spell(settings):
    options = {"solver": settings.solver, "spacing": settings.spacing}
    return options if settings.solver == "mean" else options | {"steps": settings.steps}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "mean", "solver": "ddim", "steps": 5}, "preset 'mean' and solver 'ddim' exclude each other"),
        ({"preset": "mean", "steps": 5}, "steps.* and eta belong to a solver"),
        ({"steps": 5}, "steps.* and eta belong to a solver"),
        ({"eta": 0.5}, "steps.* and eta belong to a solver"),
        ({"spacing": "uniform"}, "spacing"),
        ({"preset": "balanced", "spacing": "uniform"}, "spacing"),
        ({"solver": "ddim"}, "solver 'ddim' needs a number of steps"),
        ({"solver": "ddim", "steps": 0}, "0 steps are not possible; take from 1 to 1000"),
        ({"solver": "ddim", "steps": 1001}, "1001 steps are not possible; take from 1 to 1000"),
        ({"solver": "ddim", "steps": 5, "eta": 2.0}, "eta is 2.0; it goes from 0"),
        ({"solver": "ddim", "steps": 5, "spacing": "leading"}, "spacing 'leading' is not known"),
        ({"solver": "ddpm", "steps": 5, "eta": 0.5}, "eta belongs to ddim"),
        ({"solver": "mean", "steps": 5}, "mean estimate is one evaluation"),
        ({"solver": "euler", "steps": 5}, "solver 'euler' is not known"),
        ({"preset": "fast"}, "no preset 'fast'; this model has 'draw', 'balanced', 'accurate', 'mean'"),
        ({"mode": "see"}, "mode 'see' is not known"),
        ({"draws": 0}, "draws=0: take at least 1"),
        ({"solver": "ddim", "steps": 2.5}, "steps=2.5: take a whole number"),
        ({"solver": "ddim", "steps": True}, "steps=True: take a whole number"),
        ({"solver": "ddim", "steps": 5, "eta": "1"}, "eta='1': take a number"),
        ({"solver": "ddim", "steps": 5, "eta": float("nan")}, "eta is nan; it goes from 0"),
        ({"allow_missing_genes": float("nan")}, "allow_missing_genes=nan is no fraction"),
        ({"seed": -1}, "seed=-1: take at least 0"),
        ({"expression": "tpm"}, "expression scale 'tpm' is not known"),
        ({"allow_missing_genes": 1.0}, "allow_missing_genes=1.0 is no fraction from 0 to below 1"),
    ],
)
def test_options_that_are_not_allowed(generator, few, options, message):
    with pytest.raises(ConfigurationError, match=message):
        generator.counterfactual(few, {"stim": "IFN"}, **options)


@pytest.mark.parametrize(
    ("do", "grid", "given"), [("stim=IFN", (), "stim=IFN"), (["stim=IFN"], (), "stim=IFN"), ({}, "stim", "stim")]
)
def test_text_where_a_mapping_or_a_list_belongs(generator, few, do, grid, given):
    """It is how the command line says it, not Python; the message names what was given, not its letters."""
    with pytest.raises(CausCellError, match=f"'{given}'") as caught:
        generator.counterfactual(few, do, grid=grid)
    assert "'s'" not in str(caught.value)


@pytest.mark.parametrize("size", [0, -1, 2**21, True, 2.0, "64"])
def test_batch_size_out_of_range(repository, size):
    with pytest.raises(ConfigurationError, match=r"^batch_size=.*: take (at least 1|at most 1048576|a whole number)"):
        Generator.open(repository, batch_size=size)


def test_a_closed_generator_and_closed_cells_say_so(repository, few):
    with Generator.open(repository, threads=1) as opened:
        with opened.bind(open_cells(few)) as cells:
            assert len(cells.read(slice(0, 1)).names) == 1
        with pytest.raises(DataError, match="these cells are closed"):
            cells.read(slice(0, 1))
    with pytest.raises(EngineError, match="is closed; open the model again"):
        opened.counterfactual(few, {"stim": "IFN"})
