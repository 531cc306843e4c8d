"""Shards made by several workers: processes of this machine, or those of a Dask cluster.

A worker opens the model and the cells once, and is told one shard at a time. It commits what it makes itself, so that a
worker that is lost loses the shard it was at, which another one makes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from causcell.errors import ConfigurationError, RuntimeUnavailableError, WorkerLostError
from causcell.journal import Journal, ShardRecord
from causcell.work import Job, make_shards

Make = Callable[[Journal, list[int]], Iterator[ShardRecord]]

_IN_A_ROW = 3
"""Workers that may be lost without a shard being finished in between."""

_QUEUED = 2
"""Shards that a process is told ahead, so that it does not wait for the next."""

_held = threading.local()


def make_shard(job: Job, shard: int) -> ShardRecord:
    """Make one shard; the model and the cells stay open for the next. Runs in a worker."""
    if getattr(_held, "job", None) != job:
        _held.inputs, _held.job = job.open(), job
    for done in make_shards(Journal(Path(job.path)), job.plan, _held.inputs, [shard]):
        if isinstance(done, ShardRecord):
            return done
    raise AssertionError(f"shard {shard} has no cells")


def on_processes(job: Job, workers: int) -> Make:
    """Shards made by this many processes. Raises `ConfigurationError` for less than one."""
    if workers < 1:
        raise ConfigurationError(f"workers is {workers}; take at least 1")

    def make(_: Journal, shards: list[int]) -> Iterator[ShardRecord]:
        pools = [_process() for _ in range(min(workers, len(shards)))]
        waiting, broken, lost = deque(shards), set[int](), 0
        flying: dict[Future[ShardRecord], tuple[int, int]] = {}  # which worker, which shard
        try:
            while waiting or flying:
                for place in range(len(pools)):
                    while waiting and sum(worker == place for worker, _ in flying.values()) < _QUEUED:
                        try:
                            flying[pools[place].submit(make_shard, job, waiting[0])] = (place, waiting[0])
                        except BrokenProcessPool:
                            broken.add(place)
                            break
                        waiting.popleft()
                done = wait(flying, return_when=FIRST_COMPLETED).done if flying else set()
                for future in done:
                    place, shard = flying.pop(future)
                    if isinstance(future.exception(), BrokenProcessPool):
                        broken.add(place)
                        waiting.appendleft(shard)
                    else:
                        yield future.result()
                        lost = 0
                for place in broken - {worker for worker, _ in flying.values()}:  # all of its shards came back
                    broken.remove(place)
                    pools[place].shutdown(wait=False)
                    pools[place] = _process()
                    lost += 1
                    _check_lost(lost)
        finally:
            for pool in pools:
                pool.shutdown(cancel_futures=True)

    return make


def _check_lost(lost: int) -> None:
    if lost > _IN_A_ROW:
        raise WorkerLostError(
            f"{lost} worker processes in a row were lost before they finished a shard; is memory short? What is "
            "finished is kept: run the same command again, with fewer workers or a smaller batch size"
        )


def _process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_begin_process)


def _begin_process() -> None:
    """Leave Ctrl-C to the parent, and end when it does, however it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def on_dask(job: Job, address: str) -> Make:
    """Shards made by the workers of a Dask cluster, which share the file system of the atlas.

    Parameters
    ----------
    address
        Of its scheduler, such as ``tcp://host:8786``, or a scheduler file.

    Raises
    ------
    RuntimeUnavailableError
        Dask is not installed, or no scheduler answers.
    """
    try:
        import distributed
    except ModuleNotFoundError as error:
        raise RuntimeUnavailableError(f"--dask needs {error.name}; install causcell[dask]") from error

    def make(_: Journal, shards: list[int]) -> Iterator[ShardRecord]:
        with _client(address) as client:
            key = f"causcell-{job.plan.digest[:12]}"
            futures = [
                client.submit(make_shard, job, shard, key=f"{key}-{shard}-{os.getpid()}", pure=False)
                for shard in shards
            ]
            try:
                for future in distributed.as_completed(futures, loop=client.loop):
                    try:
                        yield future.result()
                    except distributed.KilledWorker as error:
                        raise WorkerLostError(
                            f"{error}; what is finished is kept: run the same command again, with more memory a worker"
                        ) from error
                    future.release()
            finally:
                client.cancel(futures)

    return make


def _client(address: str) -> Any:
    import distributed

    options: dict[str, Any] = {"address": address}
    if "://" not in address and Path(address).is_file():
        options = {"scheduler_file": address}
    try:
        return distributed.Client(**options, timeout="20s", set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise RuntimeUnavailableError(
            f"no Dask scheduler answers at {address!r} ({error}); give its address, such as tcp://host:8786, or its "
            "scheduler file"
        ) from error
