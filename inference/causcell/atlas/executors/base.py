"""The interface of executors, which have the shards of an atlas made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from causcell.atlas.events import AtlasEvent
from causcell.atlas.task import AtlasTask, ShardMaker
from causcell.errors import ConfigurationError


class Executor(Protocol):
    """Have shards made, by whomever: the bytes are the same.

    An executor of your own is an object with this method. In this process it calls ``maker.make(shards)``; elsewhere it
    sends ``require_task(maker)`` with a shard to `causcell.atlas.task.make_shard`, which returns the shard's record.
    """

    def run(self, maker: ShardMaker, shards: Sequence[int]) -> Iterator[AtlasEvent]:
        """Make the shards, in any order, and report each when it is committed; closing it stops the work.

        Raises
        ------
        CausCellError
            What making a shard raises, and `WorkerLostError` when workers are lost too often.
        """
        ...


def require_task(maker: ShardMaker) -> AtlasTask:
    """Return what other processes open the maker from.

    Raises
    ------
    ConfigurationError
        They can't: the cells are in memory, or the model was not opened from a location.
    """
    if maker.task is None:
        raise ConfigurationError(
            "cells in memory can't be read by other processes; write them to a file (adata.write_h5ad) and give its "
            "path, with a model from Generator.open, or leave the executor out"
        )
    return maker.task
