"""Verify the CSR matrices of an atlas: their files against what is recorded, and what these hold.

A reader trusts a CSR matrix's columns and row ends with its memory, so they are looked at, not only their digests.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from causcell._internal.stages import progress_bar
from causcell.atlas.assemble import (
    Assembly,
    Part,
    list_assembled,
    open_matrices,
    read_assembled,
    withdraw_assembled,
)
from causcell.atlas.journal import Journal
from causcell.atlas.pieces import piece_file, read_piece
from causcell.atlas.plan import Plan
from causcell.atlas.records import PieceArray, ShardRecord
from causcell.atlas.sharding import read_chunks
from causcell.atlas.value_checks import describe_columns, describe_values
from causcell.atlas.zarr_store import counted_metadata
from causcell.errors import AtlasError

_DESCRIBED: Mapping[PieceArray, Callable[..., str]] = {"data": describe_values, "indices": describe_columns}
"""What tells what is wrong with an array of a piece."""


@dataclass
class MatrixFindings:
    """Findings of a check of CSR matrices.

    Attributes
    ----------
    damaged, invalid
        Files that are not what was written, and what is wrong with those that are, by the shards that they hold values
        of; see `causcell.atlas.verify.Verification`.
    metadata
        Files of metadata that are not what the number of nonzero values makes them.
    withdrawn
        Files that have to be assembled again.
    """

    damaged: dict[int | None, tuple[str, ...]] = field(default_factory=dict)
    invalid: dict[int, dict[str, str]] = field(default_factory=dict)
    metadata: tuple[str, ...] = ()
    withdrawn: list[str] = field(default_factory=list)

    def withdraw(self, journal: Journal) -> None:
        """Withdraw the records of what has to be assembled again."""
        for name in self.withdrawn:
            withdraw_assembled(journal, name)

    def add_damage(self, name: str, shards: Iterable[int | None]) -> None:
        """Add a damaged file, by the shards that it holds values of."""
        for shard in shards:
            self.damaged[shard] = (*self.damaged.get(shard, ()), name)

    def add_invalid(self, name: str, shards: Iterable[int], wrong: str) -> None:
        """Add a file with values that can't be."""
        for shard in shards:
            self.invalid.setdefault(shard, {})[name] = wrong


def check_matrices(
    journal: Journal, plan: Plan, records: Mapping[int, ShardRecord], *, progress: bool = False
) -> MatrixFindings:
    """Check the CSR matrices of an atlas as far as they are made, and the pieces that they lack."""
    found = MatrixFindings()
    if not plan.sparse:
        return found
    if len(records) < plan.shards:  # where a file's values belong is not known
        _check_apart(journal, plan, records, found)
        return found
    matrices = open_matrices(journal, plan, records)
    for matrix in matrices:
        check = _MatrixCheck(journal, plan, matrix, found)
        for part in progress_bar(matrix.parts, desc="verifying", unit="file", disable=not progress):
            check.take(part)
        needed = set() if journal.finished else matrix.needed() - found.damaged.keys()
        for shard in sorted(needed):
            _check_piece(journal, plan, matrix.place, shard, records[shard], found)
    if journal.finished:
        try:
            counted = counted_metadata(journal, plan, {matrix.place: matrix.nonzeros for matrix in matrices})
        except AtlasError:
            counted = {}  # which is told of the file that was kept aside
        found.metadata = tuple(name for name, content in counted.items() if not journal.has(name, content))
    return found


def _check_apart(journal: Journal, plan: Plan, records: Mapping[int, ShardRecord], found: MatrixFindings) -> None:
    """Check files by their records, and pieces unless they went into such files."""
    names = list_assembled(journal, plan)
    for name in names:
        record = read_assembled(journal, name)
        if record is None or journal.is_damaged(name, record.file):
            found.add_damage(name, [None])
            found.withdrawn.append(name)
    if not names:
        for shard, record_of_shard in records.items():
            for place in plan.sparse:
                _check_piece(journal, plan, place, shard, record_of_shard, found)


def _check_piece(
    journal: Journal, plan: Plan, place: str, shard: int, record: ShardRecord, found: MatrixFindings
) -> None:
    """Check a piece of which no matrix is made yet."""
    piece, name = record.pieces[place], piece_file(place, shard)
    if journal.is_damaged(name, piece.file):
        found.add_damage(name, [shard])
        return
    whole = slice(0, piece.nonzeros)
    for array, describe in _DESCRIBED.items():
        chunks = read_piece(journal, plan, place, shard, piece, array, whole)
        wrong = _describe(functools.partial(describe, chunks, plan, place))
        if wrong:
            found.add_invalid(name, [shard], wrong)


def _describe(describe: Callable[[], str]) -> str:
    """Return what is wrong with a file's values, or with its form."""
    try:
        return describe()
    except (ValueError, RuntimeError, OSError, MemoryError) as error:
        return str(error) or type(error).__name__


class _MatrixCheck:
    """Check the files of one CSR matrix, in their order."""

    def __init__(self, journal: Journal, plan: Plan, matrix: Assembly, found: MatrixFindings) -> None:
        self._journal, self._plan, self._matrix, self._found = journal, plan, matrix, found
        self._end = 0  # of the last row so far
        self._rows: Iterator[np.ndarray] | None = self._row_ends()
        self._ahead = np.empty(0, dtype=np.int64)  # row ends that were read, and lie ahead
        self._column = -1  # the last column so far

    def take(self, part: Part) -> None:
        """Check a file against its record, and its values."""
        name, record = self._matrix.name_of(part), self._matrix.record_of(part)
        if record is not None and not self._journal.is_damaged(name, record.file):
            wrong = _describe(lambda: self._describe_part(part))
            if not wrong:
                return
            self._found.add_invalid(name, part.shards, wrong)
        elif record is not None or self._journal.finished:
            self._found.add_damage(name, part.shards or [None])
        if part.array == "indptr":
            self._rows = None
        if part.array == "indices":
            self._column = -1
        self._found.withdrawn.append(name)

    def _describe_part(self, part: Part) -> str:
        if part.array == "data":
            return describe_values(self._read(part), self._plan, self._matrix.place)
        if part.array == "indptr":
            return self._describe_ends(part)
        return describe_columns(self._read(part), self._plan, self._matrix.place) or self._describe_order(part)

    def _read(self, part: Part) -> Iterator[np.ndarray]:
        """Read the values of a file, which lacks none."""
        plan = self._plan
        size = plan.chunk_nonzeros
        left = part.values.stop - part.values.start
        with self._journal.storage.open(self._matrix.name_of(part)) as file:
            form = (self._matrix.dtype_of(part), (size,), plan.file_nonzeros // size)
            for chunk in read_chunks(file, *form, codec="blosc"):
                yield chunk[:left]
                left -= min(size, left)
                if not left:
                    return
        raise ValueError("it lacks values")

    def _describe_ends(self, part: Part) -> str:
        """Describe row ends that are no ascending numbers from 0 to the number of nonzero values."""
        for chunk in self._read(part):
            if chunk[0] < self._end or (np.diff(chunk) < 0).any():
                return "its rows do not end one after the other"
            self._end = int(chunk[-1])
        if part.values.stop > self._plan.rows and self._end != self._matrix.nonzeros:
            return f"its last row ends at {self._end} of {self._matrix.nonzeros} values"
        return ""

    def _describe_order(self, part: Part) -> str:
        """Describe columns that do not ascend within rows, where row ends are sound."""
        if self._rows is None:
            return ""
        position, unordered = part.values.start, 0
        for chunk in self._read(part):
            begins = np.zeros(len(chunk), dtype=bool)
            ends = self._take_ends(position, position + len(chunk))
            begins[ends - position] = True
            steps = np.diff(chunk, prepend=self._column) <= 0
            unordered += int((steps & ~begins).sum())
            position, self._column = position + len(chunk), int(chunk[-1])
        return f"{unordered} of its columns do not ascend within their rows" if unordered else ""

    def _row_ends(self) -> Iterator[np.ndarray]:
        for part in self._matrix.parts:
            if part.array == "indptr":
                yield from (chunk.copy() for chunk in self._read(part))

    def _take_ends(self, start: int, stop: int) -> np.ndarray:
        """Return the row ends from one value to another."""
        assert self._rows is not None
        while not len(self._ahead) or self._ahead[-1] < stop:
            further = next(self._rows, None)
            if further is None:
                break
            self._ahead = np.concatenate([self._ahead[self._ahead >= start], further])
        taken = self._ahead[(self._ahead >= start) & (self._ahead < stop)]
        self._ahead = self._ahead[self._ahead >= stop]
        return taken
