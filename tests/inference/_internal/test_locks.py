"""One holder of a place at a time, with flock and without it, and what ended processes leave is no hindrance."""

import errno
import fcntl
import json
import os
import platform
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from causcell._internal import locks
from causcell._internal.locks import flush_folder, hold
from causcell.errors import OutputBusyError, OutputError

NO_LOCKS = [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP]


def refuse(number: int) -> Callable[..., None]:
    def call(*words: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


@pytest.fixture(params=[None, *NO_LOCKS], ids=["flock", "ENOSYS", "ENOLCK", "EOPNOTSUPP"])
def file_system(request, monkeypatch) -> int | None:
    """With flock, and without it by each of the errors that tell so."""
    if request.param is not None:
        monkeypatch.setattr(fcntl, "flock", refuse(request.param))
    return request.param


def test_a_second_holder_is_refused_until_the_first_ends(tmp_path: Path, file_system: int | None) -> None:
    lock = tmp_path / "lock"
    for _ in range(2):
        with hold(lock, tmp_path), pytest.raises(OutputBusyError, match="is writing to"), hold(lock, tmp_path):
            pytest.fail("the block is not entered")
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_of_many_at_once_one_holds_it(tmp_path: Path, file_system: int | None) -> None:
    start, end, outcomes = threading.Barrier(8), threading.Barrier(8), []

    def take() -> None:
        start.wait()
        try:
            with hold(tmp_path / "lock", tmp_path):
                outcomes.append("held")
                end.wait()
        except OutputBusyError:
            outcomes.append("busy")
            end.wait()

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["busy"] * 7 + ["held"]


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = f"""
import errno, fcntl, os, signal
from pathlib import Path
from causcell._internal.locks import hold
def flock(*words): raise OSError(errno.ENOSYS, "no locks")
fcntl.flock = flock
with hold(Path({str(tmp_path / "lock")!r}), Path({str(tmp_path)!r})):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert (tmp_path / "lock.owner").exists()
    monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOSYS))
    with hold(tmp_path / "lock", tmp_path):
        assert json.loads((tmp_path / "lock.owner").read_text())["pid"] == os.getpid()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


@pytest.mark.parametrize(
    "owner",
    [
        {"host": "another", "boot": "x", "namespace": 1, "pid": 2**22 + 1, "started": "1"},
        {"host": platform.node(), "boot": "x", "namespace": 1, "pid": 2**22 + 1, "started": "1"},
    ],
    ids=["another machine", "another container"],
)
def test_of_a_process_elsewhere_nobody_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: dict) -> None:
    """It is refused, and the message has what to remove."""
    monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOLCK))
    (tmp_path / "lock.owner").write_text(json.dumps(owner))
    with (
        pytest.raises(OutputBusyError, match=r"has no locks \(flock\).* or remove .*lock\.owner'"),
        hold(tmp_path / "lock", tmp_path),
    ):
        pytest.fail("the block is not entered")
    (tmp_path / "lock.owner").unlink()
    with hold(tmp_path / "lock", tmp_path):
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"pid": "x"}', "[" * 3000])
def test_an_owner_that_can_not_be_read_is_nobodys_to_take(tmp_path, monkeypatch, content: str) -> None:
    monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOLCK))
    (tmp_path / "lock.owner").write_text(content)
    with pytest.raises(OutputBusyError, match="remove"), hold(tmp_path / "lock", tmp_path):
        pytest.fail("the block is not entered")


def test_a_number_that_another_process_has_now_is_no_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process's own number, of one that started at another time."""
    monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOLCK))
    (tmp_path / "lock.owner").write_text(json.dumps(locks.describe_process(os.getpid()) | {"started": "1"}))
    with hold(tmp_path / "lock", tmp_path):
        pass


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "pipe"])
def test_what_is_no_file_is_neither_followed_nor_waited_for(tmp_path: Path, kind: str) -> None:
    lock, mine = tmp_path / "lock", tmp_path / "mine"
    mine.write_text("kept")
    if kind == "folder":
        lock.mkdir()
    elif kind == "pipe":
        os.mkfifo(lock)
    else:
        lock.symlink_to(mine if kind == "link" else tmp_path / "absent")
    with pytest.raises(OutputError, match=r"is a link or no file|is no file"), hold(lock, tmp_path):
        pytest.fail("the block is not entered")
    assert mine.read_text() == "kept"
    assert not (tmp_path / "absent").exists()


def test_a_lock_is_never_emptied(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("mine")
    with hold(tmp_path / "lock", tmp_path):
        pass
    assert (tmp_path / "lock").read_text() == "mine"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_folders_that_can_not_be_flushed_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    flush = os.fsync

    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))
        flush(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    flush_folder(tmp_path)
    monkeypatch.setattr(os, "fsync", refuse(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        flush_folder(tmp_path)
