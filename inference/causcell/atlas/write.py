"""The atlas: results written as an AnnData-zarr store (zarr v3, sharded), shard by shard; a rerun goes on.

The chunk is what a reader fetches, the shard what is made and committed at once. The form of the rows is that of
`causcell.counterfactual.tables`, what they hold that of `causcell.counterfactual.outputs`, the files those of
`causcell.atlas.zarr_store`. The store is made in place and can't be opened before it is finished;
`causcell.atlas.journal` tells what is done.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import warnings
from collections import Counter, abc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from causcell.atlas.estimate import require_space
from causcell.atlas.journal import ROOT_METADATA, FileRecord, Journal, ShardRecord, raise_on_full_disk
from causcell.atlas.plan import CHUNK_SIZE, SHARD_SIZE, Plan, make_plan
from causcell.atlas.task import Inputs, Measured, make_shards
from causcell.atlas.zarr_store import write_metadata
from causcell.cells.collection import AnyCells, AnyReader, CellTable
from causcell.counterfactual.request import Request
from causcell.counterfactual.tables import Unseen, check_row_names, result_obs, result_uns, result_var, warn_unmatched
from causcell.errors import AtlasError, CausCellWarning
from causcell.generator import Generator

Make = Callable[[Journal, list[int]], Iterable[ShardRecord | int]]
"""Makes these shards; yields rows as they are written, and the record of each shard that is committed."""


@dataclass(frozen=True)
class Written:
    """What a run did.

    Attributes
    ----------
    rows, shards
        Of the atlas.
    made
        Rows that this run made; the others were there.
    bytes
        Of the shards' files.
    seconds
        That it took; and that it took by stage, where stages of several threads and workers add up.
    unseen
        Rows with combinations of labels never seen, in the whole atlas.
    """

    rows: int
    shards: int
    made: int
    bytes: int
    seconds: float
    stages: dict[str, float]
    unseen: int


def write_atlas(
    generator: Generator,
    cells: AnyCells,
    reader: AnyReader,
    request: Request,
    path: str | os.PathLike[str],
    *,
    chunk_size: int = CHUNK_SIZE,
    shard_size: int = SHARD_SIZE,
    progress: bool = False,
) -> int:
    """Generate and write an atlas in this process, or finish one of the same plan.

    Parameters
    ----------
    path
        The store, a folder that ends in ``.zarr``.
    chunk_size, shard_size
        See `causcell.atlas.plan.make_plan`.

    Returns
    -------
    Rows of the atlas.

    Raises
    ------
    OutputExistsError
        Something else, or an atlas of another plan, is at ``path`` already.
    OutputBusyError, OutputFullError
        Another run writes there; there is no space.
    """
    check_row_names(cells, request)
    plan = make_plan(generator, cells, reader, request, chunk_size=chunk_size, shard_size=shard_size)
    return run_plan(plan, Measured(generator, cells, reader), path, progress=progress).rows


def run_plan(
    plan: Plan,
    inputs: Inputs,
    path: str | os.PathLike[str],
    *,
    make: Make | None = None,
    progress: bool = False,
    report: Callable[[ShardRecord], None] = lambda _: None,
) -> Written:
    """Carry a plan out, as far as it is not yet.

    Parameters
    ----------
    make
        Makes shards; in this process, from ``inputs``, if not given.
    report
        Told of each shard that is committed.

    Raises
    ------
    OutputError
        See `write_atlas`.
    """
    started = time.perf_counter()
    journal = Journal(Path(path))
    with journal.locked():
        _begin(journal, plan, inputs)
        records = _sound_records(journal)
        pending = [shard for shard in range(plan.shards) if shard not in records]
        stages: Counter[str] = Counter()
        made = 0
        if pending:
            journal.unfinish()
            with contextlib.closing(_made(plan, inputs, journal, pending, make)) as done:
                for record in _watched(done, plan, records, progress):
                    records[record.shard] = record
                    stages.update(record.seconds)
                    made += record.rows
                    report(record)
        if not journal.finished:
            _finish(journal, plan, records)
    unseen = sum((record.unseen for record in records.values()), Unseen())
    if made:
        unseen.warn(plan.rows)
        warn_unmatched(sum(record.unmatched for record in records.values()), plan.rows)
    size = sum(file.bytes for record in records.values() for file in record.files.values())
    seconds = time.perf_counter() - started
    return Written(plan.rows, plan.shards, made, size, seconds, dict(stages), unseen.rows)


def _begin(journal: Journal, plan: Plan, inputs: Inputs) -> None:
    """Put the metadata in place, unless they are."""
    origin = _origin(inputs.cells)
    begun = journal.check_plan(plan)
    if begun:
        before = journal.origin()
        for now, then in zip(origin["files"], before["files"], strict=False):
            if now != then:
                warnings.warn(
                    f"{now['path']} was {then['path']} of {then['bytes']} bytes when this atlas was begun, and is of "
                    f"{now['bytes']} bytes, or was written since; its names, labels, genes and sampled values are the "
                    "same, and the atlas goes on",
                    CausCellWarning,
                    stacklevel=4,
                )
        metadata = journal.metadata()
        if metadata is not None and all(_is_there(journal, name, file) for name, file in metadata.items()):
            return
    with raise_on_full_disk(journal.path):
        journal.unfinish()
        if not begun:
            require_space(plan, inputs, journal.path)
            for leftover in journal.path.iterdir():
                if leftover != journal.folder:
                    shutil.rmtree(leftover)
        labels = inputs.cells.labels(inputs.generator.schema)[:1]
        example = result_obs(
            inputs.generator.schema,
            plan.request,
            inputs.cells.names_of(slice(0, 1)),
            labels,
            np.repeat(labels, plan.request.rows_per_cell, axis=0),
            inputs.generator.engine.reference.combinations,
        )
        uns = result_uns(inputs.generator, plan.request) | {"plan": plan.digest}
        write_metadata(journal, plan, example, result_var(inputs.generator.preprocessing.genes, inputs.missing), uns)
        if not begun:
            journal.begin(plan, origin)


def _origin(cells: CellTable) -> dict[str, Any]:
    """Where cells are read from; for people, and to notice files that were written since."""
    files = []
    for part in cells.parts:
        status = part.path.stat() if part.path else None
        files.append(
            {
                "key": part.key,
                "path": str(part.path) if part.path else None,
                "bytes": status.st_size if status else None,
                "modified": status.st_mtime_ns if status else None,
            }
        )
    return {"files": files, "layer": cells.layer, "where": cells.where}


def _file_of(journal: Journal, name: str) -> Path:
    return journal.folder / name if name == ROOT_METADATA else journal.path / name


def _is_there(journal: Journal, name: str, file: FileRecord) -> bool:
    path = _file_of(journal, name)
    return path.is_file() and path.stat().st_size == file.bytes


def _sound_records(journal: Journal) -> dict[int, ShardRecord]:
    """Records of the shards whose files are all there, by their sizes; the others' are withdrawn."""
    records = journal.records()
    for shard, record in list(records.items()):
        if not all(_is_there(journal, name, file) for name, file in record.files.items()):
            journal.withdraw(shard)
            del records[shard]
    return records


def _made(
    plan: Plan, inputs: Inputs, journal: Journal, pending: list[int], make: Make | None
) -> abc.Generator[ShardRecord | int]:
    if make is not None:
        yield from make(journal, pending)
        return
    yield from make_shards(journal, plan, inputs, pending)


def _watched(
    done: Iterator[ShardRecord | int], plan: Plan, records: dict[int, ShardRecord], show: bool
) -> Iterator[ShardRecord]:
    """The records, behind a progress bar of rows."""
    from tqdm.auto import tqdm

    there = sum(record.rows for record in records.values())
    with tqdm(total=plan.rows, initial=there, desc="generating", unit="row", unit_scale=True, disable=not show) as bar:
        shown = 0  # rows of shards under way
        for each in done:
            if isinstance(each, int):
                bar.update(each)
                shown += each
                continue
            bar.update(max(each.rows - shown, 0))  # workers tell of whole shards only
            shown = max(shown - each.rows, 0)
            yield each


def _finish(journal: Journal, plan: Plan, records: dict[int, ShardRecord]) -> None:
    missing = [shard for shard in range(plan.shards) if shard not in records]
    if missing:
        raise AtlasError(f"{str(journal.path)!r} lacks {len(missing)} of {plan.shards} shards; run it again")
    with raise_on_full_disk(journal.path):
        journal.finish()
