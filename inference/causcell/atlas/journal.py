"""Crash-safe journal of an atlas: a folder inside the store that records which shards are complete.

``ATLAS.zarr/.causcell/``::

    lock                held (flock) by the run that writes
    plan.json           the plan and where its cells came from; there once the store's metadata are
    zarr.json           the store's root metadata until it is finished; without them it is no zarr group
    shards/000017.json  record of a shard's files: sizes, SHA-256; there once all of these are on disk
    metadata.json       record of the files that belong to no shard
    work/               files being written

A record is written beside its place, flushed to disk and renamed, after the files that it vouches for.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from causcell._internal.digests import file_digest
from causcell._internal.files import refuse_existing
from causcell.atlas.plan import Plan
from causcell.counterfactual.tables import Unseen
from causcell.errors import AtlasError, OutputBusyError, OutputExistsError, OutputFullError

FOLDER = ".causcell"
ROOT_METADATA = "zarr.json"

_FLUSHED_AT_ONCE = 16
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class FileRecord(BaseModel):
    """Size and SHA-256 of a file of the store."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bytes: int
    sha256: str


class ShardRecord(BaseModel):
    """Record of a complete shard.

    Attributes
    ----------
    shard
        Place of the shard.
    rows
        Number of its rows.
    files
        Records of its files, by path in the store.
    unmatched, unseen
        Rows without a matching reference cell, and with combinations of labels never seen.
    seconds
        Time by stage: ``read``, ``encode``, ``sample``, ``write``.
    worker
        Host and process that made it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    shard: int
    rows: int
    files: dict[str, FileRecord]
    unmatched: int
    unseen: Unseen
    seconds: dict[str, float]
    worker: str


class Journal:
    """The journal of one store.

    Parameters
    ----------
    path
        The store, a folder that ends in ``.zarr``; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = path / FOLDER

    @property
    def work(self) -> Path:
        """Folder of files being written."""
        return self.folder / "work"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the place against other runs, with an empty `work` folder.

        Raises
        ------
        OutputExistsError
            Something else than an atlas is there.
        OutputBusyError
            Another run holds it.
        """
        if not self.folder.is_dir():
            refuse_existing(self.path)
        with raise_on_full_disk(self.path):
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / "lock").open("w")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OutputBusyError(
                    f"another run is writing to {str(self.path)!r}; wait for it, or name another place"
                ) from None
            shutil.rmtree(self.work, ignore_errors=True)
            self.work.mkdir()
            try:
                yield
            finally:
                shutil.rmtree(self.work, ignore_errors=True)

    def plan(self) -> Plan | None:
        """Return the plan, or `None` where none was begun; raises `AtlasError` for one that can't be read."""
        try:
            fields = json.loads((self.folder / "plan.json").read_bytes())
            return Plan.model_validate(fields["plan"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, ValidationError) as error:
            raise AtlasError(
                f"{self.folder / 'plan.json'} can't be read ({error}); remove {str(self.path)!r} and generate it again"
            ) from error

    def require_plan(self) -> Plan:
        """Return the plan; raises `AtlasError` where none was begun."""
        plan = self.plan()
        if plan is None:
            raise AtlasError(f"{str(self.path)!r} is no atlas of causcell's: it has no {FOLDER}/plan.json")
        return plan

    def check_plan(self, plan: Plan) -> bool:
        """Tell whether this plan was begun here already; raises `OutputExistsError` if another was."""
        begun = self.plan()
        if begun is None:
            return False
        if begun.digest != plan.digest:
            raise OutputExistsError(
                f"{str(self.path)!r} holds an atlas of another plan: {'; '.join(begun.differences(plan))}; remove it, "
                "or name another place"
            )
        return True

    def begin(self, plan: Plan, origin: dict[str, Any]) -> None:
        """Record the plan, and where its cells came from."""
        self._write("plan.json", {"digest": plan.digest, "plan": plan.model_dump(mode="json"), "origin": origin})

    def origin(self) -> dict[str, Any]:
        """Return where the cells came from when the atlas was begun."""
        origin: dict[str, Any] = json.loads((self.folder / "plan.json").read_bytes())["origin"]
        return origin

    def records(self) -> dict[int, ShardRecord]:
        """Return the records of all complete shards, by shard."""
        found = {}
        for file in sorted((self.folder / "shards").glob("*.json")):
            with contextlib.suppress(ValidationError):  # a damaged record vouches for nothing: its shard is made again
                record = ShardRecord.model_validate_json(file.read_bytes())
                found[record.shard] = record
        return found

    def sound_records(self) -> dict[int, ShardRecord]:
        """Return the records of shards whose files are all there, by their sizes; the others' are withdrawn."""
        records = self.records()
        for shard, record in list(records.items()):
            if not all(self.holds(name, file) for name, file in record.files.items()):
                self.withdraw(shard)
                del records[shard]
        return records

    def path_of(self, name: str) -> Path:
        """Return the path of a recorded file; the root's metadata are kept aside until the store is finished."""
        return self.folder / name if name == ROOT_METADATA else self.path / name

    def holds(self, name: str, file: FileRecord) -> bool:
        """Tell whether a recorded file is there, by its size."""
        path = self.path_of(name)
        return path.is_file() and path.stat().st_size == file.bytes

    def commit(self, record: ShardRecord) -> None:
        """Record a shard whose files are on disk: from here on it is complete."""
        self._write(f"shards/{record.shard:06d}.json", record.model_dump(mode="json"))

    def withdraw(self, shard: int) -> None:
        """Withdraw a shard's record, so that it is made again."""
        (self.folder / "shards" / f"{shard:06d}.json").unlink(missing_ok=True)

    def metadata(self) -> dict[str, FileRecord] | None:
        """Return the records of files that belong to no shard, or `None` where they have to be written again."""
        try:
            fields = json.loads((self.folder / "metadata.json").read_bytes())
            return {name: FileRecord.model_validate(each) for name, each in fields.items()}
        except (FileNotFoundError, ValueError):
            return None

    def commit_metadata(self, files: dict[str, FileRecord]) -> None:
        """Record the files that belong to no shard."""
        self._write("metadata.json", {name: each.model_dump(mode="json") for name, each in sorted(files.items())})

    def withdraw_metadata(self) -> None:
        """Withdraw the record of files that belong to no shard, so that they are written again."""
        (self.folder / "metadata.json").unlink(missing_ok=True)

    @property
    def finished(self) -> bool:
        """Tell whether the store can be opened as a whole."""
        return (self.path / ROOT_METADATA).is_file()

    def finish(self) -> None:
        """Put the root's metadata in place: from here on the store can be opened."""
        staged = self.work / ROOT_METADATA
        staged.parent.mkdir(exist_ok=True)
        shutil.copyfile(self.folder / ROOT_METADATA, staged)
        put_files({self.path / ROOT_METADATA: staged})

    def unfinish(self) -> None:
        """Take the root's metadata away: the store can't be opened as long as something is missing."""
        (self.path / ROOT_METADATA).unlink(missing_ok=True)

    def _write(self, name: str, fields: Any) -> None:
        with raise_on_full_disk(self.path):
            self.work.mkdir(exist_ok=True)
            handle, staged = tempfile.mkstemp(dir=self.work)
            with os.fdopen(handle, "w") as file:
                json.dump(fields, file, indent=1)
            target = self.folder / name
            put_files({target: Path(staged)})
            _flush_folder(target.parent)


def put_files(files: Mapping[Path, Path]) -> dict[Path, FileRecord]:
    """Move finished files to their places: each is there whole or not at all, whatever happens then.

    All are flushed to disk at once, which a disk does in the time of one or two.

    Parameters
    ----------
    files
        Where each file is, by where it belongs.

    Returns
    -------
    Record of each file, by where it belongs.
    """
    with ThreadPoolExecutor(_FLUSHED_AT_ONCE) as pool:
        records = dict(zip(files, pool.map(_flush_file, files.values()), strict=True))
    for target, staged in files.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        staged.chmod(0o644)
        staged.rename(target)
    return records


def _flush_file(path: Path) -> FileRecord:
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return record_file(path)


def _flush_folder(path: Path) -> None:
    """Make the renames in a folder survive a loss of power."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def record_file(path: Path) -> FileRecord:
    """Return the record of a file as it is."""
    return FileRecord(bytes=path.stat().st_size, sha256=file_digest(path))


@contextlib.contextmanager
def raise_on_full_disk(path: Path) -> Iterator[None]:
    """Raise `OutputFullError` for a disk, quota or file size that is exhausted."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OutputFullError(
            f"there is no space left for {str(path)!r} ({error.strerror}); what is finished is kept: free some space "
            "and run the same command again"
        ) from error
