"""Shards made by several workers are the same bytes, whoever of them is lost."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from atlases import SMALL, fill, lose, tree

from causcell.atlas.executors import processes as workers
from causcell.atlas.executors.dask import on_dask
from causcell.atlas.executors.processes import on_processes
from causcell.atlas.journal import FOLDER, Journal
from causcell.atlas.plan import make_plan
from causcell.atlas.task import Job, Measured
from causcell.atlas.verify import verify_atlas
from causcell.atlas.write import run_plan
from causcell.cells.collection import open_cells
from causcell.cli.main import main
from causcell.counterfactual.interventions import plan_interventions
from causcell.counterfactual.request import Request
from causcell.errors import (
    ConfigurationError,
    ExpressionError,
    OutputFullError,
    RuntimeUnavailableError,
    WorkerLostError,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning"),
    pytest.mark.filterwarnings("ignore:Writing zarr v2 data"),
]

DO = [{}, {"cell_type": "B"}, {"stim": "IFN"}]


@pytest.fixture(scope="module")
def data(cells, tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers")
    cells[:100].write_h5ad(folder / "a.h5ad")
    cells[100:160, ::-1].write_zarr(folder / "b.zarr")
    return (("a", str(folder / "a.h5ad")), ("b", str(folder / "b.zarr")))


@pytest.fixture(scope="module")
def make(repository, generator, data):
    """``make(path, maker, ...)``: an atlas made by workers; in this process without a maker."""

    def make(path, maker=None, sources=data, **options):
        with open_cells(dict(sources)) as cells:
            reader = generator.reader(cells)
            request = Request(plan_interventions(generator.schema, DO), generator.solver_settings(), seed=1)
            plan = make_plan(generator, cells, reader, request, **SMALL)
            job = Job(
                location=str(repository),
                connection=None,
                sources=sources,
                layer=None,
                where=None,
                expression=None,
                allow_missing_genes=0.0,
                scratch="",
                plan=plan,
                path=str(path),
            )
            inputs = Measured(generator, cells, reader)
            return run_plan(plan, inputs, path, make=maker and maker(job), **options)

    return make


@pytest.fixture(scope="module")
def whole(make, tmp_path_factory):
    """Files of the atlas as this process makes it."""
    path = tmp_path_factory.mktemp("whole") / "atlas.zarr"
    make(path)
    return tree(path)


@pytest.fixture(scope="module")
def cluster():
    """Two processes of a real Dask cluster."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        yield cluster


def kill_one_when_a_shard_is_done(path, pids, killed):
    """In a thread: kill -9 a process as soon as an atlas has a shard."""

    def watch():
        for _ in range(3000):
            if any((path / FOLDER / "shards").glob("*.json")):
                pid = pids()[0]
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                return
            time.sleep(0.01)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


# -- processes ---------------------------------------------------------------------------------------------------------


def test_processes_make_the_same_bytes(make, whole, tmp_path):
    reported = []
    written = make(tmp_path / "atlas.zarr", lambda job: on_processes(job, 2), report=reported.append)
    assert tree(tmp_path / "atlas.zarr") == whole
    assert verify_atlas(tmp_path / "atlas.zarr").sound
    assert written.made == written.rows == sum(record.rows for record in reported) == 480
    makers = {record.worker for record in reported}
    assert len(makers) == 2
    assert not any(maker.endswith(f":{os.getpid()}") for maker in makers)


def test_a_killed_process_loses_its_shard_which_is_made_again(make, whole, tmp_path):
    path, killed = tmp_path / "atlas.zarr", []

    def pids():
        return [child.pid for child in multiprocessing.active_children()]

    watcher = kill_one_when_a_shard_is_done(path, pids, killed)
    make(path, lambda job: on_processes(job, 2))
    watcher.join()
    assert killed
    assert tree(path) == whole


def test_processes_that_are_lost_again_and_again_are_an_error(make, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "make_shard", lose)
    monkeypatch.setattr(workers, "_IN_A_ROW", 1)
    with pytest.raises(WorkerLostError, match=r"2 worker processes in a row were lost .* run the same command again"):
        make(tmp_path / "atlas.zarr", lambda job: on_processes(job, 1))
    end = time.monotonic() + 10  # a process that is told to end takes a moment
    while multiprocessing.active_children():
        assert time.monotonic() < end


def test_an_error_in_a_process_is_the_users(make, data, cells, tmp_path):
    """Where a cell can't be read: by its message, and what was finished is kept."""
    looked_at = np.linspace(0, 319, 256).astype(int)  # by the plan
    victim = max(set(range(320)) - set(looked_at.tolist()))
    broken = cells[100:].copy()
    broken.X = broken.X.toarray().astype("float32")
    broken.X[victim - 100] = 0.5
    broken.write_h5ad(tmp_path / "b.h5ad")
    sources = (data[0], ("b", str(tmp_path / "b.h5ad")))
    with pytest.raises(ExpressionError, match=rf"holds 0\.5 in cell 'b:cell_{victim:04d}'"):
        make(tmp_path / "atlas.zarr", lambda job: on_processes(job, 2), sources)
    assert len(Journal(tmp_path / "atlas.zarr").records()) > 0
    assert not multiprocessing.active_children()


def test_processes_end_with_their_parent(repository, data, tmp_path):
    """Even if it is killed: nothing goes on computing behind the user's back."""
    words = ["generate", f"a={data[0][1]}", "--models", repository, "--out", tmp_path / "atlas.zarr", "--grid", "stim"]
    words += ["--solver", "draw", "--steps", "500", "--workers", "2", "--no-progress"]
    words += ["--batch-size", "4", "--chunk-size", "1600", "--shard-size", "1600"]  # 4 cells
    parent = subprocess.Popen([Path(sys.executable).parent / "causcell", *map(str, words)], start_new_session=True)
    try:
        children = []
        for _ in range(600):
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
def test_no_workers(make, tmp_path, number):
    with pytest.raises(ConfigurationError, match=f"workers is {number}; take at least 1"):
        make(tmp_path / "atlas.zarr", lambda job: on_processes(job, number))


# -- dask --------------------------------------------------------------------------------------------------------------


def test_a_dask_cluster_makes_the_same_bytes(make, whole, cluster, tmp_path):
    reported = []
    make(tmp_path / "atlas.zarr", lambda job: on_dask(job, cluster.scheduler_address), report=reported.append)
    assert tree(tmp_path / "atlas.zarr") == whole
    assert len({record.worker for record in reported}) == 2


def test_the_command_takes_the_address_of_a_scheduler(repository, data, cluster, tmp_path, capsys):
    words = ["generate", data[0][1], "--models", repository, "--out", tmp_path / "atlas.zarr", "--json"]
    with pytest.raises(SystemExit) as exit_:
        main([*map(str, words), "--dask", cluster.scheduler_address, "--no-progress"])
    assert exit_.value.code in (None, 0)
    plan, shard, done = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (plan["rows"], shard["done_rows"], done["made_rows"]) == (100, 100, 100)
    assert not shard["worker"].endswith(f":{os.getpid()}")
    assert verify_atlas(tmp_path / "atlas.zarr").sound


def test_a_killed_dask_worker_loses_its_shard_which_is_made_again(make, whole, cluster, tmp_path):
    path, killed = tmp_path / "atlas.zarr", []

    def pids():
        return [worker.process.pid for worker in cluster.workers.values() if worker.process]

    watcher = kill_one_when_a_shard_is_done(path, pids, killed)
    make(path, lambda job: on_dask(job, cluster.scheduler_address))
    watcher.join()
    assert killed
    assert tree(path) == whole


def test_an_interrupted_cluster_run_goes_on(make, whole, cluster, tmp_path):
    """In this process, where the cluster began."""

    def stop(record):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "atlas.zarr", lambda job: on_dask(job, cluster.scheduler_address), report=stop)
    make(tmp_path / "atlas.zarr")
    assert tree(tmp_path / "atlas.zarr") == whole


def test_no_scheduler(make, tmp_path):
    pytest.importorskip("distributed")
    with pytest.raises(
        RuntimeUnavailableError, match=r"no Dask scheduler answers at 'nowhere.*such as tcp://host:8786"
    ):
        make(tmp_path / "atlas.zarr", lambda job: on_dask(job, "nowhere://127.0.0.1:1"))


def test_an_error_in_a_dask_worker_is_the_users(make, cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "make_shard", fill)
    with pytest.raises(OutputFullError, match=r"^there is no space left$"):
        make(tmp_path / "atlas.zarr", lambda job: on_dask(job, cluster.scheduler_address))
