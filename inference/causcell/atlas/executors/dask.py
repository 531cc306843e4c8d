"""Shards made by the workers of a Dask cluster, which share the file system of the atlas."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from causcell.atlas.events import AtlasEvent, ShardCommitted
from causcell.atlas.executors.base import require_task
from causcell.atlas.task import ShardMaker, make_shard
from causcell.errors import RuntimeUnavailableError, WorkerLostError

_QUEUED = 4
"""Shards that the scheduler has for each thread of the workers, so that none waits for the next."""

_LEAST = 64
"""Shards that the scheduler has at least, for workers that are yet to come."""

_ASK_AGAIN = 5.0
"""Seconds after which workers are counted again."""


class Dask:
    """Make the shards of an atlas on a Dask cluster. See `causcell.atlas.executors.base.Executor`.

    Parameters
    ----------
    scheduler
        Address of the scheduler, such as ``tcp://host:8786``, or a scheduler file.

    Raises
    ------
    RuntimeUnavailableError
        Dask is not installed.

    Examples
    --------
    >>> Dask("tcp://scheduler:8786")
    Dask('tcp://scheduler:8786')
    """

    def __init__(self, scheduler: str | os.PathLike[str]) -> None:
        self.scheduler = os.fspath(scheduler)
        if find_spec("distributed") is None:
            raise RuntimeUnavailableError("dask= needs the package distributed; install causcell[dask]")

    def __repr__(self) -> str:
        return f"Dask({self.scheduler!r})"

    def run(self, maker: ShardMaker, shards: Sequence[int]) -> Iterator[AtlasEvent]:
        """Make the shards, and report each when it is committed; the scheduler has a few for each worker at a time.

        Raises
        ------
        ConfigurationError
            Cells in memory, which other processes can't read.
        RuntimeUnavailableError
            No scheduler answers.
        WorkerLostError
            A shard was under way on several workers that were lost, or the scheduler is lost.
        """
        distributed: Any = import_module("distributed")
        task = require_task(maker)
        with self._connect() as client:
            key = f"causcell-{task.plan.digest[:12]}"
            waiting = iter(shards)
            done = distributed.as_completed(loop=client.loop)
            pending: set[Any] = set()

            def submit(count: int) -> None:
                for shard in itertools.islice(waiting, max(count, 0)):
                    name = f"{key}-{shard}-{os.getpid()}"
                    pending.add(future := client.submit(make_shard, task, shard, key=name, pure=False))
                    done.add(future)

            try:
                window = _Window(client)
                for _ in shards:
                    with self._losses():
                        submit(window.size() - len(pending))
                        future = next(done)
                        record = future.result()
                        pending.discard(future)
                        future.release()
                    yield ShardCommitted(record)
            finally:
                with contextlib.suppress(Exception, asyncio.CancelledError):  # where the scheduler is lost, too
                    client.cancel(list(pending))

    @contextlib.contextmanager
    def _losses(self) -> Iterator[None]:
        """Raise `WorkerLostError` where workers or the scheduler are lost."""
        distributed: Any = import_module("distributed")
        closed: Any = import_module("distributed.comm").CommClosedError
        try:
            yield
        except distributed.KilledWorker as error:
            raise WorkerLostError(
                f"{error}; what is finished is kept: run the same command again, with more memory a worker"
            ) from error
        except (CancelledError, asyncio.CancelledError, StopIteration, closed) as error:
            raise WorkerLostError(
                f"the Dask scheduler at {self.scheduler!r} is lost; what is finished is kept: start one, and run the "
                "same command again"
            ) from error

    def _connect(self) -> Any:
        distributed: Any = import_module("distributed")
        options: dict[str, Any] = {"address": self.scheduler}
        if "://" not in self.scheduler and Path(self.scheduler).is_file():
            options = {"scheduler_file": self.scheduler}
        try:
            return distributed.Client(**options, timeout="20s", set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise RuntimeUnavailableError(
                f"no Dask scheduler answers at {self.scheduler!r} ({error}); give its address, such as "
                "tcp://host:8786, or its scheduler file"
            ) from error


class _Window:
    """Number of shards in the scheduler's hands at once: a few for each thread of the workers that there are now."""

    def __init__(self, client: Any) -> None:
        self._client, self._size, self._asked = client, 0, -math.inf

    def size(self) -> int:
        """Return the number, which follows workers that come and go."""
        if time.monotonic() - self._asked > _ASK_AGAIN:
            self._asked = time.monotonic()
            with contextlib.suppress(OSError):  # a lost scheduler is told by what is under way
                self._size = _QUEUED * sum(self._client.nthreads().values())
        return max(_LEAST, self._size)
