"""Workers of a Dask cluster: a lost one is made up for, and what is the user's own in them is left alone."""

import json
import os
import subprocess
import sys
import warnings

import pytest
from atlases import SHARDS, kill_once_a_shard_is_done, tree

from causcell.atlas.executors import Dask
from causcell.atlas.executors import dask as dask_module
from causcell.atlas.verify import verify_atlas
from causcell.cli.main import main
from causcell.errors import CausCellWarning, RuntimeUnavailableError, WorkerLostError

pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")


def test_the_command_takes_the_address_of_a_scheduler(repository, two_files, cluster, tmp_path, capsys):
    words = ["generate", two_files.cells["a"], "--models", repository, "--out", tmp_path / "atlas.zarr", "--json"]
    with pytest.raises(SystemExit) as exit_:
        main([*map(str, words), "--dask", cluster.scheduler_address, "--no-progress"])
    assert exit_.value.code in (None, 0)
    plan, shard, done = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (plan["rows"], shard["done_rows"], done["made_rows"]) == (100, 100, 100)
    assert not shard["worker"].endswith(f":{os.getpid()}")
    assert verify_atlas(tmp_path / "atlas.zarr").sound


def test_a_scheduler_file_will_do(recipe, whole, cluster, tmp_path):
    """As ``dask scheduler --scheduler-file`` writes it."""
    (tmp_path / "scheduler.json").write_text(json.dumps({"address": cluster.scheduler_address}))
    recipe.write(tmp_path / "atlas.zarr", executor=Dask(tmp_path / "scheduler.json"))
    assert tree(tmp_path / "atlas.zarr") == whole


def test_a_killed_worker_loses_its_shard_which_is_made_again(two_files, whole_of_two, cluster, tmp_path):
    path, killed = tmp_path / "atlas.zarr", []

    def pids():
        return [worker.process.pid for worker in cluster.workers.values() if worker.process]

    watcher = kill_once_a_shard_is_done(path, pids, killed)
    two_files.write(path, executor=Dask(cluster.scheduler_address))
    watcher.join()
    assert killed
    assert tree(path) == whole_of_two


def test_the_scheduler_has_a_few_shards_for_each_worker_at_a_time(recipe, whole, cluster, tmp_path, monkeypatch):
    """Not those of the whole atlas, which may be many thousands."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(dask_module, "_QUEUED", 1)
    monkeypatch.setattr(dask_module, "_LEAST", 1)
    submitted, ahead = [], []
    submit = distributed.Client.submit
    monkeypatch.setattr(
        distributed.Client, "submit", lambda client, *args, **kw: submitted.append(args) or submit(client, *args, **kw)
    )
    done = []

    def count(event):
        done.append(event)
        ahead.append(len(submitted) - len(done))

    recipe.write(tmp_path / "atlas.zarr", executor=Dask(cluster.scheduler_address), on_event=count)
    assert len(submitted) == len(done) == SHARDS
    assert max(ahead) < 2  # two workers of one thread: what is under way, but for the shard that was just done
    assert tree(tmp_path / "atlas.zarr") == whole


@pytest.mark.slow
def test_a_lost_scheduler_is_told_and_the_next_run_goes_on(two_files, whole_of_two, tmp_path):
    """It is killed after the first shard, with its worker: a program of their own."""
    code = """
import time, distributed
if __name__ == "__main__":
    options = dict(processes=False, protocol="tcp://", dashboard_address=":0", host="127.0.0.1")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, **options) as cluster:
        print(cluster.scheduler_address, flush=True)
        time.sleep(300)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    path = tmp_path / "atlas.zarr"
    try:
        with pytest.raises(
            WorkerLostError, match=rf"scheduler at '{address}' is lost; what is finished is kept: start one"
        ):
            two_files.write(path, executor=Dask(address), on_event=lambda event: process.kill())
    finally:
        process.kill()
        process.communicate()
    two_files.write(path)
    assert tree(path) == whole_of_two


def test_no_scheduler(two_files, tmp_path):
    pytest.importorskip("distributed")
    with pytest.raises(
        RuntimeUnavailableError, match=r"no Dask scheduler answers at 'nowhere.*such as tcp://host:8786"
    ):
        two_files.write(tmp_path / "atlas.zarr", executor=Dask("nowhere://127.0.0.1:1"))


def test_without_dask_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(dask_module, "find_spec", lambda name: None)
    with pytest.raises(RuntimeUnavailableError, match=r"needs the package distributed; install causcell\[dask\]"):
        Dask("tcp://scheduler:8786")


def _load_all():
    """Import, in a worker, what making a shard does: some packages set filters of their own as they are imported."""
    import anndata.experimental  # noqa: F401
    import onnxruntime  # noqa: F401
    import zarr  # noqa: F401

    import causcell.generator  # noqa: F401


def _filters():
    return [repr(each) for each in warnings.filters]


def _shown_warnings():
    """Which warnings, of causcell and of others, a user's own code in a worker would see."""
    seen = []
    for category in (CausCellWarning, UserWarning, DeprecationWarning):
        with warnings.catch_warnings(record=True) as caught:
            warnings.warn("something to know", category, stacklevel=1)
        seen += [each.category.__name__ for each in caught]
    return seen


def test_filters_of_warnings_in_a_users_worker_are_left_alone(two_files, cluster, tmp_path):
    """They belong to the whole process, where the user's own code runs too."""
    distributed = pytest.importorskip("distributed")
    with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
        client.run(_load_all)
        before = client.run(_filters)
        two_files.write(tmp_path / "atlas.zarr", executor=Dask(cluster.scheduler_address))
        assert client.run(_filters) == before
        for shown in client.run(_shown_warnings).values():
            assert {"CausCellWarning", "UserWarning"} <= set(shown)
