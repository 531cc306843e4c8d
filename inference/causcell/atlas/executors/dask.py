"""Shards made by the workers of a Dask cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from causcell.atlas.executors.processes import Make, make_shard
from causcell.atlas.journal import Journal, ShardRecord
from causcell.atlas.task import Job
from causcell.errors import RuntimeUnavailableError, WorkerLostError


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
