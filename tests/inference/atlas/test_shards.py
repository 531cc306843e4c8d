"""Files of the shards have the same bytes as zarr's own writer gives them."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import zarr
from atlases import GENES, tree

from causcell.atlas.journal import Journal
from causcell.atlas.plan import Plan
from causcell.atlas.shards import ShardWriter, encoded_bytes, write_annotations
from causcell.atlas.source_digests import SourceDigests
from causcell.atlas.zarr_store import write_metadata
from causcell.counterfactual.interventions import Intervention
from causcell.counterfactual.request import Request
from causcell.diffusion.solvers import SolverSettings

pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")

CELLS, PER_CELL, GENE_COUNT, WIDTH = 23, 3, 7, 5
CELLS_PER_SHARD, CHUNK_ROWS = 8, 6  # 24 rows a shard in 4 chunks; the last shard has 21 rows and ends within a chunk


def plan_of(dtype, cells_per_shard=CELLS_PER_SHARD, chunk_rows=CHUNK_ROWS):
    """A plan with an array of expression and one of embeddings; what makes its values does not matter."""
    titles = ("factual", "stim=IFN", "état=β")
    return Plan(
        model="0" * 64,
        genes=GENE_COUNT,
        cells=CELLS,
        source=SourceDigests(names="", labels="", genes="", values=""),
        request=Request(
            interventions=tuple(Intervention((), title) for title in titles),
            settings=SolverSettings("mean"),
            dtype=dtype,
        ),
        arrays={"X": GENE_COUNT, "obsm/X_causcell": WIDTH},
        batch_size=8,
        threads=1,
        cells_per_shard=cells_per_shard,
        chunk_rows=chunk_rows,
    )


def rows_of(plan):
    """Values of every array, most of expression zero; a whole chunk of it, and the end of the last shard, are."""
    rng = np.random.default_rng(0)
    expression = rng.gamma(2, size=(plan.rows, GENE_COUNT)) * (rng.random((plan.rows, GENE_COUNT)) < 0.3)
    expression[CHUNK_ROWS : 2 * CHUNK_ROWS] = 0
    expression[-2:] = 0
    embeddings = rng.normal(size=(plan.rows, WIDTH))
    return {"X": expression.astype(plan.request.dtype), "obsm/X_causcell": embeddings.astype(np.float32)}


def annotations_of(plan, cells):
    """Strings, categoricals, numbers and booleans of some cells' rows."""
    names = np.array([f"cell {i} é 細" * (i % 3 + 1) for i in range(cells.start, cells.stop)], dtype=object)
    rows = np.arange(cells.start * PER_CELL, cells.stop * PER_CELL)
    titles = [each.name for each in plan.request.interventions]
    obs = pd.DataFrame(index=pd.Index([f"{name}|{title}" for name in names for title in titles], dtype=object))
    obs["source_cell"] = pd.Categorical.from_codes(
        np.repeat(np.arange(len(names)), PER_CELL), categories=pd.Index(names, dtype=object)
    )
    obs["intervention"] = pd.Categorical.from_codes(np.tile(np.arange(PER_CELL), len(names)), categories=titles)
    obs["draw"] = (rows % 2).astype(np.int32)
    obs["cell_type"] = pd.Categorical.from_codes(rows % 4 - 1, categories=["B", "NK", "T"])  # -1: unlabelled
    obs["unseen_combination"] = (rows % 5 == 0) & (rows >= CELLS_PER_SHARD * PER_CELL)  # none in the first shard
    obs["stage"] = pd.Categorical.from_codes(rows % 3 - 1, categories=[2, 4], ordered=True)
    obs["note"] = [f"é {row}" for row in rows]
    obs["maybe"] = pd.array([None if row % 4 else f"{row} 細" for row in rows], dtype="string")
    obs["whole"] = pd.array([None if row % 4 else row for row in rows], dtype="UInt16")
    obs["yes"] = pd.array([None if row % 4 else row % 3 == 0 for row in rows], dtype="boolean")
    obs["score"] = np.where(rows % 6 == 0, np.nan, rows).astype(np.float16)
    return obs


def coordinates_of(cells):
    """Coordinates of some cells' rows."""
    return {"spatial": np.arange(cells.start * PER_CELL * 2, cells.stop * PER_CELL * 2, dtype=np.int64).reshape(-1, 2)}


def write_with_causcell(path, plan, pieces):
    """Write all shards, the rows of each in pieces of so many."""
    journal, values = Journal(path), rows_of(plan)
    with journal.locked():
        everything = annotations_of(plan, slice(0, CELLS))
        var = pd.DataFrame(index=[f"g{i}" for i in range(GENE_COUNT)])
        write_metadata(journal, plan, everything, var, {}, coordinates_of(slice(0, CELLS)))
        for shard in range(plan.shards):
            cells = plan.cells_of(shard)
            rows = slice(cells.start * PER_CELL, cells.stop * PER_CELL)
            files = write_annotations(journal, plan, shard, annotations_of(plan, cells), coordinates_of(cells))
            for place, array in values.items():
                writer = ShardWriter(journal, plan, place, shard)
                for start in range(rows.start, rows.stop, pieces):
                    writer.append(array[start : min(start + pieces, rows.stop)])
                writer.finish()
                files[writer.target] = writer.staged
            journal.storage.put(files)
        journal.storage.write("zarr.json", journal.storage.read(".causcell/zarr.json"))


def write_with_zarr(path, described, values, obs):
    """Have zarr-python write values and annotations into a store that has the same metadata, and nothing else yet.

    Chunks of nothing but zeros are written too; zarr leaves them out unless it is told.
    """
    shutil.copytree(described, path, ignore=lambda _, names: [name for name in names if name == ".causcell"])
    names = ["_index", "source_cell/categories", *(f"{name}/codes" for name in obs if obs[name].dtype == "category")]
    nullable = [name for name in obs if isinstance(obs[name].dtype, pd.StringDtype | pd.UInt16Dtype | pd.BooleanDtype)]
    names += [name for name in obs if obs[name].dtype != "category" and name not in nullable]
    names += [f"{name}/{part}" for name in nullable for part in ("values", "mask")]
    for place in [*values, *(f"obs/{name}" for name in names)]:
        shutil.rmtree(path / place / "c")
    with zarr.config.set({"array.write_empty_chunks": True}):
        group = zarr.open_group(path, mode="r+", use_consolidated=False)
        for place, array in values.items():
            group[place][:] = array
        for name in names:
            column, _, part = name.partition("/")
            series = obs.index if name == "_index" else obs[column]
            if part == "categories":
                group[f"obs/{name}"][:] = series.cat.categories.to_numpy(dtype=object)
            elif part == "codes":
                group[f"obs/{name}"][:] = series.cat.codes.to_numpy()
            elif part == "mask":
                group[f"obs/{name}"][:] = series.isna().to_numpy()
            elif part == "values":
                group[f"obs/{name}"][:] = series.fillna(
                    {"string": "", "boolean": False}.get(series.dtype.name, 0)
                ).to_numpy()
            else:
                group[f"obs/{name}"][:] = series.to_numpy(dtype=object if name == "_index" else None)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("pieces", [1, 5, 100], ids=lambda pieces: f"{pieces} rows at a time")
def test_files_are_those_of_zarrs_own_writer(tmp_path, dtype, pieces):
    """Every one of them: several shards of several chunks, a chunk of zeros, and a last shard that ends within a chunk;
    strings of any alphabet, categoricals with unlabelled cells, integers and booleans."""
    plan = plan_of(dtype)
    assert (plan.shards, plan.shard_rows) == (3, 24)
    assert plan.rows % CHUNK_ROWS
    write_with_causcell(tmp_path / "ours.zarr", plan, pieces)
    write_with_zarr(
        tmp_path / "zarrs.zarr",
        tmp_path / "ours.zarr",
        rows_of(plan) | {"obsm/spatial": coordinates_of(slice(0, CELLS))["spatial"]},
        annotations_of(plan, slice(0, CELLS)),
    )
    ours, zarrs = tree(tmp_path / "ours.zarr"), tree(tmp_path / "zarrs.zarr")
    assert set(ours) == set(zarrs)
    assert [name for name in ours if ours[name] != zarrs[name]] == []
    assert {f"{place}/c/{shard}/0" for place in plan.arrays for shard in range(3)} < set(ours)
    assert {f"obs/{name}/c/2" for name in ("_index", "draw", "cell_type/codes", "source_cell/categories")} < set(ours)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_single_shard_that_ends_within_a_chunk(tmp_path, dtype):
    """All cells in one shard, whose rows are no whole number of chunks."""
    plan = plan_of(dtype, cells_per_shard=CELLS, chunk_rows=10)
    write_with_causcell(tmp_path / "ours.zarr", plan, 7)
    write_with_zarr(
        tmp_path / "zarrs.zarr",
        tmp_path / "ours.zarr",
        rows_of(plan) | {"obsm/spatial": coordinates_of(slice(0, CELLS))["spatial"]},
        annotations_of(plan, slice(0, CELLS)),
    )
    assert tree(tmp_path / "ours.zarr") == tree(tmp_path / "zarrs.zarr")


@pytest.mark.parametrize(
    "options",
    [{}, {"dtype": "float16"}, {"store": "counts"}, {"store": "embeddings"}, {"store": "summary", "draws": 2}],
    ids=str,
)
def test_an_atlas_is_what_zarr_would_have_written(recipe, tmp_path, options):
    """A whole atlas, from the values that zarr reads of it."""
    import anndata

    recipe.write(tmp_path / "ours.zarr", **options)
    read = anndata.read_zarr(tmp_path / "ours.zarr")
    places = {"X": read.X} if read.X is not None else {}
    places |= {f"layers/{name}": values for name, values in read.layers.items() if name is not None}
    places |= {f"obsm/{name}": values for name, values in read.obsm.items()}
    write_with_zarr(tmp_path / "zarrs.zarr", tmp_path / "ours.zarr", places, read.obs)
    ours, zarrs = tree(tmp_path / "ours.zarr"), tree(tmp_path / "zarrs.zarr")
    assert set(ours) == set(zarrs)
    assert [name for name in ours if ours[name] != zarrs[name]] == []


def test_the_codecs_are_zarrs(whole_atlas):
    """Sharding with an index at the end and its CRC-32C, chunks and annotations compressed by zstd at level 1."""

    def codecs(place):
        return json.loads((whole_atlas / place / "zarr.json").read_text())["codecs"]

    (sharding,) = codecs("X")
    zstd = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}
    assert sharding["name"] == "sharding_indexed"
    assert sharding["configuration"]["chunk_shape"] == [9, GENES]  # of 63 rows a shard
    assert sharding["configuration"]["index_location"] == "end"
    assert [codec["name"] for codec in sharding["configuration"]["index_codecs"]] == ["bytes", "crc32c"]
    assert sharding["configuration"]["codecs"][-1] == zstd
    assert [codec["name"] for codec in codecs("obs/_index")] == ["vlen-utf8", "zstd"]
    assert codecs("obs/cell_type/codes")[-1] == zstd


def test_bytes_are_counted_as_they_are_written(tmp_path):
    """For whole shards: the chunks and annotations, without the shards' index and the filling of what is not full."""
    plan = plan_of("float32", cells_per_shard=8, chunk_rows=6)
    write_with_causcell(tmp_path / "ours.zarr", plan, 100)
    cells = plan.cells_of(0)
    arrays = {place: array[: plan.shard_rows] for place, array in rows_of(plan).items()}
    written = sum(
        len(content)
        for name, content in tree(tmp_path / "ours.zarr").items()
        if name.endswith(("c/0/0", "/c/0"))
        and not name.startswith(("var/", "uns/"))
        and not (name.endswith("categories/c/0") and "source_cell" not in name)
    )
    index = 4 * 16 + 4  # offset and length of four chunks, and a CRC
    obs, obsm = annotations_of(plan, cells), coordinates_of(cells)
    assert encoded_bytes(plan, arrays, obs, obsm) == (written - index * len(plan.arrays),) * 2


def test_a_writer_that_is_given_up_leaves_nothing(tmp_path):
    journal, plan = Journal(tmp_path / "atlas.zarr"), plan_of("float32")
    with journal.locked():
        writer = ShardWriter(journal, plan, "X", 0)
        writer.append(np.ones((7, GENE_COUNT), dtype=np.float32))
        writer.discard()
        assert list(journal.work.iterdir()) == []
    assert not (tmp_path / "atlas.zarr" / writer.target).exists()
