"""A damaged or hostile zarr store of cells is refused with a message, or read as what it was."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import pytest
import zarr
from damage import LOST, cells, read_all, same
from fuzzing import inputs, tried
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.filterwarnings("ignore::Warning")

LAYOUTS = [f"{matrix}-{form}" for matrix in ("dense", "csr", "csc") for form in ("v2", "v3", "zip")]
METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")


@dataclass(repr=False)
class Base:
    """A sound store (a folder), what it reads as, keys of its documents and chunks, and whether to zip it."""

    path: Path
    expected: dict[str, Any]
    documents: list[str]
    chunks: list[str]
    zipped: bool


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Sound stores by layout."""
    return {layout: make_base(tmp_path_factory.mktemp("zarr") / "cells.zarr", layout) for layout in LAYOUTS}


def make_base(path: Path, layout: str) -> Base:
    matrix, _, form = layout.partition("-")
    with anndata.settings.override(zarr_write_format=2 if form == "v2" else 3):
        cells(matrix).write_zarr(path, chunks=(5, 7) if matrix == "dense" else None)
    keys = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    documents = [key for key in keys if Path(key).name in METADATA]
    return Base(path, read_all(path), documents, [key for key in keys if key not in documents], form == "zip")


def damaged(base: Base, damage: Callable[[Path], None]) -> dict[str, Any] | None:
    """What a damaged copy reads as; `None` where it is refused."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "cells.zarr")
        shutil.copytree(base.path, copy)
        damage(copy)
        with tried("zarr cells"):
            return read_all(zipped(copy) if base.zipped else copy)
    return None


def zipped(folder: Path) -> Path:
    path = folder.with_name("cells.zarr.zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, str(file.relative_to(folder)))
    return path


def drop(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def leave(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


def garbage(path: Path) -> None:
    path.write_bytes(b"\x00\xff{[" * 20)


def nest(path: Path) -> None:
    path.write_text("[" * 100_000)


FILES = {each.__name__: each for each in (drop, cut, empty, folder, pipe, leave, garbage, nest)}

VALUES: dict[str, Any] = {
    "nothing": None,
    "zero": 0,
    "negative": [-1],
    "vast": [2**50],
    "text": "no such thing",
    "pickle": [{"name": "pickle", "id": "pickle"}],
    "numcodecs": [{"name": "numcodecs.json2", "configuration": {"id": "json2"}}],
    "object": {"name": "pickle", "id": "pickle", "configuration": {}},
    "float": 0.5,
}


def untold(key: str) -> tuple[str, ...]:
    """Parts that read as zeros once a chunk is gone, which is also how zarr stores zeros."""
    return LOST if key.startswith(("obs/", "obsm/", "var/")) else ()


@inputs(70)
@given(st.sampled_from(LAYOUTS), st.sampled_from(sorted(FILES)), st.integers(0, 10**6))
def test_a_store_with_damaged_chunks_never_reads_as_other_data(bases, layout, kind, which):
    base = bases[layout]
    key = base.chunks[which % len(base.chunks)]
    found = damaged(base, lambda path: FILES[kind](path / key))
    if found is not None:
        same(found, base.expected, but=untold(key))


@inputs(50)
@given(st.sampled_from(LAYOUTS), st.sampled_from(sorted(FILES)), st.integers(0, 10**6))
def test_a_store_with_damaged_documents_never_reads_as_other_data(bases, layout, kind, which):
    base = bases[layout]
    key = base.documents[which % len(base.documents)]
    found = damaged(base, lambda path: FILES[kind](path / key))
    if found is not None:
        same(found, base.expected)


@inputs(70)
@given(st.sampled_from(LAYOUTS), st.sampled_from([*sorted(VALUES), "gone"]), st.integers(0, 10**6), st.integers(0, 99))
def test_a_store_with_edited_documents_is_read_or_refused(bases, layout, kind, which, field):
    base = bases[layout]
    key = base.documents[which % len(base.documents)]
    edited = {}

    def edit(path: Path) -> None:
        document = json.loads((path / key).read_text())
        document.pop("consolidated_metadata", None)
        places = list(find_places(document))
        if not places:
            return
        parent, name = places[field % len(places)]
        edited["field"] = name
        if kind == "gone":
            del parent[name]
        else:
            parent[name] = VALUES[kind]
        (path / key).write_text(json.dumps(document))

    found = damaged(base, edit)
    if found is not None and edited.get("field") in ("shape", "node_type", "zarr_format", "encoding-type", "codecs"):
        same(found, base.expected)


def find_places(document: dict[str, Any]):
    """Every place of a document: its object, and the name within."""
    for name, value in document.items():
        yield document, name
        if isinstance(value, dict):
            yield from find_places(value)


@inputs(50)
@given(st.sampled_from(LAYOUTS), st.integers(0, 10**6), st.integers(0, 10**6), st.binary(min_size=1, max_size=8))
def test_a_store_with_other_bytes_is_read_or_refused(bases, layout, which, where, new):
    base = bases[layout]
    keys = base.documents + base.chunks

    def flip(path: Path) -> None:
        file = path / keys[which % len(keys)]
        data = bytearray(file.read_bytes())
        place = where % max(1, len(data))
        data[place : place + len(new)] = new
        file.write_bytes(data)

    damaged(base, flip)


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("part", ["indptr", "indices", "data"])
def test_no_chunk_of_a_sparse_matrix_may_be_missing(tmp_path, part, sharded):
    """In pieces and sharded too: zarr would read zeros, cells lose values or take those of others."""
    path = tmp_path / "cells.zarr"
    base = make_base(path, "csr-v3")
    group = zarr.open_group(path, mode="r+", use_consolidated=False)
    values, attributes = group[f"X/{part}"][:], dict(group[f"X/{part}"].attrs)
    options: dict[str, Any] = {"chunks": (4,), "shards": (8,)} if sharded else {"chunks": (8,)}
    del group[f"X/{part}"]
    group.create_array(f"X/{part}", data=values, attributes=attributes, **options)
    same(read_all(path), base.expected)
    (path / "X" / part / "c" / "1").unlink()
    assert damaged(Base(path, {}, [], [], False), lambda path: None) is None
