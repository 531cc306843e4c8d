"""What is written appears whole or not at all, and nothing that is there is overwritten."""

import stat

import pytest

from causcell._internal.files import new_file, new_folder, refuse_existing
from causcell.errors import OutputExistsError


def test_a_folder_appears_when_it_is_whole(tmp_path):
    target = tmp_path / "deep" / "models"
    with new_folder(target) as staging:
        (staging / "file").write_text("content")
        assert not target.exists()
        assert staging.parent.parent == target.parent  # the same file system, so that the last step is a rename
    assert (target / "file").read_text() == "content"
    assert [path.name for path in target.parent.iterdir()] == ["models"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o755


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_when_it_fails(tmp_path, error):
    with pytest.raises(error), new_folder(tmp_path / "models") as staging:
        (staging / "file").write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_there_is_refused_and_kept(tmp_path, kind):
    target = tmp_path / "models"
    if kind == "file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "mine").touch()
    with pytest.raises(OutputExistsError, match=r"models' exists already and is not overwritten; remove it, or name"):
        refuse_existing(target)
    with pytest.raises(OutputExistsError), new_folder(target):
        pytest.fail("the block is not entered")
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_an_empty_folder_is_nothing(tmp_path):
    (tmp_path / "models").mkdir()
    refuse_existing(tmp_path / "models")
    refuse_existing(tmp_path / "absent")
    with new_folder(tmp_path / "models") as staging:
        (staging / "file").touch()
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["file"]


def test_a_file_appears_when_it_is_whole(tmp_path):
    target = tmp_path / "deep" / "cells.h5ad"
    with new_file(target) as staging:
        staging.write_text("content")
        assert not target.exists()
        assert (staging.parent.parent, staging.name) == (target.parent, "cells.h5ad")
    assert target.read_text() == "content"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_file_before_stays_when_the_new_one_fails(tmp_path, error):
    target = tmp_path / "run.json"
    target.write_text("before")
    with pytest.raises(error), new_file(target, overwrite=True) as staging:
        staging.write_text("half")
        raise error
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_a_new_file_overwrites_only_where_that_is_asked_for(tmp_path):
    target = tmp_path / "run.json"
    target.write_text("before")
    with pytest.raises(OutputExistsError), new_file(target) as staging:
        staging.write_text("after")
    with new_file(target, overwrite=True) as staging:
        staging.write_text("after")
    assert target.read_text() == "after"
