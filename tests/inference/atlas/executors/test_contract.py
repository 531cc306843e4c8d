"""What every executor keeps to, the project's and a user's own."""

import os
import pickle
import time

import pytest
from atlases import SHARDS, AtlasRecipe, find_disk_full, tree

from causcell.atlas.events import RowsWritten, ShardCommitted
from causcell.atlas.executors import Dask, InProcess, Processes
from causcell.atlas.executors import dask as dask_module
from causcell.atlas.executors import processes as processes_module
from causcell.atlas.executors.base import require_task
from causcell.atlas.journal import Journal
from causcell.atlas.task import make_shard
from causcell.atlas.verify import verify_atlas
from causcell.counterfactual.model import ModelSource
from causcell.errors import ConfigurationError, OutputFullError, RuntimeUnavailableError

pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")


class LastFirst:
    """A user's own executor in this process: the shards from the last to the first, one at a time."""

    def run(self, maker, shards):
        for shard in reversed(shards):
            yield from maker.make([shard])


class ByTask:
    """A user's own executor elsewhere: a task that is pickled for whoever makes a shard."""

    def run(self, maker, shards):
        sent = pickle.dumps(require_task(maker))
        return (ShardCommitted(make_shard(pickle.loads(sent), shard)) for shard in shards)


EXECUTORS = {
    "in process": lambda cluster: InProcess(),
    "processes": lambda cluster: Processes(2),
    "dask": lambda cluster: Dask(cluster().scheduler_address),
    "own, in process": lambda cluster: LastFirst(),
    "own, by task": lambda cluster: ByTask(),
}
ELSEWHERE = ("processes", "dask", "own, by task")


@pytest.fixture(params=EXECUTORS)
def executor(request):
    """Each executor; the cluster is started for its own alone."""
    return EXECUTORS[request.param](lambda: request.getfixturevalue("cluster"))


@pytest.fixture(params=ELSEWHERE)
def executor_elsewhere(request):
    """Each executor that has shards made from a task."""
    return EXECUTORS[request.param](lambda: request.getfixturevalue("cluster"))


def test_it_makes_the_same_bytes_and_reports_every_shard_once(two_files, whole_of_two, tmp_path, executor):
    events = []
    summary = two_files.write(tmp_path / "atlas.zarr", executor=executor, on_event=events.append)
    assert tree(tmp_path / "atlas.zarr") == whole_of_two
    assert verify_atlas(tmp_path / "atlas.zarr").sound
    records = [event.record for event in events if isinstance(event, ShardCommitted)]
    assert sorted(record.shard for record in records) == list(range(SHARDS))
    assert summary.made == summary.rows == sum(record.rows for record in records) == 480
    files = {name for record in records for name in record.files}
    files |= {name for name in whole_of_two if name.startswith("X/") and "/c/" in name}
    assert summary.bytes == sum(len(whole_of_two[name]) for name in files)
    assert {record.shard: record for record in records} == Journal(tmp_path / "atlas.zarr").records()
    assert {type(event) for event in events} <= {RowsWritten, ShardCommitted}
    assert sum(event.rows for event in events if isinstance(event, RowsWritten)) in (0, summary.rows)


def test_it_makes_what_is_missing_and_nothing_else(two_files, whole_of_two, tmp_path, executor):
    path = tmp_path / "atlas.zarr"
    two_files.write(path)
    for shard in (2, 5):
        Journal(path).withdraw(shard)
    events = []
    summary = two_files.write(path, executor=executor, on_event=events.append)
    assert sorted(event.record.shard for event in events if isinstance(event, ShardCommitted)) == [2, 5]
    assert summary.made < summary.rows
    assert tree(path) == whole_of_two


def test_closed_early_it_leaves_an_atlas_that_goes_on(two_files, whole_of_two, tmp_path, executor):
    """Closed as Ctrl-C closes it, when the first shard is there: that one is kept, the store can't be opened, nobody
    goes on writing, and the next run, by whomever, ends with the same bytes."""
    path = tmp_path / "atlas.zarr"

    def interrupt(event):
        if isinstance(event, ShardCommitted):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        two_files.write(path, executor=executor, on_event=interrupt)
    kept = _settled_shards(path)
    assert len(kept) >= 1
    if len(kept) < SHARDS:
        assert verify_atlas(path).missing
    assert not (path / "zarr.json").exists()
    summary = two_files.write(path)
    assert summary.rows - summary.made == sum(record.rows for record in kept.values())
    assert tree(path) == whole_of_two


def _settled_shards(path):
    """Return the records of an atlas when workers that were told to end have ended: none comes within a second."""
    known = Journal(path).records()
    for _ in range(60):
        time.sleep(1)
        now = Journal(path).records()
        if len(now) == len(known):
            return now
        known = now
    raise AssertionError("workers go on after they were stopped")


def test_cells_in_memory_are_refused_elsewhere(generator, cells, tmp_path, executor_elsewhere):
    """By a message that says what to do; and doing it works, in the same place."""
    recipe = AtlasRecipe(generator, cells[:20].copy())
    with pytest.raises(
        ConfigurationError,
        match=r"^cells in memory can't be read by other processes; write them to a file \(adata\.write_h5ad\) and give "
        r"its path, with a model from Generator\.open, or leave the executor out$",
    ):
        recipe.write(tmp_path / "atlas.zarr", executor=executor_elsewhere)
    assert not (tmp_path / "atlas.zarr" / "zarr.json").exists()
    assert recipe.write(tmp_path / "atlas.zarr").made == 60


def test_a_provider_that_is_missing_is_every_workers_error(recipe, repository, tmp_path, executor_elsewhere):
    """Each worker opens the model as whoever shares the work out does: with ``cuda`` here, it says what to install."""
    source = ModelSource.of(repository, provider="cuda")
    with (
        recipe.open(tmp_path / "atlas.zarr", source) as opened,
        opened.maker.journal.locked(),
        pytest.raises(RuntimeUnavailableError, match=r"no CUDAExecutionProvider.*install causcell\[gpu\]"),
    ):
        list(executor_elsewhere.run(opened.maker, [0]))
    assert Journal(tmp_path / "atlas.zarr").records() == {}


def test_a_full_disk_in_a_worker_is_the_users_error(two_files, tmp_path, monkeypatch, cluster):
    for module in (processes_module, dask_module):
        monkeypatch.setattr(module, "make_shard", find_disk_full)
    for place, executor in enumerate((Processes(1), Dask(cluster.scheduler_address))):
        with pytest.raises(OutputFullError, match=r"^there is no space left$"):
            two_files.write(tmp_path / f"{place}.zarr", executor=executor)


def test_executors_tell_what_they_are():
    assert repr([InProcess(), Processes(3), Dask("tcp://scheduler:8786")]) == (
        "[InProcess(), Processes(3), Dask('tcp://scheduler:8786')]"
    )


def test_workers_are_other_processes(two_files, tmp_path, cluster):
    """Both of them: none waits for the other, and this process makes nothing."""
    for place, executor in enumerate((Processes(2), Dask(cluster.scheduler_address))):
        events = []
        two_files.write(tmp_path / f"{place}.zarr", executor=executor, on_event=events.append)
        makers = {event.record.worker for event in events}
        assert len(makers) == 2
        assert not any(maker.endswith(f":{os.getpid()}") for maker in makers)
