"""Verify the files of an atlas against the digests that were recorded when they were written, and its values.

What is recorded may be wrong too: a server may have answered nonsense, a stranger may have edited plan or records. So
the plan is held against its digest and the store's metadata, each record against the plan's files and rows, and every
value is looked at: all are finite, and expression is not negative. That is no proof of who made the atlas.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from causcell._internal.remote import RemotePath, any_path
from causcell._internal.stages import progress_bar
from causcell.atlas.annotation_pieces import group_files, list_grouped, piece_name, read_group, withdraw_group
from causcell.atlas.assemble import list_assembled
from causcell.atlas.journal import ROOT_METADATA, Journal
from causcell.atlas.plan import Plan
from causcell.atlas.records import FileRecord, ShardRecord, shard_file
from causcell.atlas.shards import read_shard
from causcell.atlas.store_layout import grouped_arrays, strange_layouts
from causcell.atlas.value_checks import describe_values
from causcell.atlas.verify_matrices import check_matrices
from causcell.atlas.zarr_store import list_counting


@dataclass(frozen=True)
class Verification:
    """Findings of a check of an atlas.

    Attributes
    ----------
    rows, shards
        Rows and shards of the plan.
    missing
        Shards not made yet.
    damaged
        Files that are not what was written, by shard; those of no shard under `None`.
    finished
        Whether the store can be opened.
    invalid
        Files, by shard, that are what was written and hold values that can't be: what is wrong with them, by name.
    unknown
        Files in the store that nothing was recorded of.
    read_only
        Whether the atlas can't be written to, so that it was read without its lock and nothing was withdrawn.
    """

    rows: int
    shards: int
    missing: tuple[int, ...]
    damaged: dict[int | None, tuple[str, ...]]
    finished: bool
    invalid: dict[int, dict[str, str]] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    read_only: bool = False

    @property
    def sound(self) -> bool:
        """True if the atlas is all there, as it was written, and its values can be."""
        return self.finished and not (self.missing or self.damaged or self.invalid or self.unknown)


def verify_atlas(path: str | os.PathLike[str] | RemotePath, *, progress: bool = False) -> Verification:
    """Check every file of an atlas against its recorded digest, and every value.

    The record of what is damaged is withdrawn, so that the next run makes that anew. An atlas that can't be written to
    is read without its lock.

    Parameters
    ----------
    path
        The atlas, a folder or URL.
    progress
        Show a progress bar.

    Raises
    ------
    AtlasError
        There is no atlas.
    OutputBusyError
        A run writes there.
    """
    journal = Journal(any_path(path, "atlas"))
    plan = journal.require_plan()
    with journal.locked_if_writable() as writable:
        records = journal.records(plan)
        metadata = journal.metadata()
        damaged: dict[int | None, tuple[str, ...]] = {}
        invalid: dict[int, dict[str, str]] = {}
        for shard, record in progress_bar(records.items(), desc="verifying", unit="shard", disable=not progress):
            bad = _damaged_files(journal, record.files)
            if bad:
                damaged[shard] = bad
            elif wrong := _invalid_files(journal, plan, shard):
                invalid[shard] = wrong
        matrices = check_matrices(journal, plan, records, progress=progress)
        groups = _check_groups(journal, plan, records, damaged)
        for place, names in matrices.damaged.items():
            damaged[place] = (*damaged.get(place, ()), *names)
        for place, wrong in matrices.invalid.items():
            invalid[place] = invalid.get(place, {}) | wrong
        bad = _damaged_metadata(journal, plan, metadata) or matrices.metadata
        if bad:
            damaged[None] = (*damaged.get(None, ()), *bad)
        unknown = _unknown_files(journal, plan, records, metadata or {})
        if writable:
            matrices.withdraw(journal)
            for group in groups:
                withdraw_group(journal, group)
            if None in damaged:
                journal.withdraw_metadata()
            for place in {*damaged, *invalid}:
                if place is not None:
                    journal.withdraw(place)
    missing = tuple(shard for shard in range(plan.shards) if shard not in records)
    return Verification(
        plan.rows, plan.shards, missing, damaged, journal.finished, invalid, unknown, read_only=not writable
    )


def _check_groups(
    journal: Journal, plan: Plan, records: Mapping[int, ShardRecord], damaged: dict[int | None, tuple[str, ...]]
) -> list[int]:
    """Add the annotations of groups of shards that are not what was written, by shard; return their groups."""
    withdrawn, arrays = [], grouped_arrays(journal.storage, journal.metadata(), plan)
    for group in range(plan.groups):
        shards = [shard for shard in plan.shards_of(group) if shard in records]
        made, expected = read_group(journal, group), tuple(group_files(arrays, group).values())
        bad: tuple[str, ...] = () if made is None else _damaged_files(journal, made.files)
        if (made is None and journal.finished) or (made is not None and made.files.keys() != set(expected)):
            bad = expected
        if bad:
            withdrawn.append(group)
            places: list[int | None] = [*shards] or [None]
            for place in places:
                damaged[place] = (*damaged.get(place, ()), *bad)
        elif made is None:
            for shard in shards:
                name, piece = piece_name(shard), records[shard].annotations
                if piece is not None and journal.is_damaged(name, piece):
                    damaged[shard] = (*damaged.get(shard, ()), name)
    return withdrawn


def _damaged_files(journal: Journal, files: Mapping[str, FileRecord]) -> tuple[str, ...]:
    return tuple(name for name, file in files.items() if journal.is_damaged(name, file))


def _damaged_metadata(journal: Journal, plan: Plan, metadata: Mapping[str, FileRecord] | None) -> tuple[str, ...]:
    """Return the files of no shard that are not what was written, or not of the plan."""
    if metadata is None:
        return ("metadata.json",)
    bad = _damaged_files(journal, metadata) or strange_layouts(journal.storage, plan)
    if not bad and journal.finished and not plan.sparse:
        sound = journal.storage.record(ROOT_METADATA) == metadata[ROOT_METADATA]
        bad = () if sound else (ROOT_METADATA,)
    return bad


def _invalid_files(journal: Journal, plan: Plan, shard: int) -> dict[str, str]:
    """Return the files of a shard with values that can't be, and what is wrong with them."""
    found = {}
    for place in plan.dense:
        name = shard_file(place, shard, flat=plan.group is not None)
        try:
            with journal.storage.open(name) as file:
                wrong = describe_values(read_shard(file, plan, place), plan, place)
        except (ValueError, RuntimeError, OSError, MemoryError) as error:
            wrong = str(error) or type(error).__name__
        if wrong:
            found[name] = wrong
    return found


def _unknown_files(
    journal: Journal, plan: Plan, records: Mapping[int, ShardRecord], metadata: Mapping[str, FileRecord]
) -> tuple[str, ...]:
    """Return the files that nothing was recorded of, but for hidden ones and those of what is not finished yet."""
    known = {name for record in records.values() for name in record.files} | metadata.keys() | {ROOT_METADATA}
    known |= {*list_assembled(journal, plan), *list_counting(plan), *list_grouped(journal, plan)}
    places = (*plan.sparse, *grouped_arrays(journal.storage, journal.metadata(), plan))
    unfinished = () if journal.finished else tuple(f"{place}/" for place in places)
    found = []
    for place in journal.storage.names():
        chunk = re.search(r"/c[./](\d+)([./]0)?$", place)
        grouped = plan.group is not None and not place.startswith(tuple(f"{each}/" for each in plan.dense))
        under_way = chunk is not None and not grouped and int(chunk[1][:18]) not in records
        under_way = under_way or (place.startswith(unfinished) if unfinished else False)
        hidden = PurePosixPath(place).name.startswith(".")
        if place not in known and not hidden and not under_way and metadata:
            found.append(place)
    return tuple(sorted(found))
