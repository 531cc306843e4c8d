"""The work of an atlas: a task that any worker can open, and the maker of shards that it opens.

Read, generate and write overlap, and a shard is committed when all of it is on disk.
"""

from __future__ import annotations

import contextlib
import os
import platform
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell._internal.prefetch import StageClock, prefetch
from causcell._internal.remote import AnyPath, any_path
from causcell.atlas.annotation_pieces import piece_name
from causcell.atlas.annotations import AnnotationSource
from causcell.atlas.events import AtlasEvent, RowsWritten, ShardCommitted
from causcell.atlas.journal import Journal
from causcell.atlas.pieces import PieceWriter
from causcell.atlas.plan import Plan
from causcell.atlas.records import PieceRecord, ShardRecord, raise_on_full_disk
from causcell.atlas.shards import ShardWriter, write_annotations
from causcell.cells.annotations import Kept
from causcell.cells.panel_cells import CellSource
from causcell.counterfactual.model import CounterfactualModel, ModelSource
from causcell.counterfactual.outputs import Block
from causcell.counterfactual.stream import EmbeddingSource, MeasuredCells, stream_blocks
from causcell.counterfactual.tables import ResultTable, concatenate_cells, repeat_annotations

if TYPE_CHECKING:
    import pandas as pd

_BLOCKS_AHEAD = 2
"""Blocks that are generated before they are written."""

_held = threading.local()


@dataclass(frozen=True)
class AtlasTask:
    """All that a worker needs to make any shard of an atlas. It can be pickled.

    Attributes
    ----------
    plan
        Plan of the atlas.
    path
        The atlas: its URL, or a path on a file system that all workers share.
    model
        Where the model is and how it is opened.
    cells
        Where the cells are and how they are read.
    lease
        What names the run whose worker this is to the atlas; see `causcell.atlas.storage.Storage`.
    """

    plan: Plan
    path: str
    model: ModelSource
    cells: CellSource
    lease: str = ""

    def open(self) -> ShardMaker:
        """Open the model and the cells; whoever shared the work out was told of missing genes and copies already."""
        plan = self.plan
        model = plan.adapt(self.model.open(threads=plan.threads, batch_size=plan.batch_size, spinning=False))
        cells = self.cells.open(model.schema, model.preprocessing, announce=False, checked=True)
        annotations = None
        if plan.annotations is not None:
            table, kept = (
                ResultTable.of(model, plan.request),
                Kept(list(plan.annotations.obs), list(plan.annotations.obsm)),
            )
            annotations = plan.annotations.find(table.select_annotations(cells.cells, kept), self.path)
        place, source = any_path(self.path, "atlas"), MeasuredCells(model, cells, plan.request.library)
        return ShardMaker(plan, place, model, source, annotations, self, self.lease)


@dataclass(frozen=True)
class ShardMaker:
    """An opened model and the embeddings of its cells: makes shards of an atlas.

    Attributes
    ----------
    plan, path
        Plan and place of the atlas.
    model
        The model.
    source
        Gives the embeddings that are decoded.
    annotations
        What is kept of the cells' annotations is read from there; `None` where nothing is.
    task
        What another process opens the same maker from; `None` where that can't be, as with cells in memory.
    lease
        What names the run that it commits for; see `causcell.atlas.storage.Storage`.
    """

    plan: Plan
    path: AnyPath
    model: CounterfactualModel
    source: EmbeddingSource[Any, Any]
    annotations: AnnotationSource | None = None
    task: AtlasTask | None = None
    lease: str = ""

    @cached_property
    def journal(self) -> Journal:
        """The atlas's journal."""
        return Journal(self.path, self.lease)

    @property
    def table(self) -> ResultTable:
        """The form of the atlas's rows."""
        return ResultTable.of(self.model, self.plan.request)

    def under(self, lease: str) -> ShardMaker:
        """Return the same maker, which commits for the run that holds the atlas."""
        if not lease:
            return self
        return replace(self, lease=lease, task=None if self.task is None else replace(self.task, lease=lease))

    def at(self, path: Path) -> ShardMaker:
        """Return the same maker for an atlas in another place."""
        task = None if self.task is None else replace(self.task, path=str(path.absolute()))
        return replace(self, path=path, task=task)

    def blocks(self, ranges: Iterable[slice], clock: StageClock | None = None) -> Iterator[Block]:
        """Generate results for ranges of cells; see `causcell.counterfactual.stream.stream_blocks`."""
        return stream_blocks(self.model, self.source, self.plan.request, ranges, clock, sparse=bool(self.plan.sparse))

    def annotate(self, obs: pd.DataFrame, cells: slice) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
        """Add what is kept of consecutive cells' annotations to ``obs`` of their rows, and read that of ``obsm``."""
        if self.annotations is None:
            return obs, {}
        return repeat_annotations(obs, *self.annotations.read(cells))

    def make(self, shards: Iterable[int]) -> Iterator[AtlasEvent]:
        """Make shards, one after the other: generate, write and commit.

        Yields
        ------
        `RowsWritten` for each block, and `ShardCommitted` for each shard.

        Raises
        ------
        OutputFullError
            No space is left.
        """
        plan, clock = self.plan, StageClock()
        blocks = self.blocks((plan.cells_of(shard) for shard in shards), clock)
        with contextlib.closing(prefetch(blocks, _BLOCKS_AHEAD)) as ready:
            for block in ready:
                yield from self._make_shard(block, ready, clock)

    def _make_shard(self, block: Block, ready: Iterator[Block], clock: StageClock) -> Iterator[AtlasEvent]:
        """Make the shard that a block is the first of."""
        plan, journal = self.plan, self.journal
        shard = block.cells.start // plan.cells_per_shard
        last = plan.cells_of(shard).stop
        writers: dict[str, PieceWriter | ShardWriter] = {
            place: (PieceWriter if place in plan.sparse else ShardWriter)(journal, plan, place, shard)
            for place in plan.arrays
        }
        written: list[Block] = []
        try:
            while True:
                with raise_on_full_disk(journal.storage.disk), clock("write"):
                    for place, writer in writers.items():
                        writer.append(block.arrays[place])
                written.append(replace(block, arrays={}))
                yield RowsWritten(len(block.labels))
                if block.cells.stop == last:
                    break
                block = next(ready)
            yield ShardCommitted(self._commit(shard, written, writers, clock))
        finally:
            for writer in writers.values():
                writer.discard()

    def _commit(
        self, shard: int, written: list[Block], writers: dict[str, PieceWriter | ShardWriter], clock: StageClock
    ) -> ShardRecord:
        """Finish a shard's files, put them in their places and record them."""
        journal, table = self.journal, self.table
        with raise_on_full_disk(journal.storage.disk), clock("write"):
            obs, obsm = self.annotate(table.obs(**concatenate_cells(written)), self.plan.cells_of(shard))
            for writer in writers.values():
                writer.finish()
            files = {name: staged for writer in writers.values() for name, staged in writer.files.items()}
            records = journal.storage.put(files | write_annotations(journal, self.plan, shard, obs, obsm))
            pieces: dict[str, PieceRecord] = {}
            for writer in writers.values():
                if isinstance(writer, PieceWriter):
                    pieces |= writer.record(records)
            annotations = records.pop(piece_name(shard), None)
        record = ShardRecord(
            shard=shard,
            rows=len(obs),
            files=records,
            unmatched=sum(int(block.unmatched.sum()) for block in written),
            unseen=table.count_unseen(obs),
            seconds=clock.take(),
            worker=f"{platform.node()}:{os.getpid()}",
            pieces=pieces,
            annotations=annotations,
        )
        journal.commit(record)
        return record


def make_shard(task: AtlasTask, shard: int) -> ShardRecord:
    """Make one shard in a worker, where the model and the cells stay open for the next."""
    if getattr(_held, "task", None) != task:
        _held.maker, _held.task = task.open(), task
    for event in _held.maker.make([shard]):
        if isinstance(event, ShardCommitted):
            return event.record
    raise AssertionError(f"shard {shard} has no cells")
