"""The atlas on disk is the result in memory, in the form that its readers expect."""

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
import zarr
from atlases import GENES, ROW, AtlasRecipe, tree, write_zarr

from causcell.errors import CausCellWarning, ConfigurationError, OutputExistsError

pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")

CELLS, ROWS = 150, 900
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
def recipe(generator, some):
    """All cells in one shard, of several draws."""
    return AtlasRecipe(generator, some, {"preset": "balanced", "layout": "dense", **PLAN})


@pytest.fixture(scope="module")
def store(recipe, tmp_path_factory):
    path = tmp_path_factory.mktemp("atlas") / "atlas.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausCellWarning)
        assert recipe.write(path).rows == ROWS
    return path


# -- what is in it -----------------------------------------------------------------------------------------------------


def test_store_is_the_result_in_memory(store, in_memory):
    """Bit for bit, and the annotations too."""
    read = anndata.read_zarr(store)
    assert read.X.dtype == np.float32
    np.testing.assert_array_equal(read.X, in_memory.X)
    pd.testing.assert_frame_equal(read.obs, in_memory.obs)
    pd.testing.assert_frame_equal(read.var, in_memory.var)
    made, expected = read.uns["causcell"], in_memory.uns["causcell"]
    assert set(made) == set(expected) | {"plan"}
    assert made["interventions"].tolist() == expected["interventions"]
    assert {k: v for k, v in made.items() if k not in ("interventions", "plan")} == {
        k: v for k, v in expected.items() if k != "interventions"
    }


@pytest.mark.parametrize(
    ("chunk", "shard", "form"),
    [
        (16, 64, (60, 15)),  # 10 cells, less than a batch of 64, make the shard
        (100, 400, (384, 96)),  # one batch of 64 cells
        (32, 800, (768, 32)),
        (1000, 2000, (900, 900)),  # all cells in one shard
        (250, 2000, (1000, 250)),  # the same, in whole chunks
        (1, 20, (18, 1)),
    ],
)
def test_shards_of_any_size_hold_the_same(recipe, in_memory, tmp_path, chunk, shard, form):
    """Draws to the last bit or two: which values vectorised loops leave over hangs on a batch's other cells."""
    recipe.write(tmp_path / "atlas.zarr", chunk_size=chunk * ROW, shard_size=shard * ROW)
    read = anndata.read_zarr(tmp_path / "atlas.zarr")
    np.testing.assert_allclose(read.X, in_memory.X, rtol=1e-5, atol=1e-6)
    pd.testing.assert_frame_equal(read.obs, in_memory.obs)
    x = zarr.open_group(tmp_path / "atlas.zarr", mode="r")["X"]
    assert (x.shards, x.chunks) == ((form[0], GENES), (form[1], GENES))


def test_a_file_gives_the_same_store(recipe, store, some, tmp_path):
    some.write_h5ad(tmp_path / "cells.h5ad")
    recipe.write(tmp_path / "atlas.zarr", tmp_path / "cells.h5ad")
    np.testing.assert_array_equal(anndata.read_zarr(tmp_path / "atlas.zarr").X, anndata.read_zarr(store).X)


def test_rows_of_a_cell_stand_together_and_cells_in_input_order(store, some):
    read = anndata.read_zarr(store)
    assert read.shape == (ROWS, GENES)
    assert read.obs["source_cell"].tolist() == np.repeat(some.obs_names, 6).tolist()
    assert read.obs["intervention"].tolist()[:6] == ["factual"] * 2 + ["cell_type=B"] * 2 + ["stim=IFN;donor=d1"] * 2
    assert read.obs["draw"].tolist() == [0, 1] * (ROWS // 2)
    assert read.obs_names.is_unique
    assert read.obs_names[3] == "cell_0000|cell_type=B|1"


def test_half_precision(recipe, store, tmp_path):
    """Within 5e-4 of a value's size (half a unit of 11 bits is 4.9e-4), or 3e-8 for values below its normal range."""
    recipe.write(tmp_path / "half.zarr", dtype="float16")
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
    assert x.chunks == x.shards == (900, GENES)
    assert len(list((store / "X" / "c").rglob("*"))) == 2  # one shard: a folder and a file


def test_metadata_are_consolidated(store):
    assert zarr.open_consolidated(store).metadata.consolidated_metadata is not None
    assert {"X", "obs", "var", "uns"} <= set(zarr.open_consolidated(store).keys())


def test_store_opens_lazily(store, in_memory):
    """By anndata's reader, and by zarr itself, chunk by chunk."""
    lazy = anndata.experimental.read_lazy(store)
    assert lazy.shape == (ROWS, GENES)
    assert not isinstance(lazy.X, np.ndarray)
    np.testing.assert_array_equal(lazy.X[100:110].compute(), in_memory.X[100:110])
    assert lazy.obs["cell_type"].to_series().astype(str).tolist() == in_memory.obs["cell_type"].astype(str).tolist()
    x = zarr.open_group(store, mode="r")["X"]
    assert isinstance(x, zarr.Array)
    np.testing.assert_array_equal(x[100:110], in_memory.X[100:110])


def test_writing_warns_of_nothing_that_a_user_could_not_change(recipe, some, tmp_path):
    """What zarr and anndata say to the program that calls them is not for the program's user."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        recipe.write(tmp_path / "atlas.zarr", some[:5].copy())
    assert {each.category for each in caught} <= {CausCellWarning}, {str(each.message) for each in caught}


def test_reading_warns_of_nothing(store):
    """The journal inside is none of the readers' business."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        anndata.read_zarr(store)


def test_scanpy_takes_it(store):
    """Labels and values are what its functions expect."""
    scanpy = pytest.importorskip("scanpy")
    read = anndata.read_zarr(store)
    scanpy.tl.rank_genes_groups(read, "intervention", method="t-test")
    assert set(read.uns["rank_genes_groups"]["names"].dtype.names) == set(read.obs["intervention"].cat.categories)


# -- what is there already ---------------------------------------------------------------------------------------------


def make_folder(path):
    path.mkdir()
    (path / "precious.txt").write_text("mine")
    return path / "precious.txt"


def make_file(path):
    path.write_text("mine")
    return path


@pytest.mark.parametrize("make", [make_folder, make_file])
def test_what_is_there_is_refused_and_left_alone(recipe, tmp_path, make):
    kept = make(tmp_path / "atlas.zarr")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputExistsError, match=r"atlas\.zarr' exists already and is not overwritten; remove it"):
        recipe.write(tmp_path / "atlas.zarr")
    assert kept.read_text() == "mine"
    assert sorted(tmp_path.rglob("*")) == before


def test_another_store_is_not_taken_for_an_atlas(recipe, some, tmp_path):
    write_zarr(some, tmp_path / "atlas.zarr")
    before = tree(tmp_path)
    with pytest.raises(OutputExistsError, match="exists already"):
        recipe.write(tmp_path / "atlas.zarr")
    assert tree(tmp_path) == before


def test_an_empty_folder_is_taken(recipe, some, tmp_path):
    (tmp_path / "atlas.zarr").mkdir()
    recipe.write(tmp_path / "atlas.zarr", some[:5].copy())
    assert anndata.read_zarr(tmp_path / "atlas.zarr").n_obs == 30


def test_unknown_dtype(recipe, tmp_path):
    with pytest.raises(ConfigurationError, match="dtype 'int8' is not known; known are 'float32', 'float16'"):
        recipe.write(tmp_path / "atlas.zarr", dtype="int8")
    assert list(tmp_path.iterdir()) == []


def test_chunks_larger_than_shards(recipe, tmp_path):
    with pytest.raises(ConfigurationError, match="chunks of 2000 bytes are larger than shards of 1000"):
        recipe.write(tmp_path / "atlas.zarr", chunk_size=2000, shard_size=1000)
    assert list(tmp_path.iterdir()) == []
