"""Verify the files of an atlas against the digests that were recorded when they were written."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from causcell.atlas.journal import ROOT_METADATA, FileRecord, Journal, record_file


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
    """

    rows: int
    shards: int
    missing: tuple[int, ...]
    damaged: dict[int | None, tuple[str, ...]]
    finished: bool

    @property
    def sound(self) -> bool:
        """True if the atlas is all there, and as it was written."""
        return self.finished and not self.missing and not self.damaged


def verify_atlas(path: str | os.PathLike[str], *, progress: bool = False) -> Verification:
    """Check every file of an atlas against its recorded digest.

    The record of what is damaged is withdrawn, so that the next run makes that anew.

    Parameters
    ----------
    path
        The atlas.
    progress
        Show a progress bar.

    Raises
    ------
    AtlasError
        There is no atlas.
    OutputBusyError
        A run writes there.
    """
    from tqdm.auto import tqdm

    journal = Journal(Path(path))
    plan = journal.require_plan()
    with journal.locked():
        records = journal.records()
        metadata = journal.metadata()
        damaged: dict[int | None, tuple[str, ...]] = {}
        groups: list[tuple[int | None, dict[str, FileRecord]]] = [(each.shard, each.files) for each in records.values()]
        groups.append((None, metadata or {}))
        for shard, files in tqdm(groups, desc="verifying", unit="shard", disable=not progress):
            bad = [name for name, file in files.items() if _is_damaged(journal.path_of(name), file)]
            if bad:
                damaged[shard] = tuple(bad)
        root = journal.path / ROOT_METADATA
        if metadata is None:
            damaged[None] = ("metadata.json",)
        elif journal.finished and None not in damaged and _is_damaged(root, metadata[ROOT_METADATA]):
            damaged[None] = (ROOT_METADATA,)
        for shard in damaged:
            if shard is None:
                journal.withdraw_metadata()
            else:
                journal.withdraw(shard)
    missing = tuple(shard for shard in range(plan.shards) if shard not in records)
    return Verification(plan.rows, plan.shards, missing, damaged, journal.finished)


def _is_damaged(path: Path, file: FileRecord) -> bool:
    return not path.is_file() or record_file(path) != file
