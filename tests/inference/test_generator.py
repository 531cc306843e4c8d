"""What users do with cells and a model: results do not depend on how the cells were handed over.

Where a batch changes, results agree within 1e-4 (float32 sums in another order); where it does not, bit for bit.
"""

import warnings
from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from simulation import CONCEPTS

from causcell.cells.collection import Cells
from causcell.counterfactual.interventions import plan_interventions
from causcell.counterfactual.request import Request
from causcell.diffusion.sampling import sample
from causcell.diffusion.solvers import SolverSettings, ddpm
from causcell.errors import CausCellError, CausCellWarning, ConfigurationError, ExpressionError, GenePanelError
from causcell.generator import Generator
from causcell.randomness import CellNoise, Purpose, cell_keys, normals
from causcell.repository.manifest import logits_name

TOLERANCE = 1e-4
JOINT = {"stim": "IFN", "cell_type": "T"}
SOLVERS = {
    "mean": {"preset": "mean"},
    "draw": {"preset": "draw"},
    "draws": {"solver": "draw", "steps": 5, "draws": 2},
    "deterministic": {"solver": "ddim", "steps": 20},
    "ancestral": {"solver": "ddpm", "steps": 10, "draws": 2},
}

solvers = pytest.mark.parametrize("options", SOLVERS.values(), ids=SOLVERS)


@pytest.fixture(scope="module")
def few(cells):
    """Cells of a batch and a half; treat as read-only."""
    return cells[:96].copy()


@pytest.fixture
def quiet():
    """For tests that do not look at warnings of unseen combinations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausCellWarning)
        yield


def by_name(result, names):
    """Expression and annotations of a result's rows for cells, in the order of their names."""
    rows = pd.Index(result.obs["source_cell"].astype(str)).get_indexer_for(names)
    return result.X[rows], result.obs.iloc[rows].astype(str)


def assert_same_cells(result, expected, names, tolerance=TOLERANCE):
    """One value in a thousand may differ by more: draws decide between zero and a slab whose quantiles are steep."""
    x, obs = by_name(result, names)
    expected_x, expected_obs = by_name(expected, names)
    assert (np.abs(x - expected_x) > tolerance).mean() <= 1e-3
    pd.testing.assert_frame_equal(obs[list(CONCEPTS)], expected_obs[list(CONCEPTS)])


# -- results do not depend on how cells are handed over ----------------------------------------------------------------


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


# -- factual and counterfactual ----------------------------------------------------------------------------------------


@solvers
def test_reconstruct_is_no_intervention(generator, few, options):
    result = generator.reconstruct(few, **options)
    for expected in (generator.counterfactual(few, **options), generator.counterfactual(few, {}, **options)):
        np.testing.assert_array_equal(result.X, expected.X)
        pd.testing.assert_frame_equal(result.obs, expected.obs)


def test_no_intervention_may_be_given_as_none(generator, few):
    """As the docstring says: None is the factual cell."""
    np.testing.assert_array_equal(generator.counterfactual(few, do=None).X, generator.reconstruct(few).X)


@solvers
@pytest.mark.parametrize("mode", ["do", "exogenous", "isolated"])
def test_an_intervention_without_effect_is_the_factual_row(generator, few, options, mode, quiet):
    """Bit for bit, for samples too: a cell's noise is shared between its factual and counterfactual rows."""
    result = generator.counterfactual(few, [{}, {"stim": "IFN"}], mode=mode, **options)
    carries = (result.obs["stim_factual"] == "IFN").to_numpy()
    factual = (result.obs["intervention"] == "factual").to_numpy()
    assert 0 < carries.sum() < len(carries)
    np.testing.assert_array_equal(result.X[factual & carries], result.X[~factual & carries])
    assert (result.X[factual & ~carries] != result.X[~factual & ~carries]).any(axis=1).all()


@solvers
def test_factual_rows_do_not_depend_on_the_interventions_beside_them(generator, few, options, quiet):
    result = generator.counterfactual(few, [{"stim": "IFN"}, {}], **options)
    factual = (result.obs["intervention"] == "factual").to_numpy()
    np.testing.assert_array_equal(result.X[factual], generator.reconstruct(few, **options).X)


def test_a_grid_is_its_interventions_one_by_one(generator, few, quiet):
    grid = generator.counterfactual(few, grid=["stim"], preset="balanced")
    for label in ("IFN", "ctrl"):
        alone = generator.counterfactual(few, {"stim": label}, preset="balanced")
        np.testing.assert_array_equal(grid[grid.obs["intervention"] == f"stim={label}"].X, alone.X)


# -- randomness --------------------------------------------------------------------------------------------------------


def test_the_factual_mean_does_not_depend_on_the_seed(generator, few):
    a, b = (generator.reconstruct(few, preset="mean", seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(a.X, b.X)


def test_the_counterfactual_mean_depends_on_the_seed_by_its_reference_cells(generator, few, quiet):
    a, b = (generator.counterfactual(few, {"stim": "IFN"}, preset="mean", seed=seed) for seed in (0, 1))
    changed = (a.obs["stim_factual"] != "IFN").to_numpy()
    np.testing.assert_array_equal(a.X[~changed], b.X[~changed])
    assert (a.X[changed] != b.X[changed]).any(axis=1).mean() > 0.9


@pytest.mark.parametrize("solver", ["ddim", "ddpm"])
def test_samples_depend_on_the_seed(generator, few, solver):
    a, b = (generator.reconstruct(few, solver=solver, steps=5, seed=seed) for seed in (0, 1))
    assert (a.X != b.X).any(axis=1).all()


@pytest.mark.parametrize("options", [{"preset": "mean"}, {"preset": "balanced"}], ids=["mean", "sample"])
def test_draws_differ(generator, few, options):
    result = generator.reconstruct(few, draws=3, **options)
    x = result.X.reshape(96, 3, -1)
    assert (x[:, 0] != x[:, 1]).any(axis=1).all()
    assert (x[:, 1] != x[:, 2]).any(axis=1).all()


def test_a_sample_is_one_of_its_embeddings_too(generator, few):
    """Of a posterior whose moments are the encoder's; a mean is that of the mean."""
    embedded = generator.embed(few)
    own = embedded.obsm["X_causcell"]
    mean = generator.reconstruct(few, preset="mean", store="embeddings").obsm["X_causcell"]
    np.testing.assert_array_equal(mean, own)
    drawn = generator.reconstruct(few, draws=400, store="embeddings").obsm["X_causcell"].reshape(96, 400, -1)
    one = generator.reconstruct(few, store="embeddings").obsm["X_causcell"]
    np.testing.assert_array_equal(one, drawn[:, 0])
    first = CONCEPTS[0]
    assert not generator.schema.parents(generator.schema.index(first))  # its endogenous embedding is the exogenous one
    k = generator.manifest.dimensions.embedding
    expression = Cells(few).read(generator.reader(Cells(few)), slice(0, 96))
    logvar = generator.engine.run("encoder_scm", {"expression": expression}, ("exogenous_logvar",))["exogenous_logvar"]
    deviation = np.exp(0.5 * logvar[:, generator.schema.index(first)])
    error = (drawn[..., :k].mean(axis=1) - own[:, :k]) / deviation * np.sqrt(400)
    assert np.abs(error).max() < 5
    assert error.std() == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(drawn[..., :k].std(axis=1), deviation, rtol=0.2)


class Echo:
    """An engine whose denoiser answers x_t itself, so that results are made of the noise alone."""

    def __init__(self, engine):
        self.manifest, self.reference, self.description = engine.manifest, engine.reference, "echo"
        self._engine = engine
        self.concurrency = 1

    def run(self, graph, inputs, outputs=None):
        return {"x0": inputs["x_t"]} if graph == "denoiser" else self._engine.run(graph, inputs, outputs)

    def close(self):
        """Nothing is held."""


def test_noise_is_keyed_by_cell_purpose_draw_and_step(generator, few, quiet):
    """Written out for three steps of ancestral sampling; 1e-5 for float32 sums of a few numbers of order 1."""
    echo = Generator(Echo(generator.engine), batch_size=64)
    result = echo.counterfactual(few, {"stim": "IFN"}, solver="ddpm", steps=3, draws=2, seed=9)
    keys, table = cell_keys(9, few.obs_names), ddpm(generator.manifest.schedule, 3).table
    for draw in (0, 1):
        x = normals(keys, 50, Purpose.INITIAL_NOISE, draw=draw)
        for step in (0, 1):
            a, b, _, s = table[step, 1:]
            x = (a + b) * x + s * normals(keys, 50, Purpose.STEP_NOISE, draw=draw, step=step)
        expected = generator.preprocessing.expression(x)
        np.testing.assert_allclose(result[result.obs["draw"] == draw].X, expected, atol=1e-5)


@pytest.mark.parametrize("options", [("ddim", 1), ("ddim", 12), ("dpmpp", 7), ("dpmpp", 20), ("mean", 1)], ids=str)
def test_the_fused_loop_is_the_clients(generator, few, options):
    """1e-4, of which one value in a thousand may be more: each step magnifies differences between zero and slab."""
    settings = SolverSettings(*options)
    solver, keys, genes = settings.build(generator.manifest.schedule), cell_keys(5, few.obs_names), 50
    z = generator.embed(few).obsm["X_causcell"].reshape(len(few), -1, generator.manifest.dimensions.embedding)

    def denoise(x, t):
        timestep = np.full((len(x), 1), t, dtype=np.int64)
        return generator.engine.run("denoiser", {"x_t": x, "timestep": timestep, "endogenous": z})["x0"]

    x0 = sample(
        denoise,
        solver,
        (len(few), genes),
        initial_noise=lambda: normals(keys, genes, Purpose.INITIAL_NOISE),
        step_noise=lambda step: pytest.fail("a deterministic solver takes no fresh noise"),
    )
    expected = generator.preprocessing.expression(x0)
    fused = generator.decode(z, CellNoise(keys, genes), solver)
    assert (np.abs(fused - expected) / (1 + expected) > 1e-4).mean() <= 1e-3


def test_a_draw_does_not_depend_on_how_many_there_are(generator, few, quiet):
    two, three = (generator.counterfactual(few, {"stim": "IFN"}, preset="balanced", draws=draws) for draws in (2, 3))
    np.testing.assert_array_equal(three[three.obs["draw"] < 2].X, two.X)


# -- the form of results -----------------------------------------------------------------------------------------------


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


def test_missing_genes_are_refused(generator, few):
    with pytest.raises(GenePanelError, match="2 of 50 panel genes are missing"):
        generator.reconstruct(few[:, ~few.var_names.isin(generator.preprocessing.genes[:2])])


def test_missing_genes_that_are_allowed_are_warned_of_and_marked(generator, few):
    """With log1p values the totals do not matter: the genes that are there give what the training mean beside gives."""
    missing = list(generator.preprocessing.genes[3:5])
    values = log1p_of(few)
    with pytest.warns(CausCellWarning, match=f"2 of 50 panel genes are missing.*training mean: '{missing[0]}'"):
        result = generator.reconstruct(
            values[:, ~values.var_names.isin(missing)], expression="log1p", allow_missing_genes=0.04
        )
    assert result.var_names[result.var["filled"]].tolist() == missing
    values.X[:, values.var_names.get_indexer(missing)] = generator.preprocessing.mean[3:5]
    np.testing.assert_array_equal(result.X, generator.reconstruct(values, expression="log1p").X)


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
    np.testing.assert_array_equal(result.X, generator.reconstruct(few).X)
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


# -- embeddings --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedded(generator, few):
    return generator.embed(few)


def test_embeddings_by_concept_and_side_by_side(embedded, few):
    blocks = [embedded.obsm[f"X_causcell_{name}"] for name in (*CONCEPTS, "unexplained")]
    assert set(embedded.obsm) == {
        "X_causcell",
        "X_causcell_exogenous",
        *(f"X_causcell_{name}" for name in (*CONCEPTS, "unexplained")),
    }
    assert all(block.shape == (96, 8) and block.dtype == np.float32 for block in blocks)
    np.testing.assert_array_equal(embedded.obsm["X_causcell"], np.concatenate(blocks, axis=1))
    assert embedded.obs_names.tolist() == few.obs_names.tolist()
    assert embedded.X is None


def test_embeddings_follow_the_graph(embedded, generator):
    """z = A^T z + eps; 1e-5 for sums of a few float32 numbers."""
    z, eps = (embedded.obsm[f"X_causcell{kind}"].reshape(96, 5, 8) for kind in ("", "_exogenous"))
    np.testing.assert_allclose(z, np.einsum("ij,bik->bjk", generator.schema.adjacency(), z) + eps, atol=1e-5)
    assert (z != eps).any()


def test_obs_is_kept_and_predictions_are_added(embedded, generator, few):
    pd.testing.assert_frame_equal(embedded.obs[list(CONCEPTS)], few.obs[list(CONCEPTS)])
    assert embedded.obs.columns.tolist() == [*CONCEPTS, *(f"{concept}_predicted" for concept in CONCEPTS)]
    eps = embedded.obsm["X_causcell_exogenous"].reshape(96, 5, 8)
    outputs = generator.engine.run(
        "scm", {"exogenous": eps, "forced": eps, "mask": np.zeros((96, 5), dtype=np.float32)}
    )
    for concept in generator.schema.concepts:
        predicted = np.array(concept.labels)[outputs[logits_name(concept.name)].argmax(axis=1)]
        assert embedded.obs[f"{concept.name}_predicted"].tolist() == predicted.tolist()


def test_embedding_options(generator, few, embedded):
    """1e-4: the cells stand in another batch."""
    result = generator.embed(few, where="stim == 'IFN'", key_added="X_other")
    chosen = (few.obs["stim"] == "IFN").to_numpy()
    assert result.obs_names.tolist() == few.obs_names[chosen].tolist()
    np.testing.assert_allclose(result.obsm["X_other"], embedded.obsm["X_causcell"][chosen], atol=TOLERANCE)
    assert "X_other_stim" in result.obsm


def test_embedding_provenance(embedded, generator):
    assert embedded.uns["causcell"]["model_digest"] == generator.manifest.digest


def test_embeddings_can_be_saved(embedded, tmp_path):
    embedded.write_h5ad(tmp_path / "embedded.h5ad")
    read = anndata.read_h5ad(tmp_path / "embedded.h5ad")
    np.testing.assert_array_equal(read.obsm["X_causcell"], embedded.obsm["X_causcell"])


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
        ({"draws": 0}, "draws is 0; take at least 1"),
        ({"seed": -1}, "seed -1 is out of range"),
        ({"expression": "tpm"}, "expression scale 'tpm' is not known"),
        ({"allow_missing_genes": 1.0}, "allow_missing_genes is 1.0"),
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


def test_batch_size_out_of_range(repository):
    with pytest.raises(ConfigurationError, match="batch size is 0; take at least 1"):
        Generator.open(repository, batch_size=0)


# -- expression --------------------------------------------------------------------------------------------------------


def log1p_of(cells):
    """The cells with log1p values normalised over all genes, which are the model's genes of a cell's total."""
    counts = cells.X.toarray().astype(float)
    values = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4).astype(np.float32)
    return anndata.AnnData(values, cells.obs.copy(), cells.var.copy())


@solvers
def test_normalised_values_give_what_counts_give(generator, few, options, quiet):
    """The values differ in their last bit at most, so results agree as they do across batches."""
    assert set(generator.preprocessing.normalisation_genes) == set(few.var_names)
    result = generator.counterfactual(log1p_of(few), JOINT, expression="log1p", **options)
    assert_same_cells(result, generator.counterfactual(few, JOINT, **options), few.obs_names)


def test_normalised_values_are_not_taken_for_counts(generator, few):
    with pytest.raises(ExpressionError, match=r"declared as counts, but holds .*--expression log1p"):
        generator.reconstruct(log1p_of(few))


def test_counts_are_not_taken_for_normalised_values(generator, few):
    with pytest.raises(ExpressionError, match="declared as log1p, but holds whole numbers only"):
        generator.reconstruct(few, expression="log1p")


def test_counts_are_refused_by_a_model_of_normalised_values(generator, few):
    """How its training file was normalised is not known."""
    other = Generator(generator.engine)
    other.preprocessing = replace(generator.preprocessing, scale="log1p", normalisation_genes=())
    with pytest.raises(ConfigurationError, match="trained on log1p values as given"):
        other.reader(Cells(few), "counts")


# -- half the bytes ----------------------------------------------------------------------------------------------------


@solvers
def test_float16_is_float32_rounded(generator, few, options):
    """Whichever graph or loop gives it: decoder, sampler, or the client's own."""
    chosen = {name: value for name, value in options.items() if name != "draws"}
    request = Request(plan_interventions(generator.schema, JOINT), generator.solver_settings(**chosen))
    with Cells(few) as opened:
        reader = generator.reader(opened)
        blocks = {
            dtype: [each.arrays["X"] for each in generator.generate(opened, reader, replace(request, dtype=dtype))]
            for dtype in ("float32", "float16")
        }
    rounded = np.concatenate(blocks["float32"]).astype(np.float16)
    np.testing.assert_array_equal(np.concatenate(blocks["float16"]), rounded, strict=True)


def test_a_type_that_is_none_is_refused(generator):
    with pytest.raises(ConfigurationError, match="dtype 'float64' is not known; known are 'float32', 'float16'"):
        Request((), generator.solver_settings(preset="mean"), dtype="float64")
