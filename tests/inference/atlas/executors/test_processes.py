"""Processes of this machine: one that is lost takes no other with it, and all end with their parent."""

import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

import anndata
import numpy as np
import pytest
from atlases import CELLS, environment, kill_once_a_shard_is_done, lose_worker, tree

from causcell.atlas.executors import Processes
from causcell.atlas.executors import processes as processes_module
from causcell.atlas.journal import FOLDER, Journal
from causcell.errors import ConfigurationError, ExpressionError, WorkerLostError

pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")


def worker_processes():
    """Find the processes that this one started, but for those of the cluster that other tests share."""
    return [child.pid for child in multiprocessing.active_children() if not child.name.startswith("Dask Worker")]


def test_a_killed_process_loses_its_shard_which_is_made_again(two_files, whole_of_two, tmp_path):
    path, killed = tmp_path / "atlas.zarr", []
    watcher = kill_once_a_shard_is_done(path, worker_processes, killed)
    two_files.write(path, executor=Processes(2))
    watcher.join()
    assert killed
    assert tree(path) == whole_of_two


def test_a_run_that_is_stopped_ends_when_its_processes_have(two_files, tmp_path):
    """What they are at is finished first, so that the next run finds nobody else writing there."""

    def interrupt(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        two_files.write(tmp_path / "atlas.zarr", executor=Processes(2), on_event=interrupt)
    assert worker_processes() == []


def test_processes_that_are_lost_again_and_again_are_an_error(two_files, tmp_path, monkeypatch):
    monkeypatch.setattr(processes_module, "make_shard", lose_worker)
    monkeypatch.setattr(processes_module, "_MOST_LOST", 1)
    with pytest.raises(WorkerLostError, match=r"2 worker processes in a row were lost .* run the same command again"):
        two_files.write(tmp_path / "atlas.zarr", executor=Processes(1))
    end = time.monotonic() + 10  # a process that is told to end takes a moment
    while worker_processes():
        assert time.monotonic() < end


def test_an_error_in_a_process_is_the_users(two_files, cells, tmp_path):
    """Where a cell can't be read: by its message, and what was finished is kept."""
    looked_at = np.linspace(0, len(cells) - 1, 256).astype(int)  # by the plan
    victim = max(set(range(len(cells))) - set(looked_at.tolist()))
    broken = cells[100:].copy()
    broken.X = broken.X.toarray().astype("float32")
    broken.X[victim - 100] = 0.5
    broken.write_h5ad(tmp_path / "b.h5ad")
    sources = {"a": two_files.cells["a"], "b": str(tmp_path / "b.h5ad")}
    with pytest.raises(ExpressionError, match=rf"holds 0\.5 in cell 'b:cell_{victim:04d}'"):
        two_files.write(tmp_path / "atlas.zarr", sources, executor=Processes(2))
    assert len(Journal(tmp_path / "atlas.zarr").records()) > 0
    assert not worker_processes()


def test_processes_end_with_their_parent(repository, two_files, tmp_path):
    """Even if it is killed: nothing goes on computing behind the user's back."""
    words = ["generate", f"a={two_files.cells['a']}", "--models", repository, "--out", tmp_path / "atlas.zarr"]
    words += ["--grid", "stim", "--solver", "draw", "--steps", "500", "--workers", "2", "--no-progress"]
    words += ["--batch-size", "4", "--chunk-size", "1600", "--shard-size", "1600"]  # 4 cells
    parent = subprocess.Popen(
        [Path(sys.executable).parent / "causcell", *map(str, words)],
        env=environment(TMPDIR=str(tmp_path)),  # what a killed program leaves behind
        start_new_session=True,
    )
    try:
        children = []
        for _ in range(1200):
            children = [pid for pid in _children(parent.pid) if "spawn_main" in _command(pid)]
            if len(children) == 2 and any((tmp_path / "atlas.zarr" / FOLDER / "shards").glob("*.json")):
                break
            time.sleep(0.05)
        assert len(children) == 2
    finally:
        parent.kill()
        parent.wait()
    for _ in range(200):
        if not any(Path(f"/proc/{pid}").exists() for pid in children):
            return
        time.sleep(0.05)
    raise AssertionError(f"workers {children} outlived their parent")


def _children(pid):
    return [int(word) for task in Path(f"/proc/{pid}/task").glob("*/children") for word in task.read_text().split()]


def _command(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


@pytest.mark.parametrize("number", [0, -1])
def test_no_workers(number):
    with pytest.raises(ConfigurationError, match=f"workers is {number}; take at least 1"):
        Processes(number)


def test_more_processes_than_shards(recipe, whole, tmp_path):
    """No more are started than there are shards."""
    path, started = tmp_path / "atlas.zarr", []
    recipe.write(path)
    Journal(path).withdraw(3)
    recipe.write(path, executor=Processes(4), on_event=lambda event: started.append(len(worker_processes())))
    assert started == [1]
    assert tree(path) == whole


def test_an_h5ad_file_is_made_by_workers_too(recipe, whole_atlas, tmp_path):
    """Workers write where this process gathers what they made."""
    summary = recipe.write(tmp_path / "atlas.h5ad", executor=Processes(2))
    assert summary.made == 3 * CELLS
    np.testing.assert_array_equal(anndata.read_h5ad(tmp_path / "atlas.h5ad").X, anndata.read_zarr(whole_atlas).X)
    assert [path.name for path in tmp_path.iterdir()] == ["atlas.h5ad"]
