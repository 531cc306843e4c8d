"""Crash-safe journal of an atlas: a folder inside the store that records which shards are complete.

``ATLAS.zarr/.causcell/``::

    lock                held (flock) by the run that writes
    plan.json           the plan and where its cells came from; there once the store's metadata are
    zarr.json           the store's root metadata until it is finished; without them it is no zarr group
    shards/000017.json  record of a shard's files: sizes, SHA-256; there once all of these are on disk
    records/            records of many shards in a file, of atlases that have many; see causcell.atlas.record_batches
    pieces/             shards of CSR matrices, until these are assembled; see causcell.atlas.pieces
    pieces/annotations/ annotations of shards, until they are grouped; see causcell.atlas.annotation_pieces
    assembled/          records of the files of CSR matrices, and of groups of annotations
    metadata.json       record of the files that belong to no shard
    work/               files being written

A record is written beside its place, flushed to disk and renamed, after the files that it vouches for.

An atlas may come from a stranger. So what the journal says is checked against the plan's digest and the store's
metadata before it is believed, and no path leaves the store. The place itself is that of `causcell.atlas.storage`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import Any

from causcell._internal.collection_pause import pause_collection
from causcell._internal.remote import AnyPath, RemotePath
from causcell.atlas.object_storage import ObjectStorage
from causcell.atlas.plan import Plan
from causcell.atlas.record_batches import BATCH, gather, read_batches, withdraw_from_batch
from causcell.atlas.records import FileRecord, PlanFit, ShardRecord, check_place
from causcell.atlas.storage import FOLDER, LocalStorage, Storage
from causcell.atlas.store_layout import ROOT_METADATA as ROOT_METADATA
from causcell.atlas.store_layout import shard_arrays
from causcell.errors import AtlasError, CausCellError, OutputExistsError, format_list

_PLAN = f"{FOLDER}/plan.json"
_METADATA = f"{FOLDER}/metadata.json"

_STORE = ("X", "layers", "obsm", "varm", "obsp", "varp", "obs", "var", "uns")
"""What a store that was begun may hold beside its journal."""


class Journal:
    """The journal of one store.

    Parameters
    ----------
    path
        The store, a folder or URL that ends in ``.zarr``; it need not be there yet.
    lease
        What names the run that holds the place, for its workers; see `causcell.atlas.storage.Storage`.
    """

    def __init__(self, path: AnyPath, lease: str = "") -> None:
        self.storage: Storage = ObjectStorage(path, lease) if isinstance(path, RemotePath) else LocalStorage(path)
        self.place = self.storage.place
        self._single: set[int] = set()  # shards with a record of their own, as far as that matters

    @property
    def work(self) -> Path:
        """Folder of files being written."""
        return self.storage.work

    def locked(self) -> AbstractContextManager[None]:
        """Hold the place against other runs, with an empty `work` folder.

        Raises
        ------
        OutputExistsError
            Something else than an atlas is there.
        OutputBusyError
            Another run holds it.
        AtlasError
            It has symbolic links inside.
        """
        return self.storage.locked()

    def locked_if_writable(self) -> AbstractContextManager[bool]:
        """Hold the place where it can be written to; tell whether it can. Nobody writes to a read-only one."""
        return self.storage.locked_if_writable()

    def plan(self) -> Plan | None:
        """Return the plan, or `None` where none was begun; raises `AtlasError` for one that can't be read."""
        fields = self._begun()
        if fields is None:
            return None
        try:
            plan = Plan.model_validate(fields["plan"])
            stated, found = fields["digest"], _digest_fields(fields["plan"])
        except (KeyError, TypeError, ValueError, CausCellError) as error:
            raise self._unreadable(error) from error
        if stated != found:
            raise AtlasError(
                f"{self._name('plan.json')} was changed after the atlas was begun: its digest is {found[:12]}..., "
                f"and {str(stated)[:12]}... is recorded; restore it, or remove {self.place!r} and generate it again"
            )
        return plan

    def _begun(self) -> dict[str, Any] | None:
        try:
            fields = self.read(_PLAN)
        except (ValueError, RecursionError, OSError) as error:
            raise self._unreadable(error) from error
        if fields is not None and not isinstance(fields, dict):
            raise self._unreadable(f"it holds a {type(fields).__name__}")
        return fields

    def _unreadable(self, why: object) -> AtlasError:
        text = str(why)
        return AtlasError(
            f"{self._name('plan.json')} can't be read ({text[:500]}); remove {self.place!r} and generate it again"
        )

    def require_plan(self) -> Plan:
        """Return the plan; raises `AtlasError` where none was begun."""
        plan = self.plan()
        if plan is None:
            raise AtlasError(f"{self.place!r} is no atlas of causcell's: it has no {FOLDER}/plan.json")
        return plan

    def check_plan(self, plan: Plan) -> bool:
        """Tell whether this plan was begun here already; raises `OutputExistsError` if another was."""
        begun = self.plan()
        if begun is None:
            return False
        if begun.digest != plan.digest:
            raise OutputExistsError(
                f"{self.place!r} holds an atlas of another plan: {'; '.join(begun.differences(plan))}; remove it, "
                "or name another place"
            )
        return True

    def begin(self, plan: Plan, origin: dict[str, Any]) -> None:
        """Record the plan, and where its cells came from."""
        fields = {"digest": plan.digest, "plan": plan.model_dump(mode="json"), "origin": origin}
        self.write(_PLAN, fields, new=True)

    def origin(self) -> dict[str, Any]:
        """Return where the cells came from when the atlas was begun; nothing where that can't be read."""
        origin = (self._begun() or {}).get("origin")
        return origin if isinstance(origin, dict) else {}

    def records(self, plan: Plan | None = None) -> dict[int, ShardRecord]:
        """Return the records of all complete shards, by shard; those that are not what the plan asks for are left out.

        A damaged record vouches for nothing: its shard is made again.
        """
        found: dict[int, ShardRecord] = {}
        fits = None if plan is None else PlanFit(plan, shard_arrays(self.metadata(), plan))
        for record in read_batches(self.storage):
            if fits is None or fits(record):
                found[record.shard] = record
        for name in sorted(self.storage.names(f"{FOLDER}/shards")):
            if not name.endswith(".json"):
                continue
            try:
                record = ShardRecord.model_validate(self.read(name))
            except (ValueError, RecursionError, OSError):
                continue
            if name == _record_name(record.shard) and (fits is None or fits(record)):
                found[record.shard] = record
        return found

    def sound_records(self, plan: Plan) -> dict[int, ShardRecord]:
        """Return the records of shards whose files are all there, by their sizes; the others' are withdrawn.

        A store of which a shard is missing can't be opened: its root's metadata are taken away first.
        """
        with pause_collection():  # of a million objects
            records = self.records(plan)
            lost = [shard for shard, record in records.items() if not self._holds_all(record)]
        for shard in lost:
            self.unfinish()
            self.withdraw(shard)
            del records[shard]
        if plan.group is not None:
            names = self.storage.names(f"{FOLDER}/shards")
            self._single = {shard for shard in map(_shard_of, names) if shard in records}
            for number in sorted({shard // BATCH for shard in self._single}):
                gather(self.storage, plan.shards, number, records, self._single)
        return records

    def note(self, plan: Plan, records: Mapping[int, ShardRecord], shard: int) -> None:
        """Note that a shard is complete: of atlases that have groups, records of many go into one file."""
        if plan.group is not None:
            self._single.add(shard)
            gather(self.storage, plan.shards, shard // BATCH, records, self._single)

    def place_of(self, name: str) -> str:
        """Return where a recorded file is; the root's metadata are kept aside until the store is finished."""
        return f"{FOLDER}/{name}" if name == ROOT_METADATA else name

    def holds(self, name: str, file: FileRecord) -> bool:
        """Tell whether a recorded file is there, by its size."""
        return self.storage.size(self.place_of(name)) == file.bytes

    def _holds_all(self, record: ShardRecord) -> bool:
        """Tell whether all files of a shard are there, by their sizes."""
        size = self.storage.size
        return all(size(name) == file.bytes for name, file in record.files.items())

    def is_damaged(self, name: str, file: FileRecord, *, by_size: bool = False) -> bool:
        """Tell whether a recorded file is not there as it was written: by its size alone, or by its digest too."""
        return not self.holds(name, file) or not (by_size or self.storage.record(self.place_of(name)) == file)

    def commit(self, record: ShardRecord) -> None:
        """Record a shard whose files are on disk: from here on it is complete."""
        self.write(_record_name(record.shard), record.model_dump(mode="json"))

    def withdraw(self, shard: int) -> None:
        """Withdraw a shard's record, so that it is made again."""
        withdraw_from_batch(self.storage, shard)
        self.storage.remove(_record_name(shard))

    def metadata(self) -> dict[str, FileRecord] | None:
        """Return the records of files that belong to no shard, or `None` where they have to be written again."""
        try:
            fields = self.read(_METADATA)
            if not isinstance(fields, dict) or ROOT_METADATA not in fields:
                return None
            return {check_place(name): FileRecord.model_validate(each) for name, each in fields.items()}
        except (ValueError, RecursionError, OSError):
            return None

    def commit_metadata(self, files: dict[str, FileRecord]) -> None:
        """Record the files that belong to no shard."""
        self.write(_METADATA, {name: each.model_dump(mode="json") for name, each in sorted(files.items())})

    def withdraw_metadata(self) -> None:
        """Withdraw the record of files that belong to no shard, so that they are written again."""
        self.storage.remove(_METADATA)

    def clear(self) -> None:
        """Remove metadata that were written for a plan that was not begun after all.

        Raises
        ------
        OutputExistsError
            There is more than these: an atlas that lost its plan, or something else.
        """
        others = self.storage.entries()
        strange = [name for name, is_folder in others.items() if name not in _STORE or not is_folder]
        if strange or any(any(self.storage.names(f"{FOLDER}/{each}")) for each in ("shards", "records")):
            what = format_list(strange) if strange else "finished shards"
            raise OutputExistsError(
                f"{self.place!r} has {what} and no {FOLDER}/plan.json, which is not overwritten; remove it, or "
                "name another place"
            )
        for name in others:
            self.storage.remove_folder(name)

    @property
    def finished(self) -> bool:
        """Tell whether the store can be opened as a whole."""
        return self.storage.size(ROOT_METADATA) is not None

    def has(self, name: str, content: bytes) -> bool:
        """Tell whether a file of the store has this content."""
        try:
            return self.storage.size(name) == len(content) and self.storage.read(name) == content
        except (ValueError, OSError):
            return False

    def unfinish(self) -> None:
        """Take the root's metadata away: the store can't be opened as long as something is missing."""
        self.storage.remove(ROOT_METADATA)

    def _name(self, name: str) -> str:
        """Return a file of the journal as messages name it."""
        return f"{self.place}/{FOLDER}/{name}"

    def read(self, name: str) -> Any:
        """Return what a file of JSON holds, `None` where there is none.

        Raises
        ------
        ValueError, RecursionError, OSError
            It can't be read.
        """
        content = self.storage.read(name)
        return None if content is None else json.loads(content)

    def write(self, name: str, fields: Any, *, new: bool = False) -> None:
        """Write a file of JSON, whole or not at all; ``new`` as in `causcell.atlas.storage.Storage.write`."""
        self.storage.write(name, json.dumps(fields, indent=1).encode(), new=new)


def _digest_fields(fields: Any) -> str:
    """Return the digest of a plan by its fields, as they stand in the file."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _shard_of(name: str) -> int:
    """Return the shard that a record's file is of; -1 for another file."""
    number = PurePosixPath(name).stem
    return int(number) if number.isdecimal() and name == _record_name(int(number)) else -1


def _record_name(shard: int) -> str:
    return f"{FOLDER}/shards/{shard:06d}.json"
