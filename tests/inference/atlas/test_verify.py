"""Damage to an atlas is found, named, and mended by the next run."""

from pathlib import Path

import pytest
from atlases import SHARDS, tree

from causcell.atlas.journal import FOLDER
from causcell.atlas.verify import verify_atlas
from causcell.errors import AtlasError

pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")

# -- damaged -----------------------------------------------------------------------------------------------------------


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def shortened(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (flipped, "X/c/2/0"),
        (shortened, "X/c/2/0"),
        (Path.unlink, "X/c/2/0"),
        (flipped, "obs/_index/c/2"),
        (flipped, "obs/cell_type/codes/c/2"),
    ],
)
def test_a_damaged_shard_is_named_and_it_alone_is_made_again(recipe, whole, finished, spoil, name):
    spoil(finished / name)
    found = verify_atlas(finished)
    assert found.damaged == {2: (name,)}
    assert not found.sound
    before = {shard: (finished / f"X/c/{shard}/0").stat().st_mtime_ns for shard in range(SHARDS) if shard != 2}
    recipe.write(finished)
    assert tree(finished) == whole
    assert {shard: (finished / f"X/c/{shard}/0").stat().st_mtime_ns for shard in before} == before
    assert verify_atlas(finished).sound


@pytest.mark.parametrize("spoil", [shortened, Path.unlink])
def test_a_run_sees_by_itself_what_lacks_or_is_short(recipe, whole, finished, spoil):
    spoil(finished / "X/c/5/0")
    recipe.write(finished)
    assert tree(finished) == whole


@pytest.mark.parametrize(
    "name",
    ["X/zarr.json", "zarr.json", f"{FOLDER}/zarr.json", "var/_index/c/0", "obs/intervention/categories/c/0"],
)
def test_damaged_metadata_are_named_and_written_again(recipe, whole, finished, name):
    flipped(finished / name)
    found = verify_atlas(finished)
    assert found.damaged == {None: (name.removeprefix(f"{FOLDER}/"),)}
    recipe.write(finished)
    assert tree(finished) == whole
    assert verify_atlas(finished).sound


def test_a_damaged_record_vouches_for_nothing(recipe, whole, finished):
    shortened(finished / FOLDER / "shards" / "000004.json")
    assert verify_atlas(finished).missing == (4,)
    recipe.write(finished)
    assert tree(finished) == whole
    assert verify_atlas(finished).sound


def test_a_damaged_plan_is_an_error(recipe, finished):
    shortened(finished / FOLDER / "plan.json")
    for act in (verify_atlas, recipe.write):
        with pytest.raises(AtlasError, match=r"plan\.json can't be read.*remove"):
            act(finished)


def test_verifying_what_is_no_atlas(tmp_path):
    with pytest.raises(AtlasError, match=r"is no atlas of causcell's: it has no \.causcell/plan\.json"):
        verify_atlas(tmp_path)
    assert list(tmp_path.iterdir()) == []
