"""Atlases of interventions on values: what the in-memory call gives, resumed, materialized; plans of plain models."""

from collections.abc import Iterator
from pathlib import Path

import anndata
import numpy as np
import pytest
from atlases import stop_after, tree
from valued_model import ValuedEngine, valued_cells

from causcell.atlas.materialize import materialize_atlas
from causcell.atlas.plan import Plan
from causcell.generator import Generator

DO = [{}, {"age": 35.5}, {"perturbation": "C+A"}, {"stage": 1}, {"age": "[20, 30)"}]
OPTIONS = {"do": DO, "seed": 3, "layout": "dense", "chunk_size": 3200, "shard_size": 32000}
pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")


@pytest.fixture(scope="module")
def valued(generator: Generator) -> Iterator[Generator]:
    with Generator(ValuedEngine(generator.engine), batch_size=64) as opened:
        yield opened


@pytest.fixture(scope="module")
def some(cells: anndata.AnnData) -> anndata.AnnData:
    return valued_cells(cells[:96].copy())


@pytest.fixture(scope="module")
def atlas(valued: Generator, some: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("atlas") / "atlas.zarr"
    valued.write_atlas(some, path, **OPTIONS)
    return path


def assert_same_obs(found: anndata.AnnData, expected: anndata.AnnData) -> None:
    assert list(found.obs) == list(expected.obs)
    for column in expected.obs:
        assert found.obs[column].astype(str).tolist() == expected.obs[column].astype(str).tolist(), column


def test_an_atlas_is_the_call_in_memory(valued, some, atlas):
    found = anndata.read_zarr(atlas)
    expected = valued.counterfactual(some, DO, seed=3)
    np.testing.assert_array_equal(found.obs_names, expected.obs_names)
    assert_same_obs(found, expected)
    assert (np.abs(found.X - expected.X) > 1e-4).mean() <= 1e-3  # batches start anew with each shard
    assert found.uns["causcell"]["target"] == "reference"


def test_an_interrupted_atlas_goes_on(valued, some, atlas, tmp_path, monkeypatch):
    path = tmp_path / "atlas.zarr"
    with monkeypatch.context() as patch:
        stop_after(patch, 1, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            valued.write_atlas(some, path, **OPTIONS)
    valued.write_atlas(some, path, **OPTIONS)
    assert tree(path) == tree(atlas)


@pytest.mark.parametrize("age", [33.0, 60.0])
def test_other_numbers_of_the_cells_are_other_cells(valued, some, age):
    """Also within a bin, whose label is the same."""
    other = some.copy()
    other.obs["age"] = other.obs["age"].replace(40.0, age)
    options = {**OPTIONS, "keep_obs": "none"}
    assert valued.plan_atlas(some, **options).source.labels != valued.plan_atlas(other, **options).source.labels


def test_a_plan_with_values_is_read_back(valued, some):
    plan = valued.plan_atlas(some, **OPTIONS, target="prior")
    again = Plan.model_validate_json(plan.model_dump_json())
    assert again == plan
    assert again.digest == plan.digest
    assert [each.values for each in again.request.interventions][:2] == [(), ((1, "35.5"),)]
    assert plan.digest != valued.plan_atlas(some, **OPTIONS).digest


def test_plans_of_labels_say_nothing_of_values(generator, few):
    """Their text, and so their digest, is that of earlier versions."""
    fields = generator.plan_atlas(few, do=[{}, {"stim": "IFN"}]).model_dump(mode="json")
    assert fields["request"]["interventions"][1] == {"targets": [[0, 0]], "name": "stim=IFN"}
    assert "target" not in fields["request"]


def test_embeddings_are_materialized(valued, some, tmp_path):
    options = {**OPTIONS, "layout": None}
    valued.write_atlas(some, tmp_path / "embeddings.zarr", **options, store="embeddings")
    valued.write_atlas(some, tmp_path / "expression.zarr", **options)
    sizes = {"chunk_size": 3200, "shard_size": 32000}
    materialize_atlas(valued.model, tmp_path / "embeddings.zarr", tmp_path / "made.zarr", **sizes)
    found, expected = (anndata.read_zarr(tmp_path / f"{name}.zarr") for name in ("made", "expression"))
    assert_same_obs(found, expected)
    assert (found.X != expected.X).sum() == 0


def test_unseen_rows_are_forecast(valued, some):
    plan = valued.plan_atlas(some, **OPTIONS, forecast=True)
    assert plan.forecast is not None
    assert plan.forecast.unseen_rows >= 2 * len(some)  # A+C, and a stage that no cell has
