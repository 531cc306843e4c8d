"""What is written appears whole or not at all, and nothing that is there is overwritten."""

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from causcell._internal import files
from causcell._internal.files import ScratchFolder, local_path, new_file, new_folder, refuse_existing
from causcell.errors import ConfigurationError, OutputBusyError, OutputError, OutputExistsError


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


# -- after a kill ------------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
from causcell._internal.files import ScratchFolder, new_file, new_folder
kind, target = sys.argv[1:]
made = {"file": lambda: new_file(target), "folder": lambda: new_folder(target), "scratch": ScratchFolder}[kind]()
with made as staging:
    path = Path(getattr(staging, "path", staging))
    (path if kind == "file" else path / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(kind, target, tmp):
    tmp.mkdir(exist_ok=True)
    subprocess.run([sys.executable, "-c", KILLED, kind, target], env={**os.environ, "TMPDIR": str(tmp)}, check=False)


@pytest.mark.parametrize("make", [new_file, new_folder])
def test_what_a_killed_process_left_is_swept_by_the_next(tmp_path, make):
    target = tmp_path / "place" / "out.h5ad"
    killed("file" if make is new_file else "folder", target, tmp_path / "tmp")
    assert [path.name for path in target.parent.iterdir()] == [".out.h5ad.causcell"]
    refuse_existing(target)
    with make(target) as staging:
        (staging if make is new_file else staging / "file").write_text("whole")
    assert list(target.parent.iterdir()) == [target]
    assert (target if make is new_file else target / "file").read_text() == "whole"
    assert make is new_file or [path.name for path in target.iterdir()] == ["file"]


def test_temporary_folders_of_killed_processes_are_swept_and_those_in_use_are_not(tmp_path, monkeypatch):
    killed("scratch", "", tmp_path / "tmp")
    (left,) = (tmp_path / "tmp").iterdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    with ScratchFolder() as first, ScratchFolder() as second:
        assert not left.exists()
        assert {path.name for path in (tmp_path / "tmp").iterdir()} == {first.path.name, second.path.name}
    assert list((tmp_path / "tmp").iterdir()) == []


def test_nothing_is_swept_that_is_another_users_or_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "lock").touch()
    (tmp_path / "causcell-scratch-link").symlink_to(mine)
    (tmp_path / "causcell-scratch-young").mkdir()
    with ScratchFolder():
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "causcell-scratch-link",
        "causcell-scratch-young",
        "mine",
    ]
    assert [path.name for path in mine.iterdir()] == ["lock"]


def test_two_writers_of_one_file_are_told(tmp_path):
    with new_file(tmp_path / "out.json") as staging:
        with (
            pytest.raises(OutputBusyError, match=r"another run is writing to .*out\.json"),
            new_file(tmp_path / "out.json"),
        ):
            pytest.fail("the block is not entered")
        staging.write_text("first")
    assert (tmp_path / "out.json").read_text() == "first"


def test_a_file_that_came_meanwhile_is_not_overwritten(tmp_path):
    with pytest.raises(OutputExistsError), new_file(tmp_path / "out.json") as staging:
        staging.write_text("late")
        (tmp_path / "out.json").write_text("mine")
    assert (tmp_path / "out.json").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_nothing_is_made_through_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".out.json.causcell").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="is a link"), new_file(tmp_path / "out.json"):
        pytest.fail("the block is not entered")
    assert list((tmp_path / "elsewhere").iterdir()) == []


# -- paths -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["s3://bucket/a.zarr", "gs://b/a.zarr", "https://host/a.zarr", "abfs://x/y", "hdfs://n:9000/a", "s3:///a"]
)
@pytest.mark.parametrize("kind", [str, Path])
def test_a_url_is_no_path(url, kind, tmp_path, monkeypatch):
    """Also as the path that it became: Path("s3://bucket") is s3:/bucket."""
    monkeypatch.chdir(tmp_path)
    for act in (
        local_path,
        refuse_existing,
        lambda url: new_file(url).__enter__(),
        lambda url: new_folder(url).__enter__(),
    ):
        with pytest.raises(ConfigurationError, match=r"out='\w+://.*' is a URL.*; give a path"):
            act(kind(url))
    assert list(tmp_path.iterdir()) == []


def test_the_url_of_a_file_is_told_its_path(tmp_path):
    with pytest.raises(
        ConfigurationError, match=r"'file:///data/a\.zarr' is a URL; give the path alone, '/data/a\.zarr'"
    ):
        local_path("file:///data/a.zarr")


def test_home_is_where_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_path("~/a.zarr") == tmp_path / "a.zarr"
    assert local_path("a~/b") == Path("a~/b")
    with pytest.raises(ConfigurationError, match="no_such_user"):
        local_path("~no_such_user_at_all/a.zarr")


@pytest.mark.parametrize("path", ["a:b", "run=3:x/y", "/data/a:/b", "C:/x"])
def test_a_path_with_a_colon_is_a_path(path):
    assert local_path(path) == Path(path)


def test_a_temporary_folder_that_an_interrupt_left_goes_at_the_end_of_the_process(tmp_path, monkeypatch):
    """A signal between any two steps: here after the folder was made, before anybody could close it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, "rmtree", interrupt)  # while it is removed, too
        with pytest.raises(KeyboardInterrupt):
            ScratchFolder().close()
    assert len(list(tmp_path.iterdir())) == 1
    files.remove_own_scratch()
    assert list(tmp_path.iterdir()) == []
