"""A plan is what decides an atlas's bytes."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
from atlases import GENES, ROW, AtlasRecipe

from causcell._internal.units import format_duration, format_size, parse_size
from causcell.atlas.plan import Plan
from causcell.atlas.source_digests import digest_source
from causcell.cells.collection import open_cells
from causcell.errors import ConfigurationError
from causcell.generator import Generator

pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")

CELLS = 200


@pytest.fixture(scope="module")
def recipe(generator, cells):
    return AtlasRecipe(generator, cells[:CELLS].copy(), {"do": {"stim": "IFN"}, "grid": ["cell_type"]})


def test_a_plan_is_a_value(recipe):
    """It is the same each time, and after being written and read."""
    plan = recipe.plan()
    assert plan == recipe.plan()
    read = Plan.model_validate_json(plan.model_dump_json())
    assert read == plan
    assert read.digest == plan.digest
    assert read.request == plan.request


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"draws": 2},
        {"mode": "isolated"},
        {"match_parents": True},
        {"store": "embeddings"},
        {"dtype": "float16"},
        {"shard_size": 64 * ROW, "chunk_size": 16 * ROW},
        {"batch_size": 32},
    ],
    ids=str,
)
def test_whatever_changes_bytes_changes_the_digest(recipe, change):
    plan, options = recipe.plan(), dict(change)
    if "batch_size" in options:
        recipe = replace(recipe, generator=Generator(recipe.generator.engine, batch_size=options.pop("batch_size")))
    changed = recipe.plan(**options)
    assert changed.digest != plan.digest
    assert len(plan.differences(changed)) >= 1
    assert plan.differences(plan) == []


@pytest.mark.parametrize("change", [{"totals": "n_counts"}, {"raw": True}, {"round_counts": True}], ids=str)
def test_how_values_are_read_is_part_of_the_plan_even_where_it_gives_the_same_values(recipe, cells, change):
    read_otherwise = cells[:CELLS].copy()
    read_otherwise.obs["n_counts"] = np.asarray(read_otherwise.X.sum(axis=1)).ravel()
    read_otherwise.raw = read_otherwise
    none = {"keep_obs": "none"}
    plan, changed = recipe.plan(**none), replace(recipe, cells=read_otherwise).plan(**none, **change)
    assert changed.source.values == plan.source.values
    assert changed.digest != plan.digest
    assert Plan.model_validate_json(changed.model_dump_json()) == changed
    (difference,) = plan.differences(changed)
    assert next(iter(change)) in difference


def test_a_plan_that_reads_as_ever_has_the_text_of_earlier_versions(recipe):
    """Its digest is that of an atlas that an earlier version began."""
    assert set(recipe.plan().model_dump(mode="json")["source"]) == {"names", "labels", "genes", "values"}


def test_another_number_of_compute_threads_is_another_plan(recipe, monkeypatch):
    """Last bits of draws differ between them."""
    plan = recipe.plan()
    monkeypatch.setattr(recipe.generator.engine, "threads", 2)
    assert plan.differences(recipe.plan()) == ["threads (1 there, 2 asked for)"]


def test_a_forecast_is_no_part_of_the_plan(recipe):
    """Nobody is refused because a machine was slower when the atlas was begun."""
    plan = recipe.plan()
    foreseen = recipe.plan(forecast=True)
    assert plan.forecast is None
    assert foreseen.forecast is not None
    assert foreseen.digest == plan.digest
    assert plan.differences(foreseen) == []


def test_shards_are_whole_cells_that_cover_all_once(recipe):
    for shard_size in (ROW, 50 * ROW, 300 * ROW, 10**9):
        plan = recipe.plan(shard_size=shard_size, chunk_size=ROW)
        covered = np.concatenate([np.arange(CELLS)[plan.cells_of(shard)] for shard in range(plan.shards)])
        np.testing.assert_array_equal(covered, np.arange(CELLS))
        if plan.shards > 1:
            assert plan.shard_rows % plan.chunk_rows == 0
            assert plan.cells_per_shard <= 64 or plan.cells_per_shard % 64 == 0  # whole batches


@pytest.mark.parametrize(("cells_per_shard", "padded"), [(1, 16), (20, 32), (50, None), (64, None), (128, None)])
def test_batches_are_padded_to_what_a_shard_needs(recipe, cells_per_shard, padded):
    """Plans say so where it is less than a whole batch, to which earlier versions padded."""
    plan = recipe.plan(shard_size=cells_per_shard * recipe.plan().request.rows_per_cell * ROW, chunk_size=ROW)
    assert plan.cells_per_shard == cells_per_shard
    assert plan.batch_size == 64
    assert plan.model_dump(mode="json").get("padded") == padded
    assert plan.adapt(recipe.generator.model).batch_size == (padded or 64)


def test_batches_of_one_shard_are_as_full_as_may_be(recipe, cells):
    """Two batches of at most 64 cells are needed for 100 cells and for 90: of 64, and of 48."""
    assert replace(recipe, cells=cells[:100].copy()).plan().padded is None
    assert replace(recipe, cells=cells[:90].copy()).plan().padded == 48


def test_planning_writes_nothing(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe.plan(forecast=True)
    assert list(tmp_path.iterdir()) == []


def test_genes_of_the_shared_model(generator):
    assert len(generator.preprocessing.genes) == GENES


# -- sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [("1GB", 10**9), ("64MB", 64 * 10**6), ("1.5 kB", 1500), ("512KiB", 2**19), ("2gib", 2**31), ("7", 7), ("8b", 8)],
)
def test_sizes_as_people_write_them(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "0", "-1MB", "1XB", "1 GB x", "0.1", "64,000kB", "1.5.3GB", "64MB/s"])
def test_what_is_no_size(text):
    with pytest.raises(ConfigurationError, match="is not one; write it as 64MB"):
        parse_size(text)


def test_sizes_and_times_for_people():
    assert [format_size(size) for size in (12, 999, 1500, 2.5e6, 1e9, 3.21e12, 4e15)] == [
        "12 bytes",
        "999 bytes",
        "1.5 kB",
        "2.5 MB",
        "1 GB",
        "3.21 TB",
        "4e+03 TB",
    ]
    assert [format_duration(seconds) for seconds in (0.26, 59, 61, 3600, 9000)] == [
        "0.3 s",
        "59 s",
        "1 min",
        "60 min",
        "2 h 30 min",
    ]


@pytest.mark.parametrize("form", ["CSR", "dense", "several"])
def test_values_are_digested_as_if_read_cell_by_cell(generator, cells, tmp_path, form):
    """They are read many at a time; plans of earlier versions have the same digests."""
    taken = cells[:CELLS].copy()
    taken.X = np.asarray(taken.X.todense() if scipy.sparse.issparse(taken.X) else taken.X)
    if form == "CSR":
        taken.X = scipy.sparse.csr_matrix(taken.X)
    taken.write_h5ad(tmp_path / "cells.h5ad")
    places = {"a": taken[: CELLS // 3], "b": tmp_path / "cells.h5ad"} if form == "several" else tmp_path / "cells.h5ad"
    with generator.bind(open_cells(places)) as bound:
        count = len(bound)
        spaced = np.unique(np.linspace(0, count - 1, min(256, count)).astype(int))
        one_by_one = hashlib.sha256()
        for row in spaced.tolist():
            one_by_one.update(bound.read_expression(slice(row, row + 1)).tobytes())
        assert digest_source(bound).values == one_by_one.hexdigest()
