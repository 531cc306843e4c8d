"""Annotations of atlases of many shards: each shard's in one file, until those of a group of shards are put together.

Each array of ``obs`` (and of ``obsm``, but for values that are generated) would take a file a shard. So a worker writes
all of a shard's into one file, ``pieces/annotations/000017``: the chunks as the store will hold them, then an index by
name. When every shard is complete, the chunks of a group of shards are copied as they are into one file an array, of
zarr's sharding codec, whose record names the pieces that it was made of; then the pieces go.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel, ConfigDict

from causcell.atlas.journal import Journal
from causcell.atlas.plan import Plan
from causcell.atlas.records import FileRecord, Place, ShardRecord
from causcell.atlas.sharding import ShardFile
from causcell.atlas.storage import FOLDER
from causcell.atlas.store_layout import grouped_arrays
from causcell.errors import AtlasError

ANNOTATIONS = f"{FOLDER}/pieces/annotations"
"""Folder of shards' annotations in the store."""

_ASSEMBLED = f"{FOLDER}/assembled/annotations"

Chunk = bytes
"""An encoded chunk of an array."""

_LARGEST_INDEX = 10**6
_SIZE = struct.Struct("<Q")


class AssembledGroup(BaseModel):
    """Record of the files of annotations of a group of shards, with the digest of what they were made of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    files: dict[Place, FileRecord]
    sources: str


def piece_name(shard: int) -> str:
    """Return the place of a shard's annotations in the store."""
    return f"{ANNOTATIONS}/{shard:06d}"


def write_piece(folder: Path, chunks: Mapping[str, Chunk]) -> Path:
    """Write a shard's annotations into a file beside its place.

    Parameters
    ----------
    folder
        Where it is written.
    chunks
        The encoded chunk of each array, by the array's place in the store.
    """
    index, start = {}, 0
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        for name, content in chunks.items():
            file.write(content)
            index[name] = (start, len(content))
            start += len(content)
        told = json.dumps(index).encode()
        file.write(told + _SIZE.pack(len(told)))
    return Path(file.name)


def read_index(file: BinaryIO) -> dict[str, tuple[int, int]]:
    """Return where the chunk of each array is in a shard's file, and its bytes.

    Raises
    ------
    ValueError
        The file is not of this form.
    """
    end = file.seek(0, os.SEEK_END) - _SIZE.size
    if end < 0:
        raise ValueError("it is shorter than its index")
    file.seek(end)
    (size,) = _SIZE.unpack(file.read(_SIZE.size))
    if size > min(end, _LARGEST_INDEX):
        raise ValueError("its index is longer than the file")
    file.seek(end - size)
    try:
        fields = json.loads(file.read(size))
    except RecursionError as error:
        raise ValueError("its index is no index") from error
    index = {}
    for name, place in fields.items() if isinstance(fields, dict) else [("", None)]:
        numbers = place if isinstance(place, list) else []
        if len(numbers) != 2 or not all(type(each) is int and each >= 0 for each in numbers):
            raise ValueError("its index is no index")
        if sum(numbers) > end - size:
            raise ValueError("its index points outside")
        index[name] = (numbers[0], numbers[1])
    return index


class AnnotationAssembly:
    """The annotations of an atlas of which every shard is recorded, group by group.

    Parameters
    ----------
    journal, plan
        Journal and plan of the atlas, which has groups.
    records
        Records of all shards.
    """

    def __init__(self, journal: Journal, plan: Plan, records: Mapping[int, ShardRecord]) -> None:
        self._journal, self._plan, self._records = journal, plan, records
        self._arrays = grouped_arrays(journal.storage, journal.metadata(), plan)

    @property
    def groups(self) -> range:
        """The groups of shards."""
        return range(self._plan.groups)

    def record_of(self, group: int) -> AssembledGroup | None:
        """Return the record of a group's files that were made of these shards' pieces."""
        found = read_group(self._journal, group)
        return found if found is not None and found.sources == self._sources(group) else None

    def holds(self, group: int) -> bool:
        """Tell whether a group's files are recorded and there, by their sizes."""
        record = self.record_of(group)
        if record is None or record.files.keys() != set(group_files(self._arrays, group).values()):
            return False
        return all(self._journal.holds(name, file) for name, file in record.files.items())

    @property
    def bytes(self) -> int:
        """Bytes of the files that are recorded."""
        records = (self.record_of(group) for group in self.groups)
        return sum(file.bytes for record in records if record is not None for file in record.files.values())

    def needed(self) -> set[int]:
        """Return the shards whose pieces are needed for files that are not there."""
        return {shard for group in self.groups if not self.holds(group) for shard in self._plan.shards_of(group)}

    def lacking(self, digested: Container[int] = ()) -> list[int]:
        """Return the shards whose pieces are needed, and not there as they were recorded.

        Parameters
        ----------
        digested
            As for `causcell.atlas.assemble.Assembly.lacking`.
        """
        return [shard for shard in sorted(self.needed()) if self.is_spoilt(shard, by_size=shard in digested)]

    def is_spoilt(self, shard: int, *, by_size: bool = False) -> bool:
        """Tell whether a shard's piece is not there as it was recorded; by its size alone, or by its digest too."""
        return self._journal.is_damaged(piece_name(shard), self._piece(shard), by_size=by_size)

    def run(self, on_shards: Callable[[int], object] = lambda count: None) -> None:
        """Make the files of every group that are not there, and remove its pieces.

        Parameters
        ----------
        on_shards
            Called with numbers of shards that were taken.

        Raises
        ------
        AtlasError
            A piece is not what it is recorded as.
        """
        for group in self.groups:
            shards = self._plan.shards_of(group)
            if not self.holds(group):
                self._make(group, shards)
            for shard in shards:
                self._journal.storage.remove(piece_name(shard))
            on_shards(len(shards))

    def _make(self, group: int, shards: range) -> None:
        """Write the files of a group, put them in their places and record them."""
        storage = self._journal.storage
        with ExitStack() as stack:
            writers = {}
            for array, target in group_files(self._arrays, group).items():  # of no type: chunks are copied as they are
                writers[array] = ShardFile(target, self._journal.work, "uint8", (0,), self._plan.group)
                stack.callback(writers[array].discard)
            try:
                for shard in shards:
                    for array, content in self._read(shard):
                        writers[array].append_encoded(content)
            except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
                raise AtlasError(
                    f"{self._journal.place!r} has a piece that is not what it is recorded as ({error}); causcell "
                    "verify tells which, and the next run makes it again"
                ) from error
            for writer in writers.values():
                writer.finish()
            files = storage.put({writer.target: writer.staged for writer in writers.values()})
        record = AssembledGroup(files=files, sources=self._sources(group))
        self._journal.write(_record_name(group), record.model_dump(mode="json"))

    def _read(self, shard: int) -> Iterator[tuple[str, Chunk]]:
        with self._journal.storage.open(piece_name(shard)) as file:
            index = read_index(file)
            if index.keys() != set(self._arrays):
                raise ValueError("it has other arrays than the store")
            for array, (start, length) in index.items():
                file.seek(start)
                yield array, file.read(length)

    def _piece(self, shard: int) -> FileRecord:
        piece = self._records[shard].annotations
        assert piece is not None, "PlanFit asks for it"
        return piece

    def _sources(self, group: int) -> str:
        made_of = [(piece.bytes, piece.sha256) for piece in map(self._piece, self._plan.shards_of(group))]
        return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()


def open_annotations(journal: Journal, plan: Plan, records: Mapping[int, ShardRecord]) -> list[AnnotationAssembly]:
    """Open the annotations of an atlas of which every shard is recorded; none where each shard has files of its own."""
    return [] if plan.group is None else [AnnotationAssembly(journal, plan, records)]


def group_files(arrays: Iterable[str], group: int) -> dict[str, str]:
    """Return the place of a group's file of each array, by the array's place; of a shard's alike, without groups."""
    return {array: f"{array}/c/{group}" + ("/0" if array.startswith("obsm/") else "") for array in arrays}


def read_group(journal: Journal, group: int) -> AssembledGroup | None:
    """Return the record of a group's files; `None` where there is none to believe."""
    try:
        fields = journal.read(_record_name(group))
        return None if fields is None else AssembledGroup.model_validate(fields)
    except (ValueError, RecursionError, OSError):
        return None


def withdraw_group(journal: Journal, group: int) -> None:
    """Withdraw the record of a group's files, so that they are made again."""
    journal.storage.remove(_record_name(group))


def list_grouped(journal: Journal, plan: Plan) -> list[str]:
    """List the files of groups that are recorded, by place in the store."""
    records = (read_group(journal, group) for group in range(plan.groups)) if plan.group else ()
    return [name for record in records if record is not None for name in record.files]


def _record_name(group: int) -> str:
    return f"{_ASSEMBLED}/{group:06d}.json"
