"""Write an atlas shard by shard, or continue one that was interrupted.

The chunk is what a reader fetches, the shard what is made and committed at once. The form of the rows is that of
`causcell.counterfactual.tables`, what they hold that of `causcell.counterfactual.outputs`, the files those of
`causcell.atlas.zarr_store` and `causcell.atlas.shards`. The store is made in place and can't be opened before it is
finished; `causcell.atlas.journal` records what is done.

Resumable: rerun the same command after any interruption; the result is bit-identical.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections import abc, defaultdict
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from causcell._internal.files import local_path, new_file, refuse_existing, staging_folder
from causcell._internal.locks import flush_folder
from causcell._internal.stages import progress_bar
from causcell._internal.telling import warn
from causcell._internal.units import format_size
from causcell.atlas.annotation_pieces import AnnotationAssembly, open_annotations
from causcell.atlas.assemble import Assembly, open_matrices
from causcell.atlas.estimate import require_space
from causcell.atlas.events import AtlasEvent, OnEvent, RowsWritten, ShardCommitted
from causcell.atlas.executors.base import Executor
from causcell.atlas.executors.in_process import InProcess
from causcell.atlas.journal import ROOT_METADATA, Journal
from causcell.atlas.pieces import PIECES
from causcell.atlas.plan import Plan
from causcell.atlas.records import ShardRecord, raise_on_full_disk
from causcell.atlas.task import ShardMaker
from causcell.atlas.zarr_store import counted_metadata, write_metadata
from causcell.counterfactual.tables import Unseen, warn_unmatched
from causcell.errors import AtlasError, ConfigurationError

LARGEST_H5AD = 2 * 10**9
"""Uncompressed bytes up to which results are written as one ``.h5ad`` file, which takes them into memory."""

_Assemblies = Assembly | AnnotationAssembly


@dataclass(frozen=True)
class AtlasSummary:
    """Summary of a run that wrote or continued an atlas.

    Attributes
    ----------
    rows, shards
        Rows and shards of the atlas.
    made
        Rows that this run made; the others were there.
    bytes
        Bytes of the files of values and annotations.
    seconds
        Time that the run took.
    stages
        Time by stage, where stages of several threads and workers add up: those of shards, and ``assemble``, which CSR
        matrices and the annotations of many shards take.
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
    maker: ShardMaker,
    origin: dict[str, Any],
    *,
    executor: Executor | None = None,
    progress: bool = False,
    on_event: OnEvent | None = None,
) -> AtlasSummary:
    """Carry a plan out, as far as it is not yet.

    Parameters
    ----------
    maker
        Makes the shards.
    origin
        Where the cells come from; see `causcell.cells.panel_cells.PanelCells.describe_origin`.
    executor
        Has the shards made; in this process, if not given.
    progress
        Show a progress bar.
    on_event
        Called with every event.

    Raises
    ------
    OutputExistsError
        Something else, or an atlas of another plan, is there already.
    OutputBusyError, OutputFullError
        Another run writes there; there is no space.
    """
    started = time.perf_counter()
    plan, journal = maker.plan, maker.journal
    with journal.locked():
        _begin(maker, journal, origin)
        records = journal.sound_records(plan)
        stages: dict[str, float] = defaultdict(float)
        made, digested, makers = 0, set[int](), executor or InProcess()
        for pending in _find_pending(journal, plan, records, digested):
            journal.unfinish()
            events = makers.run(maker.under(journal.storage.lease), pending)
            for event in _watch(events, plan, records, progress):
                if isinstance(event, ShardCommitted):
                    records[event.record.shard] = event.record
                    journal.note(plan, records, event.record.shard)
                    if isinstance(makers, InProcess):  # of others' files the digests are looked at
                        digested.add(event.record.shard)
                    for stage, seconds in event.record.seconds.items():
                        stages[stage] += seconds
                    made += event.record.rows
                if on_event is not None:
                    on_event(event)
        assembled = _finish(journal, plan, records, stages, progress)
    unseen = sum((record.unseen for record in records.values()), Unseen())
    if made:
        unseen.warn(plan.rows)
        warn_unmatched(sum(record.unmatched for record in records.values()), plan.rows)
    size = sum(file.bytes for record in records.values() for file in record.files.values())
    size += sum(each.bytes for each in assembled)
    seconds = time.perf_counter() - started
    return AtlasSummary(plan.rows, plan.shards, made, size, seconds, dict(stages), unseen.rows)


def write_h5ad(
    maker: ShardMaker,
    origin: dict[str, Any],
    *,
    executor: Executor | None = None,
    progress: bool = False,
    on_event: OnEvent | None = None,
) -> AtlasSummary:
    """Write a small atlas as one ``.h5ad`` file; see `write_atlas`.

    It is made as a store in a hidden folder beside the file, where the next run goes on if this one is interrupted, and
    which goes when the file is there.

    Raises
    ------
    ConfigurationError
        The atlas does not fit into memory well.
    OutputExistsError, OutputFullError
        Something is there already; there is no space.
    """
    import anndata

    out, plan = local_path(str(maker.path)), maker.plan
    refuse_existing(out)
    if plan.bytes_uncompressed > LARGEST_H5AD:
        raise ConfigurationError(
            f"{str(out)!r} would hold {format_size(plan.bytes_uncompressed)} of values; .h5ad is for results of up to "
            f"{format_size(LARGEST_H5AD)}, which fit into memory: name a .zarr"
        )
    with raise_on_full_disk(str(out)), staging_folder(out.absolute(), keep=True) as folder:
        store = folder / "atlas.zarr"
        _sweep(store, plan)
        try:
            summary = write_atlas(maker.at(store), origin, executor=executor, progress=progress, on_event=on_event)
        except BaseException as error:
            if not Journal(store).records():
                shutil.rmtree(store, ignore_errors=True)
            elif isinstance(error, KeyboardInterrupt) and not error.args:
                error.args = (
                    f"what is finished is kept in {str(folder)!r}, and the same command goes on with it and removes it",
                )
            raise
        with new_file(folder / out.name) as file:
            anndata.read_zarr(store).write_h5ad(file, compression="gzip")
        refuse_existing(out)
        (folder / out.name).rename(out)
        flush_folder(out.absolute().parent)
    return summary


def _sweep(store: Path, plan: Plan) -> None:
    """Remove what an interrupted run of another plan left where this one goes on."""
    with contextlib.suppress(AtlasError):
        begun = Journal(store).plan()
        if begun is not None and begun.digest == plan.digest:
            return
    if store.exists():
        shutil.rmtree(store)


def _begin(maker: ShardMaker, journal: Journal, origin: dict[str, Any]) -> None:
    """Put the metadata in place, unless they are."""
    plan, table = maker.plan, maker.table
    begun = journal.check_plan(plan)
    if begun:
        _warn_of_changed_files(journal.origin(), origin)
        metadata = journal.metadata()
        if (
            metadata is not None
            and all(journal.holds(name, file) for name, file in metadata.items())
            and not journal.is_damaged(ROOT_METADATA, metadata[ROOT_METADATA])  # of which the root's are made
        ):
            return
    with raise_on_full_disk(journal.storage.disk):
        if not begun:
            journal.clear()
            require_space(maker)
        journal.unfinish()
        example, obsm = maker.annotate(table.example(1), slice(0, 1))  # for its columns and their types
        var = table.var(maker.source.missing, None if maker.annotations is None else maker.annotations.var)
        uns = table.uns({"plan": plan.digest})
        write_metadata(journal, plan, example, var, uns, obsm)
        if not begun:
            journal.begin(plan, origin)


def _warn_of_changed_files(before: dict[str, Any], now: dict[str, Any]) -> None:
    known = before.get("files")
    for new, old in zip(now["files"], known if isinstance(known, list) else [], strict=False):
        if new != old and isinstance(old, dict):
            warn(
                f"{new['path']} was {old.get('path')} of {old.get('bytes')} bytes when this atlas was begun, and is of "
                f"{new['bytes']} bytes, or was written since; its names, labels, genes and sampled values are the "
                "same, and the atlas goes on"
            )


def _watch(
    events: Iterator[AtlasEvent], plan: Plan, records: dict[int, ShardRecord], show: bool
) -> Iterator[AtlasEvent]:
    """Pass events on behind a progress bar of rows; the executor is stopped when nobody takes any more."""
    there = sum(record.rows for record in records.values())
    with (
        contextlib.ExitStack() as stack,
        progress_bar(
            total=plan.rows, initial=there, desc="generating", unit="row", unit_scale=True, disable=not show
        ) as bar,
    ):
        if isinstance(events, abc.Generator):
            stack.callback(events.close)
        under_way = 0  # rows shown of shards that are not committed yet
        for event in events:
            if isinstance(event, RowsWritten):
                bar.update(event.rows)
                under_way += event.rows
            else:
                bar.update(max(event.record.rows - under_way, 0))  # workers report whole shards alone
                under_way = max(under_way - event.record.rows, 0)
            yield event


def _find_pending(
    journal: Journal, plan: Plan, records: dict[int, ShardRecord], digested: Container[int]
) -> Iterator[list[int]]:
    """Give the shards that are not complete; when they are, those of which pieces are missing, until none is.

    The latter's records are withdrawn. Of shards that this process has ``digested`` pieces are known by their sizes.
    """
    if missing := _find_missing(plan, records):
        yield missing
    while not _find_missing(plan, records):
        assemblies = _open_assemblies(journal, plan, records)
        lacking = sorted({shard for each in assemblies for shard in each.lacking(digested)})
        if not lacking:
            return
        journal.unfinish()
        for shard in lacking:
            journal.withdraw(shard)
            del records[shard]
        yield lacking


def _open_assemblies(journal: Journal, plan: Plan, records: dict[int, ShardRecord]) -> list[_Assemblies]:
    return [*open_annotations(journal, plan, records), *open_matrices(journal, plan, records)]


def _find_missing(plan: Plan, records: dict[int, ShardRecord]) -> list[int]:
    return [shard for shard in range(plan.shards) if shard not in records]


def _finish(
    journal: Journal, plan: Plan, records: dict[int, ShardRecord], stages: dict[str, float], progress: bool
) -> list[_Assemblies]:
    """Assemble CSR matrices and annotations and put the root's metadata in place, unless all of it is; return them."""
    missing = _find_missing(plan, records)
    if missing:
        raise AtlasError(f"{journal.place!r} lacks {len(missing)} of {plan.shards} shards; run it again")
    matrices, annotations = open_matrices(journal, plan, records), open_annotations(journal, plan, records)
    assemblies: list[_Assemblies] = [*annotations, *matrices]
    counted = counted_metadata(journal, plan, {matrix.place: matrix.nonzeros for matrix in matrices})
    done = journal.finished and not any(each.needed() for each in assemblies)
    if not done or (matrices and not all(journal.has(*each) for each in counted.items())):
        started = time.perf_counter()
        with raise_on_full_disk(journal.storage.disk):
            journal.unfinish()
            for each in annotations:
                with progress_bar(total=plan.shards, desc="assembling obs", unit="shard", disable=not progress) as bar:
                    each.run(bar.update)
            for matrix in matrices:
                with progress_bar(
                    total=matrix.nonzeros, desc="assembling", unit="value", unit_scale=True, disable=not progress
                ) as bar:
                    matrix.run(bar.update)
            for name, content in counted.items():  # the root's last
                journal.storage.write(name, content)
        if assemblies:
            stages["assemble"] += time.perf_counter() - started
    journal.storage.remove_folder(PIECES)
    return assemblies
