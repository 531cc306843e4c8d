"""What an atlas holds besides expression: embeddings that become expression again, effects, summaries."""

from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
from atlases import GENES, SMALL, tree

from causcell.atlas.journal import Journal
from causcell.atlas.materialize import materialize_atlas
from causcell.atlas.verify import verify_atlas
from causcell.counterfactual.model import CounterfactualModel
from causcell.counterfactual.outputs import OUTPUT_KINDS, Prediction, array_widths, make_accumulator, most_frequent
from causcell.counterfactual.request import make_request
from causcell.counterfactual.uncertainty import EffectUncertainty
from causcell.errors import AtlasError, ConfigurationError, OutputExistsError

pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")

CELLS = 90
DO = [{"stim": "IFN"}, {"cell_type": "B", "donor": "d1"}]


@pytest.fixture(scope="module")
def some(cells):
    return cells[:CELLS].copy()


@pytest.fixture(scope="module")
def write(generator, some):
    """``write(path, store, ...)``: an atlas of some cells."""

    def write(path, store, do=DO, **options):
        generator.write_atlas(some, path, do, seed=5, store=store, **(SMALL | options))
        return path

    return write


# -- what is kept of a prediction --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OUTPUT_KINDS)
def test_every_kind_gives_the_arrays_that_it_announces(kind):
    """By place and width, for the cells alone: a batch is padded. Two draws of one intervention."""
    cells, padded, genes, embedding = 3, 5, 4, 6
    accumulator = make_accumulator(
        kind, lambda z, noise: z[:, 0, :genes] + noise, (cells, 1, 2), lambda place, effect, deviation: deviation + 0.5
    )
    for draw in (0, 1):
        z = np.full((padded, 1, embedding), draw + 1, dtype=np.float32)
        codes, unmatched = np.zeros((padded, 2), dtype=np.int32), np.zeros(padded, dtype=bool)
        accumulator.add(Prediction(0, draw, z - 1, z, codes, unmatched), np.float32(0.25))
    arrays = accumulator.arrays()
    assert {place: array.shape[-1] for place, array in arrays.items()} == array_widths(kind, genes, embedding)
    kept = 1 if kind == "summary" else 2
    assert {len(array) for array in arrays.values()} == {cells * kept}
    expected = {
        "expression": {"X": [1.25, 2.25]},
        "counts": {"X": [1.25, 2.25]},
        "embeddings": {"obsm/X_causcell": [1, 2]},
        "effects": {"X": [1, 1]},
        "summary": {
            "X": [1.75],
            "layers/deviation": [np.sqrt(0.5)],
            "layers/effect": [1],
            "layers/lower": [0.5],
            "layers/upper": [1.5],
        },
    }
    for place, values in expected[kind].items():
        np.testing.assert_allclose(arrays[place][:kept, 0], values, rtol=1e-6)


# -- effects -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draws", [1, 3])
def test_effects_are_the_difference_to_the_factual_cell_with_the_same_noise(generator, some, write, tmp_path, draws):
    """To the last bit where batches are the same: float32 less float32."""
    effects = anndata.read_zarr(write(tmp_path / "effects.zarr", "effects", draws=draws, shard_size=10**6))
    everything = generator.counterfactual(some, do=[{}, *DO], draws=draws, seed=5)
    by_intervention = everything.X.reshape(CELLS, 1 + len(DO), draws, GENES)
    np.testing.assert_array_equal(effects.X, (by_intervention[:, 1:] - by_intervention[:, :1]).reshape(-1, GENES))
    kept = everything[everything.obs["intervention"] != "factual"]
    assert effects.obs_names.tolist() == kept.obs_names.tolist()
    assert effects.uns["causcell"]["store"] == "effects"


def test_a_cell_that_carries_the_label_has_no_effect(some, write, tmp_path):
    effects = anndata.read_zarr(write(tmp_path / "effects.zarr", "effects", [{"stim": "IFN"}]))
    carries = (some.obs["stim"] == "IFN").to_numpy()
    assert not effects.X[carries].any()
    assert effects.X[~carries].any()


def test_effects_of_nothing(generator):
    with pytest.raises(ConfigurationError, match=r"effects .* are those of interventions; name one"):
        make_request(generator.manifest, [{}, *DO], store="effects")


# -- summary -----------------------------------------------------------------------------------------------------------


def test_summary_is_that_of_the_draws(generator, some, write, tmp_path):
    """Within rounding: it is added up in double precision and kept in single."""
    summary = anndata.read_zarr(write(tmp_path / "summary.zarr", "summary", draws=7))
    drawn = generator.counterfactual(some, do=DO, draws=7, seed=5)
    values = drawn.X.astype(np.float64).reshape(-1, 7, GENES)
    np.testing.assert_allclose(summary.X, values.mean(axis=1), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(summary.layers["deviation"], values.std(axis=1, ddof=1), rtol=1e-5, atol=1e-7)
    assert summary.obs_names.tolist() == [name.removesuffix("|0") for name in drawn.obs_names[::7]]
    assert "draw" not in summary.obs
    states = drawn.obs["state"].astype(str).to_numpy().reshape(-1, 7)
    assert all(label in row for label, row in zip(summary.obs["state"].astype(str), states, strict=True))


@pytest.mark.parametrize("measured", [True, False])
def test_intervals_of_an_atlas_are_verified_and_gone_on_with(generator, some, write, tmp_path, monkeypatch, measured):
    """Also where the model holds no measured error, and they are not there (NaN): the same atlas as in one run."""
    if not measured:
        of = EffectUncertainty.of
        monkeypatch.setattr(EffectUncertainty, "of", classmethod(lambda cls, model: replace(of(model), errors={})))
    options = {"draws": 2, "interval": 0.8}
    path, again = (write(tmp_path / name, "summary", **options) for name in ("atlas.zarr", "again.zarr"))
    summary = anndata.read_zarr(path)
    assert np.isfinite(summary.layers["effect"]).all()
    unchanged = (summary.obs["intervention"] == "stim=IFN").to_numpy() & (some.obs["stim"] == "IFN").to_numpy().repeat(
        2
    )
    assert np.isfinite(summary.layers["lower"])[~unchanged].all() == measured
    assert not summary.layers["upper"][unchanged].any()
    assert (summary.layers["effect"] < 0).any()
    assert verify_atlas(path).sound
    (again / "layers/lower/c/1/0").unlink()
    write(again, "summary", **options)
    assert tree(again) == tree(path)
    with pytest.raises(OutputExistsError, match=r"interval \(0.8 there, 0.9 asked for\)"):
        write(path, "summary", draws=2)


def test_plans_without_intervals_are_spelt_as_ever(generator, write, tmp_path):
    """So that atlases of earlier versions are gone on with."""
    plain, summary = (
        Journal(write(tmp_path / f"{store}.zarr", store, draws=2)).require_plan() for store in ("effects", "summary")
    )
    assert "interval" not in plain.model_dump()["request"]
    assert summary.model_dump()["request"]["interval"] == 0.9


def test_the_most_frequent_label_is_kept_the_lowest_of_several():
    codes = np.array([[[0, 2], [1, 2], [1, 0], [0, 0]], [[2, -1], [2, 1], [0, 1], [1, 1]]], dtype=np.int32)
    np.testing.assert_array_equal(most_frequent(codes), [[[0, 0]], [[2, 1]]])


def test_a_summary_of_one_draw(generator):
    with pytest.raises(ConfigurationError, match=r"draws is 1; a summary over draws .* takes at least 2"):
        make_request(generator.manifest, DO, store="summary")


# -- embeddings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draws", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_expression_from_embeddings_is_the_same_atlas(generator, write, tmp_path, draws, dtype):
    """Every file of it, bit for bit."""
    direct = write(tmp_path / "direct.zarr", "expression", draws=draws, dtype=dtype)
    stored = write(tmp_path / "stored.zarr", "embeddings", draws=draws)
    plan, written = materialize_atlas(generator.model, stored, tmp_path / "made.zarr", dtype=dtype, **SMALL)
    assert tree(tmp_path / "made.zarr") == tree(direct)
    assert plan.digest == Journal(direct).require_plan().digest
    assert written.made == CELLS * len(DO) * draws


def test_embeddings_are_those_of_the_rows(generator, some, write, tmp_path):
    """There is no X, and the panel is there; those of cells without labels are what `embed` gives."""
    read = anndata.read_zarr(write(tmp_path / "stored.zarr", "embeddings", [{}, *DO], preset="mean"))
    kept = generator.reconstruct(some, preset="mean", store="embeddings").obsm["X_causcell"]
    np.testing.assert_array_equal(read.obsm["X_causcell"][::3], kept)
    unlabelled = some.copy()
    unlabelled.obs = unlabelled.obs[[]]
    told = generator.reconstruct(unlabelled, preset="mean", store="embeddings").obsm["X_causcell"]
    np.testing.assert_allclose(told, generator.embed(some).obsm["X_causcell"], atol=1e-5)
    assert np.abs(kept - told).max() > 0.01
    assert read.obsm["X_causcell"].dtype == np.float32
    assert read.X is None
    assert read.var_names.tolist() == list(generator.preprocessing.genes)
    expected = generator.counterfactual(some, do=[{}, *DO], preset="mean", seed=5)
    pd.testing.assert_frame_equal(read.obs, expected.obs)


def test_in_memory_it_is_the_same(generator, some, write, tmp_path):
    for store, draws in (("embeddings", 1), ("effects", 1), ("summary", 2)):
        stored = anndata.read_zarr(write(tmp_path / f"{store}.zarr", store, draws=draws, shard_size=10**6))
        made = generator.counterfactual(some, do=DO, seed=5, store=store, draws=draws)
        pd.testing.assert_frame_equal(stored.obs, made.obs)
        for place in ("layers", "obsm"):
            assert set(getattr(stored, place)) == set(getattr(made, place))
            for name, values in getattr(made, place).items():
                np.testing.assert_array_equal(getattr(stored, place)[name], values)
        if made.X is not None:
            np.testing.assert_array_equal(stored.X, made.X)


def test_what_cannot_be_materialized(generator, write, tmp_path, monkeypatch):
    expression = write(tmp_path / "expression.zarr", "expression")
    with pytest.raises(AtlasError, match=r"holds expression; give an atlas made with store='embeddings'"):
        materialize_atlas(generator.model, expression, tmp_path / "made.zarr")
    with pytest.raises(AtlasError, match="is no atlas"):
        materialize_atlas(generator.model, tmp_path, tmp_path / "made.zarr")
    stored = write(tmp_path / "stored.zarr", "embeddings")
    other = CounterfactualModel(generator.engine, batch_size=generator.batch_size)
    changed = generator.manifest.model_copy(update={"digest": "0" * 64})
    monkeypatch.setattr(
        CounterfactualModel, "manifest", property(lambda self: changed if self is other else self.engine.manifest)
    )
    with pytest.raises(ConfigurationError, match=r"was made with the model .*, and this one is 000000000000"):
        materialize_atlas(other, stored, tmp_path / "made.zarr")
    Journal(stored).unfinish()
    with pytest.raises(AtlasError, match="is not finished; run the command that makes it again"):
        materialize_atlas(generator.model, stored, tmp_path / "made.zarr")


def test_unknown_store(generator, some):
    with pytest.raises(ConfigurationError, match="store 'means' is not known; known are 'expression', 'counts'"):
        generator.counterfactual(some, do=DO, store="means")
