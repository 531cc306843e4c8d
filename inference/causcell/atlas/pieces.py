"""Pieces: the shards of a CSR matrix, until all are there and `causcell.atlas.assemble` makes the matrix of them.

Where a shard's nonzero values belong among all is known when those of the shards before it are counted, and workers
make shards in any order. So a piece is kept in the journal's folder, ``pieces/X/000017/``: its nonzero values
(``data``), their columns (``indices``) and the number of each row's (``lengths``), each a file of
`causcell.atlas.sharding`, written as rows come.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from causcell._internal.batching import batches
from causcell.atlas.journal import Journal
from causcell.atlas.plan import Plan
from causcell.atlas.records import PIECE_ARRAYS, FileRecord, PieceArray, PieceRecord
from causcell.atlas.sharding import ShardFile, encode_chunk, read_chunks
from causcell.atlas.storage import FOLDER
from causcell.counterfactual.outputs import Rows

INDICES = LENGTHS = "int32"
"""Types of a piece's columns and lengths of rows."""

PIECES = f"{FOLDER}/pieces"
"""Folder of pieces in the store."""

_ROWS = 1024
"""Rows that are taken apart at once."""

_LEVEL = -1
"""Level of zstd for files that are read once: values are left as they are, in a quarter of the time."""


class PieceWriter:
    """Write the rows of one shard of a CSR matrix as they come, into files beside their places.

    Parameters
    ----------
    journal, plan
        Journal and plan of the atlas.
    place
        Place of the matrix in the store.
    shard
        Place of the shard.

    Attributes
    ----------
    nonzeros
        Number of nonzero values so far.
    """

    def __init__(self, journal: Journal, plan: Plan, place: str, shard: int) -> None:
        dtypes = _dtypes(plan, place)
        self.nonzeros = 0
        self._place, names = place, piece_files(plan, place, shard)
        self._writers: dict[PieceArray, ShardFile] = {
            array: ShardFile(names[array], journal.work, dtypes[array], (plan.chunk_nonzeros,), level=_LEVEL)
            for array in PIECE_ARRAYS
        }

    @property
    def files(self) -> dict[str, Path]:
        """Where each file is, by its name in the store."""
        return {writer.target: writer.staged for writer in self._writers.values()}

    def append(self, rows: Rows) -> None:
        """Write further rows, [n x columns]."""
        for part in batches(rows.shape[0], _ROWS):
            arrays = compress_rows(rows[part])
            self.nonzeros += len(arrays["data"])
            for array, writer in self._writers.items():
                writer.append(arrays[array])

    def finish(self) -> None:
        """Write what is left."""
        for writer in self._writers.values():
            writer.finish()

    def discard(self) -> None:
        """Remove the files, unless they were moved to their places."""
        for writer in self._writers.values():
            writer.discard()

    def record(self, records: dict[str, FileRecord]) -> dict[str, PieceRecord]:
        """Take the piece's files out of records by name, and return the record of the piece by the matrix's place."""
        files = {array: records.pop(writer.target) for array, writer in self._writers.items()}
        return {self._place: PieceRecord(nonzeros=self.nonzeros, files=files)}


def compress_rows(rows: Rows) -> dict[PieceArray, np.ndarray]:
    """Return the nonzero values of rows, their columns in ascending order, and the number of each row's.

    A CSR matrix has these already.

    Examples
    --------
    >>> {name: array.tolist() for name, array in compress_rows(np.array([[0, 5, 7], [0, 0, 0], [2, 0, 0]])).items()}
    {'data': [5, 7, 2], 'indices': [1, 2, 0], 'lengths': [2, 0, 1]}
    """
    if not isinstance(rows, np.ndarray):
        return {"data": rows.data, "indices": rows.indices, "lengths": np.diff(rows.indptr).astype(LENGTHS)}
    count, width = rows.shape
    present = rows != 0
    lengths = np.count_nonzero(present, axis=1).astype(LENGTHS)
    places = np.flatnonzero(present)
    indices = places - np.repeat(np.arange(0, count * width, width), lengths)
    return {"data": rows.ravel()[places], "indices": indices.astype(INDICES), "lengths": lengths}


def count_bytes(plan: Plan, place: str, rows: Rows) -> tuple[int, int]:
    """Count the bytes on disk that rows of a CSR matrix would take in the end, and in pieces."""
    arrays, size = compress_rows(rows), plan.chunk_nonzeros
    sums = [0, 0]
    for array, dtype in _dtypes(plan, place).items():
        for part in batches(len(arrays[array]), size):
            values = arrays[array][part]
            sums[0] += len(encode_chunk(np.cumsum(values) if array == "lengths" else values, dtype))
            sums[1] += len(encode_chunk(values, dtype, _LEVEL))
    return sums[0], sums[1]


def piece_files(plan: Plan, place: str, shard: int) -> dict[PieceArray, str]:
    """Return the places of a piece's files in the store, by array: in a folder, or of many shards all in one."""
    between = "/" if plan.group is None else "."
    return {array: f"{PIECES}/{place}/{shard:06d}{between}{array}" for array in PIECE_ARRAYS}


def remove_piece(journal: Journal, plan: Plan, place: str, shard: int) -> None:
    """Remove a piece that no file needs any more."""
    if plan.group is None:
        journal.storage.remove_folder(f"{PIECES}/{place}/{shard:06d}")
        return
    for name in piece_files(plan, place, shard).values():
        journal.storage.remove(name)


def spoilt_files(journal: Journal, plan: Plan, place: str, shard: int, piece: PieceRecord) -> tuple[str, ...]:
    """Return the files of a piece, by their places in the store, that are not there as they were recorded."""
    names = piece_files(plan, place, shard)
    return tuple(names[array] for array, file in piece.files.items() if journal.is_damaged(names[array], file))


def read_piece(
    journal: Journal, plan: Plan, place: str, shard: int, array: PieceArray, count: int, within: slice
) -> Iterator[np.ndarray]:
    """Read values of an array of a piece; what is given is used again.

    Parameters
    ----------
    journal, plan, place, shard
        The piece.
    array, count
        The array, and the number of all its values.
    within
        From which of them to which.

    Raises
    ------
    ValueError, RuntimeError, OSError
        The file is not of this form, or lacks values.
    """
    size = plan.chunk_nonzeros
    first = within.start // size
    position, chunks = first * size, -(-count // size)
    dtype = _dtypes(plan, place)[array]
    with journal.storage.open(piece_files(plan, place, shard)[array]) as file:
        for chunk in read_chunks(file, dtype, (size,), chunks, start=first):
            if position >= within.stop:
                break
            yield chunk[max(within.start - position, 0) : within.stop - position]
            position += size
    if position < within.stop:
        raise ValueError("it lacks values")


def _dtypes(plan: Plan, place: str) -> dict[PieceArray, str]:
    return {"data": plan.array_dtype(place), "indices": INDICES, "lengths": LENGTHS}
