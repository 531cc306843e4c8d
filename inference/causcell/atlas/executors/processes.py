"""Shards made by several processes of this machine."""

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

from causcell.atlas.journal import Journal, ShardRecord
from causcell.atlas.task import Job, make_shards
from causcell.errors import ConfigurationError, WorkerLostError

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
