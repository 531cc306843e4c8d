"""Shards made by several processes of this machine.

A worker opens the model and the cells once, and is told one shard at a time. It commits what it makes itself, so that a
worker that is lost loses the shard it was at, which another one makes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for_any

from causcell.atlas.events import AtlasEvent, ShardCommitted
from causcell.atlas.executors.base import require_task
from causcell.atlas.records import ShardRecord
from causcell.atlas.task import AtlasTask, ShardMaker, make_shard
from causcell.errors import ConfigurationError, WorkerLostError

_MOST_LOST = 3
"""Workers that may be lost in a row without a shard being finished in between."""

_QUEUED = 2
"""Shards that a process is told ahead, so that it does not wait for the next."""


class Processes:
    """Make the shards of an atlas in processes of this machine. See `causcell.atlas.executors.base.Executor`.

    Parameters
    ----------
    workers
        Number of processes; each has the compute threads of the plan.

    Raises
    ------
    ConfigurationError
        Less than one process.

    Examples
    --------
    >>> Processes(4)
    Processes(4)
    """

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise ConfigurationError(f"workers is {workers}; take at least 1")
        self.workers = workers

    def __repr__(self) -> str:
        return f"Processes({self.workers})"

    def run(self, maker: ShardMaker, shards: Sequence[int]) -> Iterator[AtlasEvent]:
        """Make the shards, and report each when it is committed.

        Raises
        ------
        ConfigurationError
            Cells in memory, which other processes can't read.
        WorkerLostError
            Several workers in a row were lost before they finished a shard.
        """
        pool = _Pool(require_task(maker), min(self.workers, len(shards)), shards)
        try:
            while pool.working:
                pool.submit()
                for record in pool.collect():
                    yield ShardCommitted(record)
        except (KeyboardInterrupt, GeneratorExit):
            pool.stop()
            raise
        finally:
            pool.close()


class _Pool:
    """Processes of one worker each, so that one that is lost takes no other with it."""

    def __init__(self, task: AtlasTask, workers: int, shards: Sequence[int]) -> None:
        self._task = task
        self._until, self._lifeline = multiprocessing.get_context("spawn").Pipe(duplex=False)
        self._workers = [_start_worker(self._until) for _ in range(workers)]
        self._waiting = deque(shards)
        self._flying: dict[Future[ShardRecord], tuple[int, int]] = {}  # which worker, which shard
        self._broken: set[int] = set()
        self._lost = 0

    @property
    def working(self) -> bool:
        """True while shards are left or under way."""
        return bool(self._waiting or self._flying)

    def submit(self) -> None:
        """Tell every worker its next shards."""
        for place, worker in enumerate(self._workers):
            while self._waiting and sum(each == place for each, _ in self._flying.values()) < _QUEUED:
                shard = self._waiting[0]
                try:
                    self._flying[worker.submit(make_shard, self._task, shard)] = (place, shard)
                except BrokenProcessPool:
                    self._broken.add(place)
                    break
                self._waiting.popleft()

    def collect(self) -> Iterator[ShardRecord]:
        """Wait for a shard or a lost worker; lost workers' shards are told again, to a new worker."""
        done = wait(self._flying, return_when=FIRST_COMPLETED).done if self._flying else set()
        for future in done:
            place, shard = self._flying.pop(future)
            if isinstance(future.exception(), BrokenProcessPool):
                self._broken.add(place)
                self._waiting.appendleft(shard)
            else:
                yield future.result()
                self._lost = 0
        for place in self._broken - {worker for worker, _ in self._flying.values()}:  # all of its shards came back
            self._broken.remove(place)
            self._workers[place].shutdown(wait=False)
            self._workers[place] = _start_worker(self._until)
            self._lost += 1
            self._check_lost()

    def _check_lost(self) -> None:
        if self._lost > _MOST_LOST:
            raise WorkerLostError(
                f"{self._lost} worker processes in a row were lost before they finished a shard; is memory short? What "
                "is finished is kept: run the same command again, with fewer workers or a smaller batch size"
            )

    def stop(self) -> None:
        """Let all workers end at once, whatever is under way."""
        self._lifeline.close()

    def close(self) -> None:
        """Wait for all workers to end; unless they were stopped, what is under way is finished first."""
        for worker in self._workers:
            worker.shutdown(cancel_futures=True)
        self._lifeline.close()
        self._until.close()


def _start_worker(until: Connection) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, context, initializer=_follow_parent, initargs=(until,))


def _follow_parent(until: Connection) -> None:
    """Leave Ctrl-C and SIGTERM, which a batch system sends to all, to the parent; end when it ends or says so.

    Parameters
    ----------
    until
        End of a pipe whose other end the parent closes when all is to stop.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def watch() -> None:
        wait_for_any([sentinel, until])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
