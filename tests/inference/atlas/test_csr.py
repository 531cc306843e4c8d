"""CSR matrices: the values of the dense array, whoever made the shards, whatever stopped them, and nothing else."""

import json
import os
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import scipy.sparse
import zarr
from atlases import CELLS, GENES, OPTIONS, SHARDS, AtlasRecipe, stop_after, times, tree

from causcell.atlas import records
from causcell.atlas.journal import FOLDER, Journal
from causcell.atlas.materialize import materialize_atlas
from causcell.atlas.open import open_atlas
from causcell.atlas.options import complete_options
from causcell.atlas.pieces import compress_rows
from causcell.atlas.task import ShardMaker
from causcell.atlas.verify import verify_atlas
from causcell.atlas.write import write_atlas
from causcell.errors import ConfigurationError, OutputExistsError, OutputFullError

pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")

PIECES = Path(FOLDER) / "pieces" / "X"


@pytest.fixture(scope="module")
def sparse(recipe) -> AtlasRecipe:
    """The atlas of `recipe`, its ``X`` a CSR matrix."""
    return replace(recipe, options={**OPTIONS, "layout": "csr"})


@pytest.fixture(scope="module")
def whole_sparse(sparse, tmp_path_factory) -> Path:
    """The atlas of `sparse`; treat as read-only."""
    path = tmp_path_factory.mktemp("whole_sparse") / "atlas.zarr"
    sparse.write(path)
    return path


@pytest.fixture
def finished_sparse(whole_sparse, tmp_path) -> Path:
    return Path(shutil.copytree(whole_sparse, tmp_path / "atlas.zarr"))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


# -- what readers find -------------------------------------------------------------------------------------------------


def test_it_holds_the_values_of_the_dense_array(whole_sparse, whole_atlas):
    """Canonical: columns ascend, no zero is stored; columns and row ends have one type, which SciPy needs."""
    read, dense = anndata.read_zarr(whole_sparse), anndata.read_zarr(whole_atlas)
    assert isinstance(read.X, scipy.sparse.csr_matrix)
    np.testing.assert_array_equal(read.X.toarray(), dense.X)
    assert read.X.has_canonical_format
    assert read.X.nnz == np.count_nonzero(dense.X)
    assert read.obs.equals(dense.obs)
    assert read.var.equals(dense.var)
    group = zarr.open_group(whole_sparse, mode="r")
    assert [str(group[f"X/{name}"].dtype) for name in ("data", "indices", "indptr")] == ["float32", "int32", "int32"]


def test_more_values_than_int32_counts_are_found_by_int64(sparse, whole_sparse, tmp_path, monkeypatch):
    monkeypatch.setattr("causcell.atlas.zarr_store.LARGEST_INT32", 1000)
    out = tmp_path / "atlas.zarr"
    sparse.write(out)
    assert verify_atlas(out).sound
    read = anndata.read_zarr(out).X
    assert (read.indices.dtype, read.indptr.dtype) == (np.int64, np.int64)
    assert (read != anndata.read_zarr(whole_sparse).X).nnz == 0
    assert verify_atlas(out).sound


@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
def test_its_files_are_those_of_zarrs_own_writer(whole_sparse, tmp_path):
    """Every one, where chunks of nothing but zeros are written, and without what says so in another order."""
    ours = tree(whole_sparse)
    group = zarr.open_group(whole_sparse, mode="r", use_consolidated=False)
    arrays = {name: group[f"X/{name}"][:] for name in ("data", "indices", "indptr")}
    copy = shutil.copytree(whole_sparse, tmp_path / "copy.zarr", ignore=shutil.ignore_patterns(FOLDER))
    for name in arrays:
        shutil.rmtree(copy / "X" / name / "c")
    with zarr.config.set({"array.write_empty_chunks": True}):
        written = zarr.open_group(copy, mode="r+", use_consolidated=False)
        for name, values in arrays.items():
            written[f"X/{name}"][:] = values
    zarr.consolidate_metadata(copy)
    theirs = tree(copy)
    assert {name for name in theirs if "/c/" in name} == {name for name in ours if "/c/" in name}
    assert [name for name in ours if name != "zarr.json" and ours[name] != theirs[name]] == []
    assert json.loads(ours["zarr.json"]) == json.loads(theirs["zarr.json"])
    assert len([name for name in ours if name.startswith("X/data/c/")]) > 1


def test_rows_are_read_lazily(whole_sparse):
    dense = anndata.read_zarr(whole_sparse).X.toarray()
    lazy = anndata.experimental.read_lazy(whole_sparse)
    chosen = np.asarray(lazy.obs["intervention"] == "stim=IFN")
    np.testing.assert_array_equal(lazy[chosen].to_memory().X.toarray(), dense[chosen])
    rows = anndata.io.sparse_dataset(zarr.open_group(whole_sparse, mode="r")["X"])[100:140]
    np.testing.assert_array_equal(rows.toarray(), dense[100:140])


def test_scanpy_takes_it(whole_sparse):
    scanpy = pytest.importorskip("scanpy")
    atlas = anndata.read_zarr(whole_sparse)
    scanpy.pp.pca(atlas, n_comps=5)
    scanpy.tl.rank_genes_groups(atlas, "intervention", method="t-test")
    assert atlas.obsm["X_pca"].shape == (3 * CELLS, 5)


def test_one_file_holds_a_csr_matrix_too(sparse, whole_sparse, tmp_path):
    sparse.write(tmp_path / "atlas.h5ad")
    read = anndata.read_h5ad(tmp_path / "atlas.h5ad")
    assert isinstance(read.X, scipy.sparse.csr_matrix)
    assert (read.X != anndata.read_zarr(whole_sparse).X).nnz == 0


def test_rows_of_zeros_alone():
    rows = np.zeros((5, 4), dtype=np.float32)
    rows[2, [0, 3]] = 1, -0.0
    found = compress_rows(rows)
    assert {name: array.tolist() for name, array in found.items()} == {
        "data": [1.0],
        "indices": [0],
        "lengths": [0, 0, 1, 0, 0],
    }


@pytest.mark.parametrize("kept", [0, 1, 4])
def test_an_atlas_of_almost_nothing(sparse, tmp_path, monkeypatch, kept):
    """No nonzero value at all, few in the last row, or few in the first: files and shards may have none."""
    made = ShardMaker.blocks

    def emptied(self, ranges, clock=None):
        for block in made(self, ranges, clock):
            values = np.zeros(block.arrays["X"].shape, dtype=np.float32)
            if kept == 1 and block.cells.stop == CELLS:
                values[-1, 3:5] = 2
            if kept == 4 and block.cells.start == 0:
                values[0] = 1
            yield replace(block, arrays={"X": values})

    monkeypatch.setattr(ShardMaker, "blocks", emptied)
    out = tmp_path / "atlas.zarr"
    sparse.write(out)
    assert verify_atlas(out).sound
    read = anndata.read_zarr(out)
    assert read.X.nnz == {0: 0, 1: 2, 4: GENES}[kept]
    assert read.X.toarray().sum() == {0: 0, 1: 4, 4: GENES}[kept]
    before = times(out)
    assert sparse.write(out).made == 0
    assert times(out) == before


# -- the choice --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "layout"),
    [
        ({}, "csr"),
        ({"solver": "draw", "steps": 3}, "csr"),
        ({"solver": "mean"}, "dense"),
        ({"solver": "ddim", "steps": 3}, "dense"),  # ends in a posterior mean, of which few values are zero
        ({"dtype": "float16"}, "dense"),
        ({"store": "counts"}, "csr"),
        ({"store": "effects", "do": {"stim": "IFN"}}, "dense"),
        ({"store": "embeddings"}, "dense"),
        ({"store": "summary", "draws": 2}, "dense"),
        ({"store": "effects", "do": {"stim": "IFN"}, "layout": "csr"}, "csr"),
        ({"solver": "mean", "layout": "csr"}, "csr"),
    ],
    ids=str,
)
def test_the_usual_layout_is_by_how_many_values_are_zero(recipe, options, layout):
    plan = recipe.plan(**{"layout": None, **options})
    assert plan.layout == layout
    assert ("layout" in plan.model_dump(mode="json")) == (layout == "csr")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dtype": "float16"}, "layout='csr' and dtype='float16' exclude each other.*take dtype='float32'"),
        ({"store": "embeddings"}, "layout='csr' is one of X alone, and store='embeddings' keeps 'obsm/X_causcell'"),
        ({"store": "summary", "draws": 2}, "is one of X alone, and store='summary' keeps 'X', 'layers/deviation'"),
    ],
    ids=str,
)
def test_what_can_not_be_a_csr_matrix_is_refused(sparse, options, said):
    with pytest.raises(ConfigurationError, match=said):
        sparse.plan(**options)


def test_an_unknown_layout_is_refused(sparse):
    with pytest.raises(ConfigurationError, match=r"layout 'csc' is not known; did you mean 'csr'"):
        sparse.plan(layout="csc")


def test_effects_as_a_csr_matrix(recipe, tmp_path):
    options = {"store": "effects", "do": [{"stim": "IFN"}]}
    for layout in ("dense", "csr"):
        recipe.write(tmp_path / f"{layout}.zarr", **options, layout=layout)
    dense, csr = (anndata.read_zarr(tmp_path / f"{layout}.zarr").X for layout in ("dense", "csr"))
    np.testing.assert_array_equal(csr.toarray(), dense)
    assert csr.min() < 0
    assert verify_atlas(tmp_path / "csr.zarr").sound


def test_counts_as_a_csr_matrix(recipe, tmp_path):
    for layout in ("dense", "csr"):
        recipe.write(tmp_path / f"{layout}.zarr", store="counts", layout=layout)
    dense, csr = (anndata.read_zarr(tmp_path / f"{layout}.zarr").X for layout in ("dense", "csr"))
    np.testing.assert_array_equal(csr.toarray(), dense)
    assert csr.dtype == np.int32
    assert verify_atlas(tmp_path / "csr.zarr").sound


def test_what_an_earlier_version_began_goes_on_dense(recipe, whole, tmp_path, monkeypatch):
    """Where no layout is asked for; a layout that is asked for is another plan."""
    out = tmp_path / "atlas.zarr"
    with monkeypatch.context() as patch:
        stop_after(patch, 3, RuntimeError("midway"))
        with pytest.raises(RuntimeError):
            recipe.write(out)
    with pytest.raises(OutputExistsError, match=r"another plan: layout \('dense' there, 'csr' asked for\)"):
        recipe.write(out, layout="csr")
    recipe.write(out, layout=None)
    assert tree(out) == whole


def test_embeddings_are_materialised_to_the_same_store(sparse, whole_sparse, tmp_path):
    sparse.write(tmp_path / "embeddings.zarr", store="embeddings", layout=None)
    out, sizes = tmp_path / "atlas.zarr", {name: OPTIONS[name] for name in ("chunk_size", "shard_size")}
    plan, _ = materialize_atlas(sparse.generator.model, tmp_path / "embeddings.zarr", out, **sizes)
    assert plan.layout == "csr"
    assert tree(out) == tree(whole_sparse)


# -- interrupted -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Replay(ShardMaker):
    """Makes shards of blocks that were generated once: what is tested is how they are written."""

    held: dict[int, list[Any]] = field(default_factory=dict)

    def blocks(self, ranges, clock=None):
        for within in ranges:
            yield from self.held[within.start]


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture(scope="module")
def replay(sparse, tmp_path_factory):
    options = {name: value for name, value in sparse.options.items() if name != "do"}
    chosen = complete_options(options, "open_atlas")
    place = tmp_path_factory.mktemp("replay") / "atlas.zarr"
    model = sparse.generator.model
    with open_atlas(model, None, sparse.cells, place, sparse.options["do"], (), chosen) as opened:
        made = opened.maker
        ranges = [made.plan.cells_of(shard) for shard in range(made.plan.shards)]
        held = {within.start: list(made.blocks([within])) for within in ranges}
        yield Replay(**{**vars(made), "task": None}, held=held), opened.origin


def test_killed_between_any_two_changes_of_the_disk_it_ends_the_same(replay, whole_sparse, tmp_path, monkeypatch):
    """From the last shard to the end: nothing that was finished counts as damaged, and the next run ends alike."""
    maker, origin = replay
    whole = tree(whole_sparse)
    left: list[int | None] = [None]

    def counted(change):
        def call(*words, **options):
            if left[0] is not None:
                left[0] -= 1
                if left[0] < 0:
                    raise Killed
            return change(*words, **options)

        return call

    for name in ("rename", "replace", "unlink", "remove", "mkdir", "rmdir"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    begun = tmp_path / "begun.zarr"
    with monkeypatch.context() as patch:
        stop_after(patch, SHARDS - 1, RuntimeError("midway"))
        with pytest.raises(RuntimeError):
            write_atlas(replace(maker, path=begun), origin)
    killed, moment = 0, 0
    while True:
        path = Path(shutil.copytree(begun, tmp_path / "atlas.zarr"))
        left[0] = moment
        try:
            write_atlas(replace(maker, path=path), origin)
            over = True
        except Killed:
            over = False
            killed += 1
        finally:
            left[0] = None
        found = verify_atlas(path)
        assert (found.damaged, found.invalid, found.unknown) == ({}, {}, ()), moment
        assert found.finished == (path / "zarr.json").exists()
        assert found.sound or not found.finished
        summary = write_atlas(replace(maker, path=path), origin)
        assert summary.made <= max(summary.rows // SHARDS, maker.plan.shard_rows), moment  # the last shard, or none
        assert tree(path) == whole, moment
        assert sorted(each.name for each in (path / FOLDER).iterdir()) == [
            "assembled", "lock", "metadata.json", "plan.json", "shards", "zarr.json",
        ]  # fmt: skip
        shutil.rmtree(path)
        if over:
            break
        moment += 7
    assert killed > 10


def test_shards_are_made_in_any_order(replay, whole_sparse, tmp_path):
    class Backwards:
        def run(self, maker, shards):
            for shard in reversed(shards):
                list(maker.make([shard]))
                yield from maker.make([shard])

    maker, origin = replay
    write_atlas(replace(maker, path=tmp_path / "atlas.zarr"), origin, executor=Backwards())
    assert tree(tmp_path / "atlas.zarr") == tree(whole_sparse)


def test_pieces_are_there_until_the_matrix_is(sparse, tmp_path, monkeypatch):
    out = tmp_path / "atlas.zarr"
    with monkeypatch.context() as patch:
        stop_after(patch, 3, RuntimeError("midway"))
        with pytest.raises(RuntimeError):
            sparse.write(out)
    assert {path.name for path in (out / PIECES).iterdir()} >= {"000000", "000001", "000002"}
    flip(out / PIECES / "000001")
    assert verify_atlas(out).damaged == {1: (str(PIECES / "000001"),)}
    sparse.write(out)
    assert not (out / PIECES).exists()


@pytest.mark.parametrize("spoil", [flip, Path.unlink])
def test_a_spoilt_piece_is_made_again_before_it_is_assembled(sparse, whole_sparse, tmp_path, monkeypatch, spoil):
    """By its digest: what is wrong in it would be recorded as right."""
    out = tmp_path / "atlas.zarr"
    with monkeypatch.context() as patch:
        stop_after(patch, SHARDS - 1, RuntimeError("midway"))
        with pytest.raises(RuntimeError):
            sparse.write(out)
    spoil(out / PIECES / "000002")
    assert sparse.write(out).made > sparse.plan().shard_rows
    assert tree(out) == tree(whole_sparse)


def test_pieces_count_when_space_is_short(sparse, tmp_path, monkeypatch):
    forecast = sparse.plan(forecast=True).forecast
    assert forecast.scratch_bytes > 0
    monkeypatch.setattr("causcell.atlas.estimate.free_bytes", lambda _: forecast.bytes + forecast.scratch_bytes // 2)
    with pytest.raises(OutputFullError, match="free some space"):
        sparse.write(tmp_path / "atlas.zarr")


def test_the_size_on_disk_is_told_beforehand(generator, cells, tmp_path):
    larger = AtlasRecipe(generator, cells[:200].copy(), {"do": {"stim": "IFN"}, "grid": ["cell_type"]})
    forecast = larger.plan(forecast=True).forecast
    summary = larger.write(tmp_path / "atlas.zarr")
    assert larger.plan().layout == "csr"
    assert summary.bytes == pytest.approx(forecast.bytes, rel=0.1)


# -- damaged -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["X/data/c/1", "X/indices/c/2", "X/indptr/c/0"])
@pytest.mark.parametrize("spoil", [flip, Path.unlink])
def test_a_damaged_file_names_the_shards_whose_values_it_holds(sparse, whole_sparse, finished_sparse, name, spoil):
    spoil(finished_sparse / name)
    found = verify_atlas(finished_sparse)
    assert not found.sound
    assert set(found.damaged) < set(range(SHARDS)) or "indptr" in name
    assert {each for files in found.damaged.values() for each in files} == {name}
    made = sparse.write(finished_sparse).made
    assert made <= len(found.damaged) * sparse.plan().shard_rows
    assert tree(finished_sparse) == tree(whole_sparse)
    assert verify_atlas(finished_sparse).sound


def test_a_run_sees_by_itself_what_lacks(sparse, whole_sparse, finished_sparse):
    (finished_sparse / "X/data/c/1").unlink()
    assert 0 < sparse.write(finished_sparse).made < 3 * CELLS
    assert tree(finished_sparse) == tree(whole_sparse)


def test_a_damaged_annotation_makes_one_shard_again_and_leaves_the_matrix(sparse, whole_sparse, finished_sparse):
    flip(finished_sparse / "obs/_index/c/2")
    assert verify_atlas(finished_sparse).damaged == {2: ("obs/_index/c/2",)}
    before = {path: path.stat().st_mtime_ns for path in (finished_sparse / "X").rglob("c/*")}
    assert sparse.write(finished_sparse).made == sparse.plan().shard_rows
    assert {path: path.stat().st_mtime_ns for path in (finished_sparse / "X").rglob("c/*")} == before
    assert tree(finished_sparse) == tree(whole_sparse)
    assert not (finished_sparse / PIECES).exists()


@pytest.mark.parametrize("name", ["zarr.json", "X/zarr.json", "X/data/zarr.json", "X/indptr/zarr.json"])
def test_damaged_metadata_are_written_again(sparse, whole_sparse, finished_sparse, name):
    flip(finished_sparse / name)
    assert verify_atlas(finished_sparse).damaged == {None: (name,)}
    sparse.write(finished_sparse)
    assert tree(finished_sparse) == tree(whole_sparse)
    assert verify_atlas(finished_sparse).sound


def test_a_record_that_is_lost_is_no_damage_to_the_matrix(sparse, whole_sparse, finished_sparse):
    (finished_sparse / FOLDER / "shards" / "000004.json").unlink()
    found = verify_atlas(finished_sparse)
    assert (found.missing, found.damaged) == ((4,), {})
    sparse.write(finished_sparse)
    assert tree(finished_sparse) == tree(whole_sparse)


def test_a_shard_that_comes_out_otherwise_is_assembled_anew(sparse, finished_sparse, monkeypatch):
    """As on another machine, where the last bits of draws differ: a matrix is never of two makings."""
    flip(finished_sparse / "obs/_index/c/2")
    verify_atlas(finished_sparse)
    made = ShardMaker.blocks

    def otherwise(self, ranges, clock=None):
        for block in made(self, ranges, clock):
            values = block.arrays["X"].toarray()
            values[0, 0] = 0 if values[0, 0] else 1
            yield replace(block, arrays={"X": values})

    monkeypatch.setattr(ShardMaker, "blocks", otherwise)
    sparse.write(finished_sparse)
    assert verify_atlas(finished_sparse).sound
    assert anndata.read_zarr(finished_sparse).X.has_canonical_format


# -- from a stranger ---------------------------------------------------------------------------------------------------


def rewrite(path: Path, array: str, change: Any) -> None:
    """Write an array of the matrix with other values, and record it as it is."""
    group = zarr.open_group(path, mode="r+", use_consolidated=False)
    values = group[f"X/{array}"][:]
    change(values)
    with zarr.config.set({"array.write_empty_chunks": True}):
        group[f"X/{array}"][:] = values
    journal = Journal(path)
    for file in (path / "X" / array / "c").iterdir():
        name = f"{FOLDER}/assembled/X/{array}/c/{file.name}.json"
        fields = journal.read(name)
        found = records.record_file(file).model_dump()
        journal.write(name, fields | {"file": found})
    shutil.rmtree(journal.work, ignore_errors=True)


def put(place: int, value: float) -> Any:
    def change(values):
        values[place] = value

    return change


@pytest.mark.parametrize(
    ("array", "change", "said"),
    [
        ("data", put(5, np.nan), "of its values are not finite"),
        ("data", put(5, -1), "of its values are negative"),
        ("data", put(5, 0), "of its values are stored zeros"),
        ("indices", put(5, 10**6), "of its columns are none of the matrix"),
        ("indices", put(5, -1), "of its columns are none of the matrix"),
        ("indices", lambda values: values[2:4].sort() or values[2:4].__setitem__(slice(None), values[3:1:-1].copy()),
         "do not ascend within their rows"),
        ("indptr", put(7, 0), "its rows do not end one after the other"),
        ("indptr", put(-1, 10**9), "its last row ends at 1000000000"),
    ],
)  # fmt: skip
def test_what_a_reader_would_stumble_over_is_found(sparse, whole_sparse, finished_sparse, array, change, said):
    rewrite(finished_sparse, array, change)
    found = verify_atlas(finished_sparse)
    assert not found.sound
    assert found.damaged == {}
    assert any(said in wrong for files in found.invalid.values() for wrong in files.values()), found.invalid
    sparse.write(finished_sparse)
    assert tree(finished_sparse) == tree(whole_sparse)


@pytest.mark.parametrize("content", [b"", b"\0" * 30])
def test_a_file_of_another_form_is_told_not_believed(finished_sparse, content):
    name, journal = f"{FOLDER}/assembled/X/data/c/0.json", Journal(finished_sparse)
    (finished_sparse / "X/data/c/0").write_bytes(content)
    fields = journal.read(name) | {"file": records.record_file(finished_sparse / "X/data/c/0").model_dump()}
    journal.write(name, fields)
    shutil.rmtree(journal.work, ignore_errors=True)
    assert not verify_atlas(finished_sparse).sound
