"""Crash-safe journal of an atlas: a folder inside the store that records which shards are complete.

``ATLAS.zarr/.causcell/``::

    lock                held (flock) by the run that writes
    plan.json           the plan and where its cells came from; there once the store's metadata are
    zarr.json           the store's root metadata until it is finished; without them it is no zarr group
    shards/000017.json  record of a shard's files: sizes, SHA-256; there once all of these are on disk
    pieces/             shards of CSR matrices, until these are assembled; see causcell.atlas.pieces
    assembled/          records of the files of CSR matrices
    metadata.json       record of the files that belong to no shard
    work/               files being written

A record is written beside its place, flushed to disk and renamed, after the files that it vouches for.

An atlas may come from a stranger. So nothing is read or written through a symbolic link inside it, what the journal
says is checked against the plan's digest and the store's metadata before it is believed, and no path leaves the store.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from causcell._internal.files import refuse_existing
from causcell._internal.locks import flush_folder, hold
from causcell.atlas.plan import Plan
from causcell.atlas.records import (
    FileRecord,
    ShardArrays,
    ShardRecord,
    check_place,
    fits_plan,
    put_files,
    raise_on_full_disk,
)
from causcell.errors import AtlasError, CausCellError, OutputExistsError, format_list

FOLDER = ".causcell"
ROOT_METADATA = "zarr.json"

_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
_LARGEST_RECORD = 64 * 10**6
"""Bytes of a file of the journal that are read at most."""

_STORE = ("X", "layers", "obsm", "varm", "obsp", "varp", "obs", "var", "uns")
"""What a store that was begun may hold beside its journal."""


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
        AtlasError
            It has symbolic links inside.
        """
        if not self.folder.is_dir():
            refuse_existing(self.path)
        with raise_on_full_disk(self.path):
            self.folder.mkdir(parents=True, exist_ok=True)
        self.refuse_links()
        with hold(self.folder / "lock", self.path):
            shutil.rmtree(self.work, ignore_errors=True)
            self.work.mkdir()
            try:
                yield
            finally:
                shutil.rmtree(self.work, ignore_errors=True)

    @contextlib.contextmanager
    def locked_if_writable(self) -> Iterator[bool]:
        """Hold the place where it can be written to; tell whether it can. Nobody writes to a read-only one."""
        with contextlib.ExitStack() as stack:
            writable = os.access(self.folder, os.W_OK)
            if writable:
                try:
                    stack.enter_context(self.locked())
                except OSError as error:
                    if error.errno not in _READ_ONLY:
                        raise
                    writable = False
            if not writable:
                self.refuse_links()
            yield writable

    def refuse_links(self) -> None:
        """Raise `AtlasError` for a symbolic link inside the store: what is written there would go elsewhere."""
        pending = [self.path]
        while pending:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_symlink():
                        raise AtlasError(
                            f"{entry.path!r} is a symbolic link; an atlas has none, and what is read or written there "
                            "would be another file: remove it, or copy the atlas with what its links point to (cp -rL)"
                        )
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(Path(entry.path))

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
                f"{self.folder / 'plan.json'} was changed after the atlas was begun: its digest is {found[:12]}..., "
                f"and {str(stated)[:12]}... is recorded; restore it, or remove {str(self.path)!r} and generate it again"
            )
        return plan

    def _begun(self) -> dict[str, Any] | None:
        try:
            fields = self.read("plan.json")
        except (ValueError, RecursionError, OSError) as error:
            raise self._unreadable(error) from error
        if fields is not None and not isinstance(fields, dict):
            raise self._unreadable(f"it holds a {type(fields).__name__}")
        return fields

    def _unreadable(self, why: object) -> AtlasError:
        text = str(why)
        return AtlasError(
            f"{self.folder / 'plan.json'} can't be read ({text[:500]}); remove {str(self.path)!r} and generate it again"
        )

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
        self.write("plan.json", {"digest": plan.digest, "plan": plan.model_dump(mode="json"), "origin": origin})

    def origin(self) -> dict[str, Any]:
        """Return where the cells came from when the atlas was begun; nothing where that can't be read."""
        origin = (self._begun() or {}).get("origin")
        return origin if isinstance(origin, dict) else {}

    def records(self, plan: Plan | None = None) -> dict[int, ShardRecord]:
        """Return the records of all complete shards, by shard; those that are not what the plan asks for are left out.

        A damaged record vouches for nothing: its shard is made again.
        """
        found: dict[int, ShardRecord] = {}
        arrays = None if plan is None else self._shard_arrays(plan)
        for file in sorted((self.folder / "shards").glob("*.json")):
            try:
                record = ShardRecord.model_validate(self.read(f"shards/{file.name}"))
            except (ValueError, RecursionError, OSError):
                continue
            if file.name == _record_name(record.shard) and (plan is None or fits_plan(record, plan, arrays)):
                found[record.shard] = record
        return found

    def sound_records(self, plan: Plan) -> dict[int, ShardRecord]:
        """Return the records of shards whose files are all there, by their sizes; the others' are withdrawn."""
        records = self.records(plan)
        for shard, record in list(records.items()):
            if not all(self.holds(name, file) for name, file in record.files.items()):
                self.withdraw(shard)
                del records[shard]
        return records

    def _shard_arrays(self, plan: Plan) -> ShardArrays | None:
        """Return the arrays that are written by shards, by the metadata of the store; `None` where these can't be read.

        Of ``obs`` they are those without a chunk among the metadata. Categories, which are written ahead, may have an
        empty chunk, of which there is no file.
        """
        names = self.metadata()
        if names is None:
            return None
        nodes = {name.removesuffix("/zarr.json") for name in names if name.endswith("/zarr.json")}
        groups = {str(PurePosixPath(node).parent) for node in nodes}
        whole = {name.rpartition("/c/")[0] for name in names}
        obs = {node for node in nodes - groups - whole if node.startswith("obs/")}
        ahead = {node for node in obs if node.count("/") > 1 and node.endswith("/categories")}
        return ShardArrays(frozenset(plan.dense), frozenset(obs), frozenset(ahead - {"obs/source_cell/categories"}))

    def path_of(self, name: str) -> Path:
        """Return the path of a recorded file; the root's metadata are kept aside until the store is finished."""
        return self.folder / name if name == ROOT_METADATA else self.path / name

    def holds(self, name: str, file: FileRecord) -> bool:
        """Tell whether a recorded file is there, by its size."""
        try:
            status = self.path_of(name).lstat()
        except OSError:
            return False
        return stat.S_ISREG(status.st_mode) and status.st_size == file.bytes

    def commit(self, record: ShardRecord) -> None:
        """Record a shard whose files are on disk: from here on it is complete."""
        self.write(f"shards/{_record_name(record.shard)}", record.model_dump(mode="json"))

    def withdraw(self, shard: int) -> None:
        """Withdraw a shard's record, so that it is made again."""
        (self.folder / "shards" / _record_name(shard)).unlink(missing_ok=True)

    def metadata(self) -> dict[str, FileRecord] | None:
        """Return the records of files that belong to no shard, or `None` where they have to be written again."""
        try:
            fields = self.read("metadata.json")
            if not isinstance(fields, dict) or ROOT_METADATA not in fields:
                return None
            return {check_place(name): FileRecord.model_validate(each) for name, each in fields.items()}
        except (ValueError, RecursionError, OSError):
            return None

    def commit_metadata(self, files: dict[str, FileRecord]) -> None:
        """Record the files that belong to no shard."""
        self.write("metadata.json", {name: each.model_dump(mode="json") for name, each in sorted(files.items())})

    def withdraw_metadata(self) -> None:
        """Withdraw the record of files that belong to no shard, so that they are written again."""
        (self.folder / "metadata.json").unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove metadata that were written for a plan that was not begun after all.

        Raises
        ------
        OutputExistsError
            There is more than these: an atlas that lost its plan, or something else.
        """
        others = [path for path in self.path.iterdir() if path != self.folder]
        strange = [path.name for path in others if path.name not in _STORE or not path.is_dir()]
        if strange or any((self.folder / "shards").glob("*")):
            what = format_list(strange) if strange else "finished shards"
            raise OutputExistsError(
                f"{str(self.path)!r} has {what} and no {FOLDER}/plan.json, which is not overwritten; remove it, or "
                "name another place"
            )
        for path in others:
            shutil.rmtree(path)

    def read_layout(self, place: str) -> dict[str, Any]:
        """Return the metadata of an array of the store; nothing where they can't be read."""
        try:
            fields = self.read(f"../{place}/{ROOT_METADATA}")
        except (ValueError, RecursionError, OSError):
            return {}
        return fields if isinstance(fields, dict) else {}

    def strange_layouts(self, plan: Plan) -> tuple[str, ...]:
        """Return the files of array metadata that are not of the plan's rows, columns and types."""
        strange = []
        for place in plan.dense:
            fields = self.read_layout(place)
            stated = (fields.get("shape"), fields.get("data_type"))
            if stated != ([plan.rows, plan.arrays[place]], plan.array_dtype(place)):
                strange.append(f"{place}/{ROOT_METADATA}")
        for place in plan.sparse:
            attributes = self.read_layout(place).get("attributes")
            stated_shape = attributes.get("shape") if isinstance(attributes, dict) else None
            if stated_shape != [plan.rows, plan.arrays[place]]:
                strange.append(f"{place}/{ROOT_METADATA}")
        return tuple(strange)

    @property
    def finished(self) -> bool:
        """Tell whether the store can be opened as a whole."""
        return (self.path / ROOT_METADATA).is_file()

    def has(self, name: str, content: bytes) -> bool:
        """Tell whether a file of the store has this content."""
        path = self.path / name
        try:
            return not path.is_symlink() and path.stat().st_size == len(content) and path.read_bytes() == content
        except OSError:
            return False

    def put(self, name: str, content: bytes) -> None:
        """Put a file in its place in the store; the root's metadata: from here on it can be opened."""
        self.work.mkdir(exist_ok=True)
        staged = self.work / ROOT_METADATA
        staged.write_bytes(content)
        put_files({self.path / name: staged})

    def unfinish(self) -> None:
        """Take the root's metadata away: the store can't be opened as long as something is missing."""
        (self.path / ROOT_METADATA).unlink(missing_ok=True)

    def read(self, name: str) -> Any:
        """Return what a file of the journal holds, `None` where there is none; no link is followed, no pipe waited for.

        Raises
        ------
        ValueError, RecursionError, OSError
            It can't be read.
        """
        try:
            handle = os.open(self.folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_RECORD:
                raise ValueError(f"it is no file of up to {_LARGEST_RECORD} bytes")
            return json.loads(file.read())

    def write(self, name: str, fields: Any) -> None:
        """Put a file of JSON in its place in the journal."""
        with raise_on_full_disk(self.path):
            self.work.mkdir(exist_ok=True)
            handle, staged = tempfile.mkstemp(dir=self.work)
            with os.fdopen(handle, "w") as file:
                json.dump(fields, file, indent=1)
            target = self.folder / name
            put_files({target: Path(staged)})
            flush_folder(target.parent)


def _digest_fields(fields: Any) -> str:
    """Return the digest of a plan by its fields, as they stand in the file."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _record_name(shard: int) -> str:
    return f"{shard:06d}.json"
