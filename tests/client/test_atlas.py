"""The atlas on disk is the result in memory, whole or not there at all."""

import warnings
from importlib.util import find_spec

import anndata
import numpy as np
import pandas as pd
import pytest
import zarr

from causcell import atlas
from causcell.atlas import write_atlas
from causcell.cells import Cells
from causcell.errors import CausCellWarning, ConfigurationError, OutputExistsError
from causcell.generator import Request
from causcell.interventions import plan_interventions

pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")

CELLS, ROWS, GENES = 150, 900, 50
PLAN = {"do": [{}, {"cell_type": "B"}, {"stim": "IFN", "donor": "d1"}], "draws": 2, "seed": 3}


@pytest.fixture(scope="module")
def some(cells):
    return cells[:CELLS].copy()


@pytest.fixture(scope="module")
def in_memory(generator, some):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausCellWarning)
        return generator.counterfactual(some, preset="balanced", **PLAN)


@pytest.fixture(scope="module")
def write(generator, some):
    """``write(path, ...)``: write the plan's atlas."""

    def write(path, source=some, **options):
        cells = Cells(source)
        request = Request(
            plan_interventions(generator.schema, PLAN["do"]),
            generator.solver_settings(preset="balanced"),
            draws=PLAN["draws"],
            seed=PLAN["seed"],
        )
        return write_atlas(generator, cells, generator.reader(cells), request, path, **options)

    return write


@pytest.fixture(scope="module")
def store(write, tmp_path_factory):
    path = tmp_path_factory.mktemp("atlas") / "atlas.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausCellWarning)
        assert write(path) == ROWS
    return path


@pytest.fixture
def small_shards(monkeypatch):
    """Shards that batches of 64 cells x 6 rows do not end at."""
    monkeypatch.setattr(atlas, "CHUNK_ROWS", 32)
    monkeypatch.setattr(atlas, "SHARD_ROWS", 128)


# -- what is in it -----------------------------------------------------------------------------------------------------


def test_store_is_the_result_in_memory(store, in_memory):
    """Bit for bit, and the annotations too."""
    read = anndata.read_zarr(store)
    assert read.X.dtype == np.float32
    np.testing.assert_array_equal(read.X, in_memory.X)
    pd.testing.assert_frame_equal(read.obs, in_memory.obs)
    pd.testing.assert_frame_equal(read.var, in_memory.var)
    made, expected = read.uns["causcell"], in_memory.uns["causcell"]
    assert set(made) == set(expected)
    assert made["interventions"].tolist() == expected["interventions"]
    assert {k: v for k, v in made.items() if k != "interventions"} == {
        k: v for k, v in expected.items() if k != "interventions"
    }


def test_small_shards_hold_the_same(write, in_memory, tmp_path, small_shards):
    write(tmp_path / "atlas.zarr")
    np.testing.assert_array_equal(anndata.read_zarr(tmp_path / "atlas.zarr").X, in_memory.X)
    assert zarr.open_group(tmp_path / "atlas.zarr", mode="r")["X"].shards == (128, GENES)


def test_a_file_gives_the_same_store(write, store, some, tmp_path):
    some.write_h5ad(tmp_path / "cells.h5ad")
    write(tmp_path / "atlas.zarr", tmp_path / "cells.h5ad")
    np.testing.assert_array_equal(anndata.read_zarr(tmp_path / "atlas.zarr").X, anndata.read_zarr(store).X)


def test_rows_of_a_cell_stand_together_and_cells_in_input_order(store, some):
    read = anndata.read_zarr(store)
    assert read.shape == (ROWS, GENES)
    assert read.obs["source_cell"].tolist() == np.repeat(some.obs_names, 6).tolist()
    assert read.obs["intervention"].tolist()[:6] == ["factual"] * 2 + ["cell_type=B"] * 2 + ["stim=IFN;donor=d1"] * 2
    assert read.obs["draw"].tolist() == [0, 1] * (ROWS // 2)
    assert read.obs_names.is_unique
    assert read.obs_names[3] == "cell_0000|cell_type=B|1"


def test_half_precision(write, store, tmp_path):
    """Within 5e-4 of a value's size (half a unit of 11 bits is 4.9e-4), or 3e-8 for values below its normal range."""
    write(tmp_path / "half.zarr", dtype="float16")
    half, full = anndata.read_zarr(tmp_path / "half.zarr"), anndata.read_zarr(store)
    assert half.X.dtype == np.float16
    np.testing.assert_allclose(half.X.astype(np.float32), full.X, rtol=5e-4, atol=3e-8)
    assert (half.X != full.X).any()
    pd.testing.assert_frame_equal(half.obs, full.obs)


# -- its form ----------------------------------------------------------------------------------------------------------


def test_store_is_zarr_v3_and_sharded(store):
    group = zarr.open_group(store, mode="r")
    x = group["X"]
    assert group.metadata.zarr_format == 3
    assert x.metadata.zarr_format == 3
    assert [type(codec).__name__ for codec in x.metadata.codecs] == ["ShardingCodec"]
    assert x.chunks == (256, GENES)
    assert x.shards == (1024, GENES)  # 900 rows, in whole chunks
    assert len(list((store / "X" / "c").rglob("*"))) == 2  # one shard: a folder and a file


def test_a_few_rows_are_one_chunk(write, some, tmp_path):
    write(tmp_path / "few.zarr", some[:5].copy())
    x = zarr.open_group(tmp_path / "few.zarr", mode="r")["X"]
    assert (x.shape, x.chunks, x.shards) == ((30, GENES),) * 3


def test_shards_are_whole_chunks_and_at_most_the_limit(write, tmp_path, monkeypatch):
    monkeypatch.setattr(atlas, "CHUNK_ROWS", 48)
    monkeypatch.setattr(atlas, "SHARD_ROWS", 100)
    write(tmp_path / "atlas.zarr")
    x = zarr.open_group(tmp_path / "atlas.zarr", mode="r")["X"]
    assert (x.chunks, x.shards) == ((48, GENES), (96, GENES))


def test_metadata_are_consolidated(store):
    assert zarr.open_consolidated(store).metadata.consolidated_metadata is not None
    assert {"X", "obs", "var", "uns"} <= set(zarr.open_consolidated(store).keys())


def test_store_opens_lazily(store, in_memory):
    """By anndata's reader where its own dependency is installed; by zarr itself, chunk by chunk, anywhere."""
    if find_spec("xarray") and find_spec("dask"):
        lazy = anndata.experimental.read_lazy(store)
        assert lazy.shape == (ROWS, GENES)
        assert not isinstance(lazy.X, np.ndarray)
        np.testing.assert_array_equal(lazy.X[100:110].compute(), in_memory.X[100:110])
    x = zarr.open_group(store, mode="r")["X"]
    assert isinstance(x, zarr.Array)
    np.testing.assert_array_equal(x[100:110], in_memory.X[100:110])


def test_writing_warns_of_nothing_that_a_user_could_not_change(write, some, tmp_path):
    """What zarr and anndata say to the program that calls them is not for the program's user."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        write(tmp_path / "atlas.zarr", some[:5].copy())
    assert {each.category for each in caught} <= {CausCellWarning}, {str(each.message) for each in caught}


# -- whole or not at all -----------------------------------------------------------------------------------------------


def something(path):
    path.mkdir()
    (path / "precious.txt").write_text("mine")
    return path / "precious.txt"


def a_file(path):
    path.write_text("mine")
    return path


@pytest.mark.parametrize("make", [something, a_file])
def test_what_is_there_is_refused_and_left_alone(write, tmp_path, make):
    kept = make(tmp_path / "atlas.zarr")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputExistsError, match=r"atlas\.zarr' exists already and is not overwritten; remove it"):
        write(tmp_path / "atlas.zarr")
    assert kept.read_text() == "mine"
    assert sorted(tmp_path.rglob("*")) == before


def test_an_atlas_is_not_written_over(write, some, tmp_path):
    write(tmp_path / "atlas.zarr", some[:5].copy())
    with pytest.raises(OutputExistsError):
        write(tmp_path / "atlas.zarr")
    assert anndata.read_zarr(tmp_path / "atlas.zarr").n_obs == 30


def test_an_empty_folder_is_taken(write, some, tmp_path):
    (tmp_path / "atlas.zarr").mkdir()
    write(tmp_path / "atlas.zarr", some[:5].copy())
    assert anndata.read_zarr(tmp_path / "atlas.zarr").n_obs == 30


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_midway_leaves_nothing_behind(write, generator, tmp_path, monkeypatch, small_shards, error):
    """After shards were written, whatever the reason."""
    whole = generator.generate

    def broken(*arguments, **options):
        yield next(iter(whole(*arguments, **options)))
        staged = [path for path in tmp_path.rglob("c") if any(path.rglob("*"))]
        assert staged, "no shard was written before the failure"
        raise error("midway")

    monkeypatch.setattr(generator, "generate", broken)
    with pytest.raises(error, match="midway"):
        write(tmp_path / "atlas.zarr")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_at_the_place_before_the_atlas_is_whole(write, generator, tmp_path, monkeypatch):
    whole = generator.generate

    def watched(*arguments, **options):
        for block in whole(*arguments, **options):
            assert not (tmp_path / "atlas.zarr").exists()
            yield block

    monkeypatch.setattr(generator, "generate", watched)
    write(tmp_path / "atlas.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["atlas.zarr"]


def test_unknown_dtype(write, tmp_path):
    with pytest.raises(ConfigurationError, match="dtype 'int8' is not known; known are 'float32', 'float16'"):
        write(tmp_path / "atlas.zarr", dtype="int8")
    assert list(tmp_path.iterdir()) == []
