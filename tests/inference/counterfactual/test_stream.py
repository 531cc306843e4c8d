"""Factual and counterfactual results beside each other, and what they are random in.

Everything here holds bit for bit: a cell's random numbers are its own, whatever is generated beside it.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from results import JOINT, solvers
from simulation import CONCEPTS

from causcell.cells.collection import open_cells
from causcell.concepts import ConceptSchema
from causcell.counterfactual.request import make_request
from causcell.generator import Generator

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


# -- seed and draws ----------------------------------------------------------------------------------------------------


def test_the_factual_mean_does_not_depend_on_the_seed(generator, few):
    a, b = (generator.reconstruct(few, preset="mean", seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(a.X, b.X)


def test_the_counterfactual_mean_depends_on_the_seed_by_its_reference_cells(generator, few, quiet):
    a, b = (generator.counterfactual(few, {"stim": "IFN"}, preset="mean", seed=seed) for seed in (0, 1))
    changed = (a.obs["stim_factual"] != "IFN").to_numpy()
    np.testing.assert_array_equal(a.X[~changed], b.X[~changed])
    assert (a.X[changed] != b.X[changed]).any(axis=1).mean() > 0.9


def test_what_is_kept_of_the_cell_itself_is_not_drawn(generator, few, quiet):
    """The mean under target='own' has no seed, and depends on the cell alone."""
    means = [
        generator.counterfactual(few, {"stim": "IFN"}, target="own", preset="mean", seed=seed).X for seed in (0, 1)
    ]
    np.testing.assert_array_equal(*means)
    alone = generator.counterfactual(few[2:5].copy(), {"stim": "IFN"}, target="own", preset="mean")
    np.testing.assert_array_equal(alone.X, means[0][2:5])
    drawn = generator.counterfactual(few, {"stim": "IFN"}, preset="mean")
    other = (few.obs["stim"] != "IFN").to_numpy()
    assert (means[0] != drawn.X).any(axis=1).tolist() == other.tolist()
    assert alone.uns["causcell"]["target"] == "own"


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


def test_a_draw_does_not_depend_on_how_many_there_are(generator, few, quiet):
    two, three = (generator.counterfactual(few, {"stim": "IFN"}, preset="balanced", draws=draws) for draws in (2, 3))
    np.testing.assert_array_equal(three[three.obs["draw"] < 2].X, two.X)


def test_a_sample_is_one_of_its_embeddings_too(generator, few):
    """A sample comes with a draw from the encoder's posterior; a mean comes with the posterior's mean.

    Cells have no labels here, which would move both.
    """
    few = few.copy()
    few.obs = few.obs[[]]
    embedded = generator.embed(few)
    own = embedded.obsm["X_causcell"]
    mean = generator.reconstruct(few, preset="mean", store="embeddings").obsm["X_causcell"]
    np.testing.assert_allclose(mean, own, atol=1e-5)  # they go through the graph of abduction, which adds nothing
    drawn = generator.reconstruct(few, draws=400, store="embeddings").obsm["X_causcell"].reshape(96, 400, -1)
    one = generator.reconstruct(few, store="embeddings").obsm["X_causcell"]
    np.testing.assert_array_equal(one, drawn[:, 0])
    first = CONCEPTS[0]
    assert not generator.schema.parents(generator.schema.index(first))  # its endogenous embedding is the exogenous one
    k = generator.manifest.dimensions.embedding
    with generator.bind(open_cells(few)) as bound:
        expression = bound.read(slice(0, 96)).expression
    logvar = generator.engine.run("encoder_scm", {"expression": expression}, ("exogenous_logvar",))["exogenous_logvar"]
    deviation = np.exp(0.5 * logvar[:, generator.schema.index(first)])
    error = (drawn[..., :k].mean(axis=1) - own[:, :k]) / deviation * np.sqrt(400)
    assert np.abs(error).max() < 5
    assert error.std() == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(drawn[..., :k].std(axis=1), deviation, rtol=0.2)


@solvers
def test_a_known_label_informs_abduction(generator, few, options):
    """It moves the cell's own embedding of the concept, and what follows from it by the graph; no other."""
    hidden = few.copy()
    hidden.obs["stim"] = np.nan
    schema, k = generator.schema, generator.manifest.dimensions.embedding
    stim = schema.index("stim")
    told, untold = (
        generator.reconstruct(each, store="embeddings", **options).obsm["X_causcell"].reshape(-1, schema.size, k)
        for each in (few, hidden)
    )
    moved = np.abs(told - untold).max(axis=(0, 2)) > 1e-5
    assert set(np.flatnonzero(moved)) == {stim}  # descendants are informed by their own labels


# -- blocks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [40, 96, 200])
def test_blocks_are_consecutive_cells_without_their_padding(repository, few, batch_size):
    """One block a batch; rows are (cell, intervention, draw)."""
    with Generator.open(repository, threads=1, batch_size=batch_size) as generator:
        request = make_request(generator.manifest, grid=["stim"], draws=2)
        with generator.bind(open_cells(few)) as bound:
            blocks = list(generator.generate(bound, request))
    covered = [place for block in blocks for place in range(96)[block.cells]]
    assert covered == list(range(96))
    assert np.concatenate([block.names for block in blocks]).tolist() == few.obs_names.tolist()
    for block in blocks:
        count = len(block.names)
        assert count <= batch_size
        assert len(block.factual) == count
        assert len(block.labels) == len(block.unmatched) == len(block.arrays["X"]) == 4 * count


@pytest.mark.parametrize("batch_size", [40, 96])
def test_sparse_blocks_hold_the_values_of_dense_ones(repository, few, batch_size):
    """Interventions and draws interleaved; zeros are left out, and only of what draws in one step."""
    with Generator.open(repository, threads=1, batch_size=batch_size) as generator:
        draw, other = (generator.solver_settings(preset=name) for name in ("draw", "balanced"))
        request = make_request(generator.manifest, grid=["stim"], draws=3, settings=draw)
        with generator.bind(open_cells(few)) as bound:
            dense = list(generator.generate(bound, request))
            thin = list(generator.generate(bound, request, sparse=True))
            looped = next(generator.generate(bound, replace(request, settings=other), sparse=True))
            means = next(generator.generate(bound, replace(request, store="effects"), sparse=True))
    for full, left_out in zip(dense, thin, strict=True):
        matrix = left_out.arrays["X"]
        assert matrix.has_canonical_format
        assert matrix.data.all()
        np.testing.assert_array_equal(matrix.toarray(), full.arrays["X"])
    assert isinstance(looped.arrays["X"], np.ndarray)
    assert isinstance(means.arrays["X"], np.ndarray)


def test_labels_are_assembled_once(generator, few, monkeypatch, quiet):
    """However many batches and interventions there are: a cell's labels do not change on the way."""
    calls, encode = [], ConceptSchema.encode
    monkeypatch.setattr(ConceptSchema, "encode", lambda self, obs: calls.append(len(obs)) or encode(self, obs))
    generator.counterfactual(few, grid=["stim"], draws=2)
    assert calls == [96]


# -- half the bytes ----------------------------------------------------------------------------------------------------


@solvers
def test_float16_is_float32_rounded(generator, few, options):
    """Whichever graph or loop gives it: decoder, sampler, or the client's own."""
    chosen = {name: value for name, value in options.items() if name != "draws"}
    request = make_request(generator.manifest, JOINT, settings=generator.solver_settings(**chosen))
    with generator.bind(open_cells(few)) as bound:
        blocks = {
            dtype: [each.arrays["X"] for each in generator.generate(bound, replace(request, dtype=dtype))]
            for dtype in ("float32", "float16")
        }
    rounded = np.concatenate(blocks["float32"]).astype(np.float16)
    np.testing.assert_array_equal(np.concatenate(blocks["float16"]), rounded, strict=True)
