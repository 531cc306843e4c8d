"""What of an atlas is done: a folder inside the store, written so that a crash at any moment leaves it true.

``ATLAS.zarr/.causcell/``::

    lock                held (flock) by the run that writes
    plan.json           the plan and where its cells came from; there once the store's metadata are
    zarr.json           the store's root metadata until it is finished; without them it is no zarr group
    shards/000017.json  what was written for a shard: files, sizes, SHA-256; there once all of these are on disk
    metadata.json       the same of the files that belong to no shard
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
    """A file of the store."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bytes: int
    sha256: str


class ShardRecord(BaseModel):
    """A finished shard.

    Attributes
    ----------
    shard
        Its place.
    rows
        Rows in it.
    files
        By path in the store.
    unmatched, unseen
        Rows without a matching reference cell, and with combinations of labels never seen.
    seconds
        By stage: ``read``, ``encode``, ``sample``, ``write``.
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
    """The journal of one store."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = path / FOLDER

    @property
    def work(self) -> Path:
        """For files being written."""
        return self.folder / "work"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the place.

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
            yield
            shutil.rmtree(self.work, ignore_errors=True)

    def plan(self) -> Plan | None:
        """The plan; `None` where none was begun."""
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
        """The plan; raises `AtlasError` where none was begun."""
        plan = self.plan()
        if plan is None:
            raise AtlasError(f"{str(self.path)!r} is no atlas of causcell's: it has no {FOLDER}/plan.json")
        return plan

    def check_plan(self, plan: Plan) -> bool:
        """Whether this plan was begun here already; raises `OutputExistsError` if another was."""
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
        """Where the cells came from when the atlas was begun."""
        return json.loads((self.folder / "plan.json").read_bytes())["origin"]

    def records(self) -> dict[int, ShardRecord]:
        """Of all finished shards."""
        found = {}
        for file in sorted((self.folder / "shards").glob("*.json")):
            with contextlib.suppress(ValidationError):  # a damaged record vouches for nothing: its shard is made again
                record = ShardRecord.model_validate_json(file.read_bytes())
                found[record.shard] = record
        return found

    def commit(self, record: ShardRecord) -> None:
        """Record a shard whose files are on disk."""
        self._write(f"shards/{record.shard:06d}.json", record.model_dump(mode="json"))

    def withdraw(self, shard: int) -> None:
        """Take back a shard's record, so that it is made again."""
        (self.folder / "shards" / f"{shard:06d}.json").unlink(missing_ok=True)

    def metadata(self) -> dict[str, FileRecord] | None:
        """Files that belong to no shard; `None` where they have to be written again."""
        try:
            fields = json.loads((self.folder / "metadata.json").read_bytes())
            return {name: FileRecord.model_validate(each) for name, each in fields.items()}
        except (FileNotFoundError, ValueError):
            return None

    def commit_metadata(self, files: dict[str, FileRecord]) -> None:
        """Record them."""
        self._write("metadata.json", {name: each.model_dump(mode="json") for name, each in sorted(files.items())})

    def withdraw_metadata(self) -> None:
        """Take their record back, so that they are written again."""
        (self.folder / "metadata.json").unlink(missing_ok=True)

    @property
    def finished(self) -> bool:
        """Whether the store can be opened as a whole."""
        return (self.path / ROOT_METADATA).is_file()

    def finish(self) -> None:
        """Make it one that can be opened."""
        staged = self.work / ROOT_METADATA
        staged.parent.mkdir(exist_ok=True)
        shutil.copyfile(self.folder / ROOT_METADATA, staged)
        put({self.path / ROOT_METADATA: staged})

    def unfinish(self) -> None:
        """Make it one that can't be opened, as long as something is missing."""
        (self.path / ROOT_METADATA).unlink(missing_ok=True)

    def _write(self, name: str, fields: Any) -> None:
        with raise_on_full_disk(self.path):
            self.work.mkdir(exist_ok=True)
            handle, staged = tempfile.mkstemp(dir=self.work)
            with os.fdopen(handle, "w") as file:
                json.dump(fields, file, indent=1)
            target = self.folder / name
            put({target: Path(staged)})
            _flush_folder(target.parent)


def put(files: Mapping[Path, Path]) -> dict[Path, FileRecord]:
    """Move finished files, by target, to their places: each is there whole or not at all, whatever happens then.

    All are flushed to disk at once, which a disk does in the time of one or two.
    """
    with ThreadPoolExecutor(_FLUSHED_AT_ONCE) as pool:
        records = dict(zip(files, pool.map(_flushed, files.values()), strict=True))
    for target, staged in files.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        staged.chmod(0o644)
        staged.rename(target)
    return records


def _flushed(path: Path) -> FileRecord:
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return record_file(path)


def _flush_folder(path: Path) -> None:
    """Make renames in a folder, and those before, survive a loss of power."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def record_file(path: Path) -> FileRecord:
    """Size and digest of a file as it is."""
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
