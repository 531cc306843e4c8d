"""Atlases of many shards: annotations of a group of shards in one file an array, records of many shards in one file.

``GROUPED_FROM`` and the sizes are made small here. What is in the atlas is what it is with a dozen files a shard, and
it is committed, interrupted, verified and repaired alike.
"""

import io
import json
import shutil
import warnings
from collections import Counter
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from atlases import CELLS, OPTIONS, SHARDS, AtlasRecipe, stop_after, times, tree

from causcell.atlas import journal as journal_module
from causcell.atlas import plan as plan_module
from causcell.atlas import record_batches
from causcell.atlas.annotation_pieces import AnnotationAssembly, piece_name, read_index, write_piece
from causcell.atlas.executors import Processes
from causcell.atlas.journal import FOLDER, Journal
from causcell.atlas.materialize import materialize_atlas
from causcell.atlas.verify import verify_atlas
from causcell.errors import AtlasError

pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")

GROUP, BATCH = 3, 3


@pytest.fixture
def grouped(monkeypatch):
    """More than two shards are many, and a group, or a file of records, has three."""
    monkeypatch.setattr(plan_module, "GROUPED_FROM", 2)
    monkeypatch.setattr(plan_module, "GROUP", GROUP)
    for module in (record_batches, journal_module):
        monkeypatch.setattr(module, "BATCH", BATCH)


@pytest.fixture(scope="module")
def source(cells, tmp_path_factory):
    """Cells with coordinates, and columns of every form."""
    cells = cells[:CELLS].copy()
    rng = np.random.default_rng(0)
    cells.obsm["spatial"] = rng.normal(size=(CELLS, 2)).astype(np.float32)
    cells.obs["note"] = [f"é {i}" for i in range(CELLS)]
    cells.obs["maybe"] = pd.array([None if i % 4 else i for i in range(CELLS)], dtype="Int32")
    path = tmp_path_factory.mktemp("grouped") / "cells.h5ad"
    cells.write_h5ad(path)
    return path


@pytest.fixture(params=["dense", "csr"])
def recipe(generator, source, request):
    return AtlasRecipe(generator, source, {**OPTIONS, "layout": request.param})


@pytest.fixture
def whole(recipe, grouped, tmp_path):
    """The atlas, made without an interruption."""
    path = tmp_path / "whole.zarr"
    recipe.write(path)
    return path


def journal_files(path: Path) -> Counter[str]:
    """Number of the journal's files by folder."""
    inside = (file.relative_to(path / FOLDER) for file in (path / FOLDER).rglob("*") if file.is_file())
    return Counter(str(file.parent) for file in inside)


def test_the_same_rows_stand_in_fewer_files(recipe, tmp_path, request):
    recipe.write(tmp_path / "single.zarr")
    request.getfixturevalue("grouped")
    summary = recipe.write(tmp_path / "grouped.zarr")
    assert recipe.plan().groups == 3
    one, other = (anndata.read_zarr(tmp_path / f"{name}.zarr") for name in ("single", "grouped"))
    for each in (one, other):
        each.uns["causcell"].pop("plan")
    pd.testing.assert_frame_equal(one.obs, other.obs)
    pd.testing.assert_frame_equal(one.var, other.var)
    np.testing.assert_array_equal(one.obsm["spatial"], other.obsm["spatial"])
    assert type(one.X) is type(other.X)
    dense = [each.X if recipe.options["layout"] == "dense" else each.X.toarray() for each in (one, other)]
    np.testing.assert_array_equal(*dense)
    assert verify_atlas(tmp_path / "grouped.zarr").sound
    assert summary.bytes > 0
    few, many = (
        sum(file.is_file() for file in (tmp_path / f"{name}.zarr/obs").rglob("*")) for name in ("grouped", "single")
    )
    assert many - few > SHARDS * 10
    assert journal_files(tmp_path / "grouped.zarr")["records"] == 3
    assert journal_files(tmp_path / "grouped.zarr")["shards"] == 0
    assert not (tmp_path / "grouped.zarr" / FOLDER / "pieces").exists()


def test_it_is_read_lazily(whole):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lazy = anndata.experimental.read_lazy(whole)
        read = lazy[5:70].to_memory()
    pd.testing.assert_frame_equal(read.obs, anndata.read_zarr(whole).obs[5:70], check_categorical=False)


def test_a_shard_under_way_has_four_files_at_most(recipe, grouped, tmp_path, monkeypatch):
    path = tmp_path / "atlas.zarr"
    stop_after(monkeypatch, 5, KeyboardInterrupt())
    before: set[str] = set()
    with pytest.raises(KeyboardInterrupt):
        recipe.write(path, on_event=lambda event: before or before.update(names(path)))
    made = [name for name in names(path) - before if "/shards/" not in name and "/records/" not in name]
    assert len(made) <= 4 * 6  # five that are recorded, and one that is not


def names(path: Path) -> set[str]:
    return {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize("shards", range(SHARDS))
def test_an_interrupted_run_goes_on_from_any_shard(recipe, whole, tmp_path, monkeypatch, shards):
    path = tmp_path / "atlas.zarr"
    with monkeypatch.context() as context:
        stop_after(context, shards, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            recipe.write(path)
    assert len(Journal(path).records(recipe.plan())) == shards
    assert journal_files(path)["records"] == shards // BATCH
    assert journal_files(path)["shards"] == shards % BATCH
    assert not verify_atlas(path).damaged
    summary = recipe.write(path)
    assert summary.made == sum(record.rows for shard, record in Journal(path).records().items() if shard >= shards)
    assert tree(path) == tree(whole)
    assert verify_atlas(path).sound


@pytest.mark.parametrize("groups", range(3))
def test_a_run_that_is_stopped_while_files_are_put_together_goes_on(recipe, whole, tmp_path, monkeypatch, groups):
    path, made = tmp_path / "atlas.zarr", []
    make = AnnotationAssembly._make

    def stop(self, group, shards):
        if len(made) == groups:
            raise KeyboardInterrupt
        make(self, group, shards)
        made.append(group)

    with monkeypatch.context() as context:
        context.setattr(AnnotationAssembly, "_make", stop)
        with pytest.raises(KeyboardInterrupt):
            recipe.write(path)
    found = verify_atlas(path)
    assert (found.missing, found.damaged, found.finished, found.unknown) == ((), {}, False, ())
    assert recipe.write(path).made == 0
    assert tree(path) == tree(whole)
    assert verify_atlas(path).sound


def test_a_finished_one_is_left_alone(recipe, whole):
    before = times(whole)
    assert recipe.write(whole).made == 0
    assert times(whole) == before


@pytest.mark.parametrize("damage", ["missing", "changed", "shorter"])
def test_a_damaged_file_of_a_group_is_made_again(recipe, whole, tmp_path, damage):
    path = Path(shutil.copytree(whole, tmp_path / "atlas.zarr"))
    file = path / "obs/intervention/codes/c/1"
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(content[:-1] if damage == "shorter" else bytes([content[0] ^ 1]) + content[1:])
    found = verify_atlas(path)
    assert found.damaged == dict.fromkeys((3, 4, 5), ("obs/intervention/codes/c/1",))
    assert recipe.write(path).made == 3 * 3 * 21
    assert tree(path) == tree(whole)
    assert verify_atlas(path).sound


def test_a_piece_that_is_gone_is_made_again(recipe, whole, tmp_path, monkeypatch):
    path = tmp_path / "atlas.zarr"
    with monkeypatch.context() as context:
        context.setattr(AnnotationAssembly, "_make", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            recipe.write(path)
    (path / piece_name(4)).unlink()
    assert verify_atlas(path).damaged == {4: (piece_name(4),)}
    assert recipe.write(path).made == 3 * 21
    assert tree(path) == tree(whole)


def test_a_piece_of_another_form_is_told(recipe, grouped, tmp_path, monkeypatch):
    path = tmp_path / "atlas.zarr"
    with monkeypatch.context() as context:
        context.setattr(AnnotationAssembly, "_make", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            recipe.write(path)
    monkeypatch.setattr(AnnotationAssembly, "is_spoilt", lambda self, shard, by_size=False: False)
    (path / piece_name(4)).write_bytes(b"")
    with pytest.raises(AtlasError, match="a piece that is not what it is recorded as"):
        recipe.write(path)


def test_an_atlas_of_an_earlier_version_goes_on_as_it_was_begun(recipe, tmp_path, monkeypatch, request):
    path = tmp_path / "atlas.zarr"
    with monkeypatch.context() as context:
        stop_after(context, 3, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            recipe.write(path)
    recipe.write(tmp_path / "single.zarr")
    request.getfixturevalue("grouped")
    recipe.write(path)
    assert tree(path) == tree(tmp_path / "single.zarr")
    assert Journal(path).require_plan().group is None
    assert verify_atlas(path).sound


def test_few_shards_have_plans_of_earlier_versions(recipe):
    assert "group" not in recipe.plan().model_dump(mode="json")


def test_workers_of_their_own_make_the_same(generator, repository, source, grouped, tmp_path):
    from causcell.generator import Generator

    with Generator.open(repository, threads=1, batch_size=64) as opened:
        recipe = AtlasRecipe(opened, source, {**OPTIONS, "layout": "csr"})
        recipe.write(tmp_path / "one.zarr")
        recipe.write(tmp_path / "two.zarr", executor=Processes(2))
    assert tree(tmp_path / "one.zarr") == tree(tmp_path / "two.zarr")


def test_expression_is_made_of_grouped_embeddings(generator, source, grouped, tmp_path):
    options = {**OPTIONS, "store": "embeddings"}
    AtlasRecipe(generator, source, options).write(tmp_path / "embeddings.zarr")
    AtlasRecipe(generator, source).write(tmp_path / "direct.zarr")
    sizes = {name: OPTIONS[name] for name in ("chunk_size", "shard_size")}
    materialize_atlas(generator.model, tmp_path / "embeddings.zarr", tmp_path / "atlas.zarr", layout="dense", **sizes)
    mine, direct = tree(tmp_path / "atlas.zarr"), tree(tmp_path / "direct.zarr")
    assert {name for name in mine if mine[name] != direct.get(name)} <= {
        name for name in mine if name.startswith(("uns/", "zarr.json"))
    }


# -- records of many shards --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"[{", b"\xff"])
def test_a_damaged_file_of_records_vouches_for_nothing(recipe, whole, tmp_path, content):
    path = Path(shutil.copytree(whole, tmp_path / "atlas.zarr"))
    (path / FOLDER / "records/000001.json").write_bytes(content)
    assert sorted(Journal(path).records(recipe.plan())) == [0, 1, 2, 6, 7]
    assert recipe.write(path).made == 3 * 3 * 21
    assert tree(path) == tree(whole)


def test_records_in_another_files_place_vouch_for_nothing(recipe, whole):
    folder = whole / FOLDER / "records"
    (folder / "000001.json").write_bytes((folder / "000000.json").read_bytes())
    assert sorted(Journal(whole).records(recipe.plan())) == [0, 1, 2, 6, 7]


def test_a_withdrawn_shard_is_out_of_its_file(recipe, whole):
    journal = Journal(whole)
    for shard in (3, 4):
        journal.withdraw(shard)
    assert sorted(journal.records(recipe.plan())) == [0, 1, 2, 5, 6, 7]
    journal.withdraw(5)
    assert not (whole / FOLDER / "records/000001.json").exists()


def test_a_record_without_its_annotations_does_not_fit(recipe, whole):
    file = whole / FOLDER / "records/000002.json"
    fields = json.loads(file.read_text())
    del fields[0]["annotations"]
    file.write_text(json.dumps(fields))
    assert sorted(Journal(whole).records(recipe.plan())) == [0, 1, 2, 3, 4, 5, 7]


# -- the file of a shard's annotations ---------------------------------------------------------------------------------


def test_chunks_are_found_by_name(tmp_path):
    chunks = {"obs/a": b"123", "obs/é/codes": b"", "obsm/spatial": b"4567"}
    with write_piece(tmp_path, chunks).open("rb") as file:
        found = {}
        for name, (start, length) in read_index(file).items():
            file.seek(start)
            found[name] = file.read(length)
    assert found == chunks


@pytest.mark.parametrize(
    "content",
    [b"", b"1234567", b"\xff" * 8, b"{}" + b"\x03" + bytes(7), b"[]\x02" + bytes(7), b'{"a": [0, 99]}\x0e' + bytes(7),
     b'{"a": 1}\x08' + bytes(7), b'{"a": [-1, 1]}\x0e' + bytes(7), b'{"a": ["", 1]}\x0e' + bytes(7)],
)  # fmt: skip
def test_an_index_that_is_none_is_refused(content):
    with pytest.raises(ValueError, match=r"index|utf-8|Expecting"):
        read_index(io.BytesIO(content))
