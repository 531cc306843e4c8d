"""The work on shards: read, generate and write overlap, and a shard is committed when all of it is on disk."""

from __future__ import annotations

import contextlib
import os
import platform
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from causcell._internal.prefetch import StageClock, prefetch
from causcell.atlas.journal import Journal, ShardRecord, put, raise_on_full_disk
from causcell.atlas.plan import Plan
from causcell.atlas.shards import ShardWriter, write_annotations
from causcell.cells.collection import AnyCells, AnyReader, CellTable, open_cells
from causcell.counterfactual.stream import Block
from causcell.counterfactual.tables import count_unseen, result_obs
from causcell.engine.open import open_engine
from causcell.errors import CausCellWarning
from causcell.generator import Generator

if TYPE_CHECKING:
    from causcell.engine.triton.connection import Connection

_BLOCKS_AHEAD = 2
"""Blocks that are generated before they are written."""


class Inputs(Protocol):
    """What shards are made from.

    Attributes
    ----------
    generator
        The model.
    cells
        Their names and labels.
    missing
        Panel genes that are filled.
    """

    @property
    def generator(self) -> Generator: ...

    @property
    def cells(self) -> CellTable: ...

    @property
    def missing(self) -> Sequence[str]: ...

    def blocks(self, plan: Plan, ranges: Iterable[slice], clock: StageClock) -> Iterator[Block]:
        """Results for ranges of cells, block by block; batches start anew with each range."""
        ...


@dataclass(frozen=True)
class Measured:
    """Cells with measured expression. See `Inputs`."""

    generator: Generator
    cells: AnyCells
    reader: AnyReader

    @property
    def missing(self) -> Sequence[str]:
        """Panel genes that are filled."""
        return self.reader.missing

    def blocks(self, plan: Plan, ranges: Iterable[slice], clock: StageClock) -> Iterator[Block]:
        """Results for ranges of cells, block by block."""
        return self.generator.blocks(self.cells, self.reader, plan.request, ranges, clock)


def make_shards(journal: Journal, plan: Plan, inputs: Inputs, shards: Iterable[int]) -> Iterator[ShardRecord | int]:
    """Make shards, one after the other: generate, write and commit.

    Yields
    ------
    The rows of each block when it is written, and the record of each shard when it is committed.

    Raises
    ------
    OutputFullError
        No space is left.
    """
    schema, seen = inputs.generator.schema, inputs.generator.engine.reference.combinations
    factual, clock = inputs.cells.labels(schema), StageClock()
    blocks = inputs.blocks(plan, (plan.cells_of(shard) for shard in shards), clock)
    with contextlib.closing(prefetch(blocks, _BLOCKS_AHEAD)) as ready:
        for block in ready:
            shard = block.cells.start // plan.cells_per_shard
            cells = plan.cells_of(shard)
            writers = {place: ShardWriter(journal, plan, place, shard) for place in plan.arrays}
            labels, unmatched = [], 0
            try:
                while True:
                    with raise_on_full_disk(journal.path), clock("write"):
                        for place, writer in writers.items():
                            writer.append(block.arrays[place])
                    labels.append(block.labels)
                    unmatched += int(block.unmatched.sum())
                    yield len(block.labels)
                    if block.cells.stop == cells.stop:
                        break
                    block = next(ready)
                with raise_on_full_disk(journal.path), clock("write"):
                    names = inputs.cells.names_of(cells)
                    obs = result_obs(schema, plan.request, names, factual[cells], np.concatenate(labels), seen)
                    for writer in writers.values():
                        writer.finish()
                    files = {writer.target: writer.staged for writer in writers.values()}
                    records = put(files | write_annotations(journal, plan, shard, obs))
            finally:
                for writer in writers.values():
                    writer.discard()
            record = ShardRecord(
                shard=shard,
                rows=len(obs),
                files={str(target.relative_to(journal.path)): file for target, file in records.items()},
                unmatched=unmatched,
                unseen=count_unseen(obs, plan.request, schema.names),
                seconds=clock.take(),
                worker=f"{platform.node()}:{os.getpid()}",
            )
            journal.commit(record)
            yield record


@dataclass(frozen=True)
class Job:
    """All that a worker needs to make any shard of an atlas; it can be pickled.

    Attributes
    ----------
    location, connection
        The model's.
    sources
        Path of the cells, or paths by key.
    layer, where, expression, allow_missing_genes
        How they are read.
    scratch
        Folder of copies by rows of cells that are stored by columns; a worker that has no such folder makes its own.
    plan
        Of the atlas.
    path
        Of the atlas, on a file system that all workers share.
    """

    location: str
    connection: Connection | None
    sources: str | tuple[tuple[str, str], ...]
    layer: str | None
    where: str | None
    expression: str | None
    allow_missing_genes: float
    scratch: str
    plan: Plan
    path: str

    def open(self) -> Measured:
        """The model and the cells, opened."""
        warnings.simplefilter("ignore", CausCellWarning)  # who shared the work out was told
        engine = open_engine(self.location, threads=self.plan.threads, connection=self.connection, spinning=False)
        generator = Generator(engine, batch_size=self.plan.batch_size)
        sources: Any = self.sources if isinstance(self.sources, str) else dict(self.sources)
        scratch = Path(self.scratch) if Path(self.scratch).is_dir() else None
        cells = open_cells(sources, layer=self.layer, where=self.where, scratch=scratch)
        return Measured(generator, cells, generator.reader(cells, self.expression, self.allow_missing_genes))
