"""CSR matrices of an atlas, assembled from the pieces of its shards when all of these are there.

A matrix is three arrays (``data``, ``indices``, ``indptr``), each in files of so many values. What a file holds follows
from the pieces, so that its record names the digests of those that it was made of: whoever assembles, wherever the last
run was stopped, and in whatever order shards were made, its bytes are the same, and a file is made again when a piece
of it is another one. Pieces go as soon as all that is made of them is recorded. Memory is bounded by a few chunks.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Container, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from causcell.atlas.journal import Journal
from causcell.atlas.pieces import piece_file, read_piece
from causcell.atlas.plan import Plan
from causcell.atlas.records import FileRecord, PieceArray, PieceRecord, ShardRecord
from causcell.atlas.sharding import ShardFile
from causcell.atlas.storage import FOLDER
from causcell.atlas.zarr_store import index_dtype
from causcell.errors import AtlasError

_ASSEMBLED = f"{FOLDER}/assembled"
"""Folder of the records of assembled files in the store."""

MatrixArray = Literal["data", "indices", "indptr"]

_SOURCES: Mapping[MatrixArray, PieceArray] = {"indptr": "lengths", "data": "data", "indices": "indices"}
"""The array of pieces that each of a matrix is made of."""


class AssembledRecord(BaseModel):
    """Record of a file of a CSR matrix, with the digest of what it was made of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: FileRecord
    sources: str


@dataclass(frozen=True)
class Part:
    """A file of an array of a CSR matrix.

    Attributes
    ----------
    array, number
        Which file of which array.
    values
        Places of its values in the array.
    shards
        Shards whose pieces it is made of.
    sources
        Digest of what it is made of.
    """

    array: MatrixArray
    number: int
    values: slice
    shards: range
    sources: str


class Assembly:
    """A CSR matrix of an atlas of which every shard is recorded.

    Parameters
    ----------
    journal, plan
        Journal and plan of the atlas.
    place
        Place of the matrix in the store.
    records
        Records of all shards.

    Attributes
    ----------
    place
        Place of the matrix in the store.
    """

    def __init__(self, journal: Journal, plan: Plan, place: str, records: Mapping[int, ShardRecord]) -> None:
        self._journal, self._plan, self.place = journal, plan, place
        self._pieces: list[PieceRecord] = [records[shard].pieces[place] for shard in range(plan.shards)]
        self._starts = np.cumsum([0, *(piece.nonzeros for piece in self._pieces)], dtype=np.int64)
        self._rows = np.minimum(np.arange(plan.shards + 1) * plan.shard_rows, plan.rows)

    @property
    def nonzeros(self) -> int:
        """Number of nonzero values."""
        return int(self._starts[-1])

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The files of the matrix, in the order in which they are made: those that use the same pieces together."""
        size = self._plan.file_nonzeros
        entries = self._plan.rows + 1
        parts = [self._part("indptr", number, entries) for number in range(-(-entries // size))]
        for number in range(-(-self.nonzeros // size)):
            parts += [self._part(array, number, self.nonzeros) for array in ("data", "indices")]
        return tuple(parts)

    def _part(self, array: MatrixArray, number: int, total: int) -> Part:
        size = self._plan.file_nonzeros
        values = slice(number * size, min((number + 1) * size, total))
        starts, first, stop = self._starts, values.start, values.stop
        if array == "indptr":  # of rows: entry 0 is none's, and each other ends a row
            starts, first, stop = self._rows, max(values.start - 1, 0), values.stop - 1
        shards = range(
            max(int(np.searchsorted(starts, first, side="right")) - 1, 0),
            int(np.searchsorted(starts[:-1], stop, side="left")),
        )
        pieces = [self._pieces[shard].file for shard in shards]
        made_of = [
            (int(self._starts[shard]), int(self._rows[shard]), piece.bytes, piece.sha256)
            for shard, piece in zip(shards, pieces, strict=True)
        ]
        told = [values.start, values.stop, index_dtype(self.nonzeros), made_of]
        sources = hashlib.sha256(json.dumps(told).encode()).hexdigest()
        return Part(array, number, values, shards, sources)

    def name_of(self, part: Part) -> str:
        """Return the place of a file in the store."""
        return f"{self.place}/{part.array}/c/{part.number}"

    def dtype_of(self, part: Part) -> str:
        """Return the type of a file's values."""
        return self._plan.array_dtype(self.place) if part.array == "data" else index_dtype(self.nonzeros)

    def record_of(self, part: Part) -> AssembledRecord | None:
        """Return the record of a file that was made of these pieces."""
        found = read_assembled(self._journal, self.name_of(part))
        return found if found is not None and found.sources == part.sources else None

    def holds(self, part: Part) -> bool:
        """Tell whether a file is recorded and there, by its size."""
        record = self.record_of(part)
        return record is not None and self._journal.holds(self.name_of(part), record.file)

    @property
    def bytes(self) -> int:
        """Bytes of the files that are recorded."""
        return sum(record.file.bytes for record in map(self.record_of, self.parts) if record is not None)

    def needed(self) -> set[int]:
        """Return the shards whose pieces are needed for files that are not there."""
        return {shard for part in self.parts if not self.holds(part) for shard in part.shards}

    def lacking(self, digested: Container[int] = ()) -> list[int]:
        """Return the shards whose pieces are needed, and not there as they were recorded.

        Parameters
        ----------
        digested
            Shards whose pieces this process has digested itself: they are known by their sizes.
        """
        return [shard for shard in sorted(self.needed()) if self._is_spoilt(shard, by_size=shard in digested)]

    def _is_spoilt(self, shard: int, *, by_size: bool) -> bool:
        return self._journal.is_damaged(piece_file(self.place, shard), self._pieces[shard].file, by_size=by_size)

    def run(self, on_values: Callable[[int], object] = lambda count: None) -> None:
        """Make every file that is not there, and remove the pieces that no file needs any more.

        Parameters
        ----------
        on_values
            Called with numbers of nonzero values that were taken.

        Raises
        ------
        AtlasError
            A piece is not what it is recorded as.
        """
        swept = 0
        with ThreadPoolExecutor(2) as pool:
            for last, group in itertools.groupby(
                self.parts, lambda part: 0 if part.array == "indptr" else part.values.stop
            ):
                made = [part for part in group if not self.holds(part)]
                self._commit(made, list(pool.map(self._write, made)))
                before, swept = swept, int(np.searchsorted(self._starts[1:], last, side="right"))
                for shard in range(before, swept if last else 0):
                    self._journal.storage.remove(piece_file(self.place, shard))
                on_values(int(self._starts[swept] - self._starts[before]))

    def _commit(self, parts: list[Part], writers: list[ShardFile]) -> None:
        """Put files in their places and record them."""
        records = self._journal.storage.put({writer.target: writer.staged for writer in writers})
        for part, writer in zip(parts, writers, strict=True):
            record = AssembledRecord(file=records[writer.target], sources=part.sources)
            self._journal.write(_record_name(self.name_of(part)), record.model_dump(mode="json"))

    def _write(self, part: Part) -> ShardFile:
        """Write a file beside its place."""
        plan = self._plan
        size = plan.chunk_nonzeros
        form = (self.dtype_of(part), (size,), plan.file_nonzeros // size)
        writer = ShardFile(self.name_of(part), self._journal.work, *form, codec="blosc")
        try:
            for values in self._ends(part) if part.array == "indptr" else self._values(part):
                writer.append(values)
            writer.finish()
        except (ValueError, FileNotFoundError) as error:
            raise AtlasError(
                f"{self._journal.place!r} has a piece that is not what it is recorded as ({error}); causcell "
                "verify tells which, and the next run makes it again"
            ) from error
        return writer

    def _values(self, part: Part) -> Iterator[np.ndarray]:
        """Read the nonzero values, or their columns, of a file from pieces."""
        for shard in part.shards:
            start, piece = int(self._starts[shard]), self._pieces[shard]
            within = slice(max(part.values.start - start, 0), min(part.values.stop - start, piece.nonzeros))
            yield from read_piece(self._journal, self._plan, self.place, shard, piece, _SOURCES[part.array], within)

    def _ends(self, part: Part) -> Iterator[np.ndarray]:
        """Read the places at which rows end, after a first zero, of a file from pieces."""
        if part.values.start == 0:
            yield np.zeros(1, dtype=np.int64)
        for shard in part.shards:
            entry, end, piece = int(self._rows[shard]) + 1, int(self._starts[shard]), self._pieces[shard]
            rows = slice(0, int(self._rows[shard + 1] - self._rows[shard]))
            for lengths in read_piece(self._journal, self._plan, self.place, shard, piece, "lengths", rows):
                ends = end + np.cumsum(lengths, dtype=np.int64)
                yield ends[max(part.values.start - entry, 0) : max(part.values.stop - entry, 0)]
                entry, end = entry + len(ends), int(ends[-1])


def open_matrices(journal: Journal, plan: Plan, records: Mapping[int, ShardRecord]) -> list[Assembly]:
    """Open the CSR matrices of an atlas of which every shard is recorded."""
    return [Assembly(journal, plan, place, records) for place in plan.sparse]


def read_assembled(journal: Journal, name: str) -> AssembledRecord | None:
    """Return the record of a file of a CSR matrix, by its place in the store; `None` where there is none to believe."""
    try:
        fields = journal.read(_record_name(name))
        return None if fields is None else AssembledRecord.model_validate(fields)
    except (ValueError, RecursionError, OSError):
        return None


def withdraw_assembled(journal: Journal, name: str) -> None:
    """Withdraw the record of a file of a CSR matrix, so that it is made again."""
    journal.storage.remove(_record_name(name))


def list_assembled(journal: Journal, plan: Plan) -> list[str]:
    """List the files of CSR matrices that are recorded, by place in the store."""
    found = (name.removeprefix(f"{_ASSEMBLED}/") for name in sorted(journal.storage.names(_ASSEMBLED)))
    return [name.removesuffix(".json") for name in found if name.startswith(tuple(f"{each}/" for each in plan.sparse))]


def _record_name(name: str) -> str:
    return f"{_ASSEMBLED}/{name}.json"
