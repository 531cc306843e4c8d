"""Events of an atlas under way, as executors report them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from causcell.atlas.records import ShardRecord


@dataclass(frozen=True)
class RowsWritten:
    """Rows of a shard under way were written; executors in other processes report whole shards alone."""

    rows: int


@dataclass(frozen=True)
class ShardCommitted:
    """A shard is complete, and recorded in the journal."""

    record: ShardRecord


AtlasEvent: TypeAlias = RowsWritten | ShardCommitted

OnEvent: TypeAlias = Callable[[AtlasEvent], object]
"""Called with every event, in the process that writes the atlas."""
