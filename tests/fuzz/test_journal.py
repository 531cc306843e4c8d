"""The journal of an atlas, edited or damaged: verification ends, says what is so, and touches nothing else.

Every part of it: the plan (with its digest stated anew, as one who knows would), records of shards, the record of the
metadata. An atlas that is called sound after an edit is the atlas that it was: only what says nothing of its files may
have changed.
"""

import copy
import hashlib
import json
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
from fuzzing import inputs, tried
from hypothesis import given
from hypothesis import strategies as st

from causcell.atlas.journal import FOLDER
from causcell.atlas.verify import verify_atlas
from causcell.errors import AtlasError, CausCellWarning
from causcell.generator import Generator

ARCHIVE = Path(__file__).parents[1] / "archive" / "0.1.0"

SILENT = {"seconds", "worker", "unmatched", "unseen", "origin", "version", "model", "source", "threads", "batch_size"}
"""Fields that say nothing of an atlas's files; those of the plan are held by its digest."""

values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 40),
    st.sampled_from(
        [2**31, 2**63, 10**15, 10**400, -1.5, 1e308, float("inf"), float("nan"), "", "X", "../x", "/", "\0"]
    ),
    st.text(max_size=5),
    st.sampled_from([[], {}, [[]], {"a": 1}, [1, 2, 3]]),
)
others = st.recursive(
    values, lambda part: st.one_of(st.lists(part, max_size=3), st.dictionaries(st.text(max_size=4), part, max_size=3))
)


@pytest.fixture(scope="module", params=["dense", "csr"])
def atlas(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("journal") / "atlas.zarr"
    if request.param == "dense":
        with zipfile.ZipFile(ARCHIVE / "expression.zarr.zip") as packed:
            packed.extractall(path)
        return path
    with Generator.open(ARCHIVE / "models", threads=1, batch_size=8) as generator, warnings.catch_warnings():
        warnings.simplefilter("ignore", CausCellWarning)
        sizes = {"chunk_size": 400, "shard_size": 4000}
        generator.write_atlas(ARCHIVE / "cells.h5ad", path, grid=["cell_type"], solver="draw", layout="csr", **sizes)
    assert verify_atlas(path).sound
    return path


@pytest.fixture(scope="module")
def kept(atlas: Path) -> dict[str, bytes]:
    files = [atlas / FOLDER / "plan.json", atlas / FOLDER / "metadata.json", *(atlas / FOLDER / "shards").iterdir()]
    files += [file for file in (atlas / FOLDER / "assembled").rglob("*") if file.is_file()]
    return {str(file.relative_to(atlas)): file.read_bytes() for file in files}


def places(fields: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in JSON."""
    keys = list(fields) if isinstance(fields, dict) else range(len(fields)) if isinstance(fields, list) else ()
    return [place, *(inner for key in keys for inner in places(fields[key], (*place, key)))]


def edited(fields: Any, place: tuple[Any, ...], value: Any, how: str) -> Any:
    """JSON with another value at a place, or without it, or with one more."""
    if not place:
        return value
    fields = copy.deepcopy(fields)
    inside = fields
    for key in place[:-1]:
        inside = inside[key]
    if how == "remove":
        del inside[place[-1]]
    elif how == "add" and isinstance(inside, dict):
        inside["added"] = value
    else:
        inside[place[-1]] = value
    return fields


def restore(atlas: Path, kept: dict[str, bytes]) -> None:
    shutil.rmtree(atlas / FOLDER / "shards", ignore_errors=True)
    (atlas / FOLDER / "shards").mkdir()
    for name, content in kept.items():
        (atlas / name).parent.mkdir(parents=True, exist_ok=True)
        (atlas / name).write_bytes(content)


@inputs(200)
@given(data=st.data(), value=others, how=st.sampled_from(["change", "change", "remove", "add"]), stated=st.booleans())
def test_an_edit_is_found_or_says_nothing(
    atlas: Path, kept: dict[str, bytes], data: Any, value: Any, how: str, stated: bool
) -> None:
    name = data.draw(st.sampled_from(sorted(kept)))
    fields = json.loads(kept[name])
    place = data.draw(st.sampled_from(places(fields)))
    after = edited(fields, place, value, how)
    try:
        if stated and name.endswith("plan.json") and isinstance(after, dict) and "plan" in after:
            after["digest"] = hashlib.sha256(json.dumps(after["plan"], sort_keys=True).encode()).hexdigest()
        (atlas / name).write_text(json.dumps(after))
        with tried("journal of an atlas"):
            found = verify_atlas(atlas)
            same = json.dumps(after, sort_keys=True) == json.dumps(fields, sort_keys=True)
            silent = bool(SILENT & set(map(str, place))) or (stated and "request" in place) or "origin" in place
            assert not found.sound or same or silent or how == "add", (name, place, value)
    finally:
        restore(atlas, kept)


@inputs(200)
@given(
    data=st.data(),
    cut=st.integers(0, 4000),
    junk=st.binary(max_size=40),
    how=st.sampled_from(["cut", "put", "replace"]),
)
def test_damage_is_found(atlas: Path, kept: dict[str, bytes], data: Any, cut: int, junk: bytes, how: str) -> None:
    name = data.draw(st.sampled_from(sorted(kept)))
    content = kept[name]
    cut = min(cut, len(content) - 1)
    after = {"cut": content[:cut], "put": content[:cut] + junk + content[cut:], "replace": junk}[how]
    try:
        (atlas / name).write_bytes(after)
        with tried("journal of an atlas"):
            found = verify_atlas(atlas)
            if found.sound:
                now = json.loads(after)
                before = json.loads(content)
                differ = {key for key in before if isinstance(now, dict) and now.get(key) != before[key]}
                assert isinstance(now, dict)
                assert differ <= SILENT
    finally:
        restore(atlas, kept)


@pytest.mark.parametrize("depth", [1000, 100_000])
@pytest.mark.parametrize("name", ["plan.json", "metadata.json", "shards/000000.json"])
def test_deep_nesting_is_no_way_out(atlas: Path, kept: dict[str, bytes], name: str, depth: int) -> None:
    try:
        (atlas / FOLDER / name).write_text("[" * depth)
        with tried("journal of an atlas"):
            if name == "plan.json":
                with pytest.raises(AtlasError, match=r"plan\.json can't be read"):
                    verify_atlas(atlas)
            else:
                assert not verify_atlas(atlas).sound
    finally:
        restore(atlas, kept)


def test_a_huge_file_is_not_read(atlas: Path, kept: dict[str, bytes]) -> None:
    try:
        with (atlas / FOLDER / "plan.json").open("r+b") as file:
            file.truncate(10**10)  # without taking space
        with tried("journal of an atlas"), pytest.raises(AtlasError, match="it is no file of up to"):
            verify_atlas(atlas)
    finally:
        restore(atlas, kept)
