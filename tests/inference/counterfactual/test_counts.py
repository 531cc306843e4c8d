"""Counts of sampled cells: whole numbers with the sample's zeros and the cell's total; what they are refused for."""

from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
from atlases import GENES, SMALL, AtlasRecipe, stop_after, tree
from scipy import sparse
from simulation import counts as counts_of

from causcell.atlas.executors import Processes
from causcell.atlas.journal import Journal
from causcell.atlas.materialize import materialize_atlas
from causcell.atlas.verify import verify_atlas
from causcell.counterfactual.counts import LARGEST_COUNT, check_counts, panel_totals, share_out
from causcell.counterfactual.request import Request, make_request
from causcell.errors import AtlasError, ConfigurationError, ExpressionError
from causcell.generator import Generator
from causcell.plot import intervention_effects

pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")

DO = [{}, {"stim": "IFN"}]
FLIPS = 1e-3
"""Share of counts that may differ by one between ways to compute a sample that agree to its last bits: a value within
1e-6 of the middle between two whole numbers is rounded either way."""


def samples(cells: int = 40, genes: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Samples of expression, most of it zero, and totals."""
    rng = np.random.default_rng(seed)
    expression = rng.normal(2, 1.5, (cells, genes)).astype(np.float32) * (rng.random((cells, genes)) < 0.4)
    return np.maximum(expression, 0), rng.integers(genes, 5000, cells).astype(np.float64)


# -- the law -----------------------------------------------------------------------------------------------------------


def test_zeros_are_the_samples_and_all_else_is_at_least_one() -> None:
    expression, totals = samples()
    counts = share_out(expression, totals)
    assert counts.dtype == np.int32
    np.testing.assert_array_equal(counts > 0, expression > 0)


def test_counts_sum_to_the_total_but_for_rounding() -> None:
    """Half a count for each value at most; far less, as they cancel."""
    expression, totals = samples()
    off = share_out(expression, totals).sum(axis=1) - totals
    assert np.abs(off).max() <= (expression > 0).sum(axis=1).max() / 2
    assert np.abs(off).mean() < 3


def test_larger_samples_have_no_smaller_counts() -> None:
    expression, totals = samples()
    counts = share_out(expression, totals)
    for x, c in zip(expression, counts, strict=True):
        assert (np.diff(c[np.argsort(x, kind="stable")]) >= 0).all()


def test_a_cells_counts_do_not_hang_on_other_cells() -> None:
    """Bit for bit: a row alone, or among others with other numbers of values below one count."""
    expression, totals = samples()
    whole = share_out(expression, totals)
    for row in range(0, len(expression), 7):
        np.testing.assert_array_equal(share_out(expression[row : row + 1], totals[row : row + 1])[0], whole[row])


def test_the_log_values_of_real_cells_give_their_counts_back(cells: anndata.AnnData) -> None:
    """Whatever part of the cells' genes the panel is."""
    real, library = counts_of(cells), np.asarray(cells.X.sum(axis=1), dtype=np.float64).ravel()
    for panel in (slice(0, 60), slice(3, 40)):
        x = np.log1p(real[:, panel] * (1e4 / library)[:, None]).astype(np.float32)
        totals = panel_totals(x, library)
        np.testing.assert_allclose(totals, real[:, panel].sum(axis=1), rtol=1e-5)
        np.testing.assert_array_equal(share_out(x, totals), real[:, panel])


def test_a_sample_with_more_values_than_counts_has_one_each() -> None:
    expression, _ = samples()
    np.testing.assert_array_equal(share_out(expression, np.zeros(len(expression))), expression > 0)


def test_cells_without_a_value_have_no_counts() -> None:
    expression, totals = samples(4)
    expression[[0, 2]] = 0
    counts = share_out(expression, totals)
    assert not counts[[0, 2]].any()
    assert counts[[1, 3]].any(axis=1).all()
    assert not share_out(np.zeros((2, 5), dtype=np.float32), np.ones(2)).any()


def test_totals_beyond_int32_are_refused() -> None:
    with pytest.raises(ExpressionError, match=r"library size of 2,147,483,647 would have .* counts are int32"):
        panel_totals(np.full((1, 2), 9.3, dtype=np.float32), np.array([float(LARGEST_COUNT)]))


# -- results -----------------------------------------------------------------------------------------------------------


def test_counts_are_those_of_the_same_samples(generator: Generator, few: anndata.AnnData) -> None:
    counts, sampled = (
        generator.counterfactual(few, DO, store=store, draws=2, seed=3) for store in ("counts", "expression")
    )
    assert counts.X.dtype == np.int32
    np.testing.assert_array_equal(counts.X > 0, sampled.X > 0)
    library = np.repeat(np.asarray(few.X.sum(axis=1), dtype=np.float64).ravel(), 4)
    np.testing.assert_array_equal(counts.obs["library_size"], library)
    pd.testing.assert_frame_equal(counts.obs.drop(columns="library_size"), sampled.obs)
    panel = np.repeat(counts_of(few[:, list(generator.preprocessing.genes)]).sum(axis=1), 4)
    assert np.abs(counts.X.sum(axis=1) - panel).max() <= GENES / 2
    assert (counts.uns["causcell"]["expression"], counts.uns["causcell"]["library_size"]) == ("counts", "own")
    assert counts.uns["causcell"]["X"].startswith("counts of a sampled cell: the panel's part")
    assert "log1p" not in counts.uns
    assert sampled.uns["causcell"]["expression"] == "log1p"
    assert "library_size" not in sampled.uns["causcell"]


def test_cells_that_an_intervention_does_not_change_keep_their_counts(
    generator: Generator, few: anndata.AnnData
) -> None:
    """Under the same noise a cell that carries the label already is the factual cell, bit for bit."""
    result = generator.counterfactual(few, DO, store="counts", seed=3)
    factual, acted = result.X[::2], result.X[1::2]
    carries = (few.obs["stim"] == "IFN").to_numpy()
    np.testing.assert_array_equal(acted[carries], factual[carries])
    assert (acted[~carries] != factual[~carries]).any(axis=1).mean() > 0.9


@pytest.mark.parametrize("solver", [{"preset": "draw"}, {"solver": "draw", "steps": 4}])
def test_every_solver_that_draws_gives_counts(generator: Generator, few: anndata.AnnData, solver: dict) -> None:
    assert generator.reconstruct(few, store="counts", **solver).X.sum() > 0


def test_one_library_size_for_all_cells(generator: Generator, few: anndata.AnnData) -> None:
    """The zeros are those of the cell's own depth."""
    own, fixed = (generator.reconstruct(few, store="counts", library_size=size) for size in (None, 20000))
    np.testing.assert_array_equal(own.X > 0, fixed.X > 0)
    assert set(fixed.obs["library_size"]) == {20000.0}
    assert fixed.uns["causcell"]["library_size"] == 20000
    share = counts_of(few[:, list(generator.preprocessing.genes)]).sum(axis=1) / np.asarray(few.X.sum(axis=1)).ravel()
    np.testing.assert_allclose(fixed.X.sum(axis=1), 20000 * share, atol=GENES / 2)


def test_log1p_cells_take_a_library_size(generator: Generator, few: anndata.AnnData) -> None:
    """They do not tell their own; told, counts are those of the same cells given as counts."""
    values = counts_of(few)
    x = sparse.csr_matrix(np.log1p(values * (1e4 / values.sum(axis=1))[:, None]).astype(np.float32))
    given = anndata.AnnData(x, obs=few.obs, var=few.var)
    with pytest.raises(ConfigurationError, match=r"given as log1p values.*\(library_size=10000\)"):
        generator.reconstruct(given, store="counts", expression="log1p")
    made = generator.reconstruct(given, store="counts", expression="log1p", library_size=3000).X
    expected = generator.reconstruct(few, store="counts", library_size=3000).X
    assert np.abs(made - expected).max() <= 1
    assert (made != expected).mean() <= FLIPS


def test_the_batch_size_and_the_other_cells_change_nothing(
    generator: Generator, repository: str, few: anndata.AnnData
) -> None:
    whole = generator.counterfactual(few, DO, store="counts").X
    with Generator.open(repository, threads=1, batch_size=10) as other:
        some = other.counterfactual(few[::-1][:30].copy(), DO, store="counts").X.reshape(30, 2, -1)[::-1]
    different = some.reshape(60, -1) - whole[-60:]
    assert np.abs(different).max() <= 1
    assert (different != 0).mean() <= FLIPS


def test_figures_are_of_expression(generator: Generator, few: anndata.AnnData) -> None:
    """Counts are refused until they are brought to the log scale."""
    counts = generator.counterfactual(few, DO, store="counts")
    with pytest.raises(ConfigurationError, match=r"the results hold counts; take log1p of counts per 10,000 first"):
        intervention_effects(counts)
    counts.X = np.log1p(counts.X * (1e4 / counts.obs["library_size"].to_numpy()[:, None]))
    assert np.isfinite(intervention_effects(counts).to_numpy()).all()


# -- atlases -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recipe(generator: Generator, cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> AtlasRecipe:
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    cells[:150].write_h5ad(path)
    return AtlasRecipe(generator, path, {"do": DO, "seed": 1, "store": "counts", **SMALL})


def test_an_atlas_of_counts_is_the_result_in_memory(generator: Generator, recipe: AtlasRecipe, tmp_path) -> None:
    """int32 with its library sizes, sound, the same by processes, and planned as such."""
    recipe.write(tmp_path / "atlas.zarr", shard_size=10**6)
    read = anndata.read_zarr(tmp_path / "atlas.zarr")
    made = generator.counterfactual(recipe.cells, DO, seed=1, store="counts")
    assert read.X.dtype == np.int32
    np.testing.assert_array_equal(read.X.toarray() if sparse.issparse(read.X) else read.X, made.X)
    pd.testing.assert_frame_equal(read.obs, made.obs)
    assert verify_atlas(tmp_path / "atlas.zarr").sound
    one, many = tmp_path / "one.zarr", tmp_path / "many.zarr"
    recipe.write(one)
    recipe.write(many, executor=Processes(2))
    assert tree(one) == tree(many)
    plan = Journal(one).require_plan()
    assert plan.array_dtype("X") == "int32"
    assert "counts (sample), int32" in plan.describe()["holds"]


def test_an_interrupted_atlas_is_finished_bit_for_bit(recipe: AtlasRecipe, tmp_path, monkeypatch) -> None:
    recipe.write(tmp_path / "whole.zarr")
    with monkeypatch.context() as patch:
        stop_after(patch, 2, RuntimeError("killed"))
        with pytest.raises(RuntimeError, match="killed"):
            recipe.write(tmp_path / "atlas.zarr")
    recipe.write(tmp_path / "atlas.zarr")
    assert tree(tmp_path / "atlas.zarr") == tree(tmp_path / "whole.zarr")


def test_a_library_size_is_part_of_the_plan_where_it_is_used(recipe: AtlasRecipe) -> None:
    own, fixed = recipe.plan(), recipe.plan(library_size=2000)
    assert own.digest != fixed.digest
    assert "library_size" not in own.model_dump()["request"]
    assert "library_size" not in recipe.plan(store="expression").model_dump()["request"]
    assert fixed.model_dump()["request"]["library_size"] == 2000
    assert any(text.startswith("library_size") for text in own.differences(fixed))


def test_an_h5ad_of_counts(recipe: AtlasRecipe, tmp_path) -> None:
    recipe.write(tmp_path / "atlas.h5ad")
    read = anndata.read_h5ad(tmp_path / "atlas.h5ad")
    assert read.X.dtype == np.int32
    assert read.obs["library_size"].dtype == np.float64


def test_a_served_model_gives_the_same_counts(server, generator: Generator, few: anndata.AnnData) -> None:
    with Generator.open(server.grpc, batch_size=64) as served:
        there = served.counterfactual(few, DO, store="counts", seed=2).X
    here = generator.counterfactual(few, DO, store="counts", seed=2).X
    assert (there != here).mean() <= FLIPS


def test_cells_that_do_not_tell_their_totals_are_told_before_anything_is_written(
    recipe: AtlasRecipe, tmp_path, few: anndata.AnnData
) -> None:
    given = few.copy()
    given.X = sparse.csr_matrix(np.log1p(counts_of(few) * (1e4 / counts_of(few).sum(axis=1))[:, None]))
    with pytest.raises(ConfigurationError, match="do not tell their library sizes"):
        recipe.write(tmp_path / "atlas.zarr", given, expression="log1p")
    assert not (tmp_path / "atlas.zarr").exists()


def test_counts_are_not_made_from_an_atlas_of_embeddings(generator: Generator, recipe: AtlasRecipe, tmp_path) -> None:
    """Which holds embeddings alone, and gives expression."""
    recipe.write(tmp_path / "counts.zarr")
    with pytest.raises(AtlasError, match=r"holds counts; give an atlas made with store='embeddings'"):
        materialize_atlas(generator.model, tmp_path / "counts.zarr", tmp_path / "made.zarr")


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "mean"}, r"solver 'mean' does not draw its result.*\(solver='draw'\)"),
        ({"solver": "ddim", "steps": 3}, "solver 'ddim' does not draw its result"),
        ({"solver": "ddpm", "steps": 3}, "solver 'ddpm' does not draw its result"),
    ],
)
def test_solvers_that_do_not_draw(generator: Generator, few: anndata.AnnData, options, message: str) -> None:
    for ask in (generator.counterfactual, generator.plan_atlas):
        with pytest.raises(ConfigurationError, match=message):
            ask(few, {"stim": "IFN"}, store="counts", **options)


def test_models_of_log1p_values(generator: Generator) -> None:
    manifest = generator.manifest
    expression = manifest.expression.model_copy(update={"scale": "log1p"})
    solver = manifest.preset(None).solver
    with pytest.raises(ConfigurationError, match="trained on log1p values, which do not tell the totals of counts"):
        check_counts(manifest.model_copy(update={"expression": expression}), solver)
    check_counts(manifest, solver)


def test_a_concept_of_the_columns_name(generator: Generator) -> None:
    first, *others = generator.manifest.concepts
    named = generator.manifest.model_copy(
        update={"concepts": (replace(first, name="library_size"), *others), "edges": ()}
    )
    with pytest.raises(ConfigurationError, match="a concept of this model is called 'library_size'"):
        check_counts(named, generator.manifest.preset(None).solver)


def test_nothing_else_takes_a_library_size_and_counts_no_type(generator: Generator) -> None:
    given = make_request(generator.manifest, store="counts")
    with pytest.raises(ConfigurationError, match=r"library_size=5 is the total that counts .* store='expression' has"):
        Request(interventions=given.interventions, settings=given.settings, library_size=5)
    with pytest.raises(ConfigurationError, match=r"dtype='float16' is a type of expression, and counts .* are int32"):
        make_request(generator.manifest, store="counts", dtype="float16")
    for size in (0, True, 2**31):
        with pytest.raises(ConfigurationError, match=f"library_size={size}: take"):
            make_request(generator.manifest, store="counts", library_size=size)
