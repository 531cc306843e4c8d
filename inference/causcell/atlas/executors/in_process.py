"""Shards made in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from causcell.atlas.events import AtlasEvent
from causcell.atlas.task import ShardMaker


class InProcess:
    """Make the shards of an atlas in this process, one after the other. See `causcell.atlas.executors.base.Executor`.

    Examples
    --------
    >>> InProcess()
    InProcess()
    """

    def run(self, maker: ShardMaker, shards: Sequence[int]) -> Iterator[AtlasEvent]:
        """Make the shards, and report rows as they are written."""
        return maker.make(shards)

    def __repr__(self) -> str:
        return "InProcess()"
