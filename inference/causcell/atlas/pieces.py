"""Pieces: the shards of a CSR matrix, until all are there and `causcell.atlas.assemble` makes the matrix of them.

Where a shard's nonzero values belong among all is known when those of the shards before it are counted, and workers
make shards in any order. So a piece is kept in the journal's folder, ``pieces/X/000017``: its nonzero values (``data``)
and their columns (``indices``), so many of the ones, then of the others, and so on, as rows come; in the end the number
of each row's (``lengths``). A piece is read once and then removed, so that nothing is compressed: columns by uint16
take the bytes that compression would leave, and the time of a copy.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from causcell._internal.batching import batches
from causcell.atlas.journal import Journal
from causcell.atlas.plan import Plan
from causcell.atlas.records import FileRecord, PieceArray, PieceRecord
from causcell.atlas.sharding import encode_chunk
from causcell.atlas.storage import FOLDER
from causcell.counterfactual.outputs import Rows

PIECES = f"{FOLDER}/pieces"
"""Folder of pieces in the store."""

_ROWS = 1024
"""Rows that are taken apart at once."""

_NARROW = 2**16
"""Columns that uint16 counts."""


class PieceWriter:
    """Write the rows of one shard of a CSR matrix as they come, into a file beside its place.

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
        self._place, self._target, self._size = place, piece_file(place, shard), plan.chunk_nonzeros
        self._data, self._columns = (np.empty(self._size, dtype=dtypes[array]) for array in ("data", "indices"))
        self._lengths: list[bytes] = []
        handle, name = tempfile.mkstemp(dir=journal.work)
        self._staged, self._file = Path(name), os.fdopen(handle, "wb")

    @property
    def files(self) -> dict[str, Path]:
        """Local path of the file, by its name in the store."""
        return {self._target: self._staged}

    def append(self, rows: Rows) -> None:
        """Write further rows, [n x columns]."""
        parts = (rows[part] for part in batches(len(rows), _ROWS)) if isinstance(rows, np.ndarray) else (rows,)
        for arrays in map(compress_rows, parts):
            self._lengths.append(arrays["lengths"].astype("<i4", copy=False).tobytes())
            self._append_values(arrays["data"], arrays["indices"])

    def _append_values(self, data: np.ndarray, columns: np.ndarray) -> None:
        start = 0
        while start < len(data):
            filled = self.nonzeros % self._size
            taken = slice(start, start + min(self._size - filled, len(data) - start))
            count = taken.stop - start
            self._data[filled : filled + count] = data[taken]
            self._columns[filled : filled + count] = columns[taken]
            self.nonzeros, start = self.nonzeros + count, taken.stop
            if filled + count == self._size:
                self._flush(self._size)

    def _flush(self, count: int) -> None:
        for values in (self._data, self._columns):
            self._file.write(values[:count].tobytes())

    def finish(self) -> None:
        """Write what is left."""
        self._flush(self.nonzeros % self._size)
        self._file.write(b"".join(self._lengths))
        self._file.close()

    def discard(self) -> None:
        """Remove the file, unless it was moved to its place."""
        self._file.close()
        self._staged.unlink(missing_ok=True)

    def record(self, records: dict[str, FileRecord]) -> dict[str, PieceRecord]:
        """Take the piece's file out of records by name, and return the record of the piece by the matrix's place."""
        return {self._place: PieceRecord(nonzeros=self.nonzeros, file=records.pop(self._target))}


def compress_rows(rows: Rows) -> dict[PieceArray, np.ndarray]:
    """Return the nonzero values of rows, their columns in ascending order, and the number of each row's.

    A CSR matrix has these already.

    Examples
    --------
    >>> {name: array.tolist() for name, array in compress_rows(np.array([[0, 5, 7], [0, 0, 0], [2, 0, 0]])).items()}
    {'data': [5, 7, 2], 'indices': [1, 2, 0], 'lengths': [2, 0, 1]}
    """
    if not isinstance(rows, np.ndarray):
        return {"data": rows.data, "indices": rows.indices, "lengths": np.diff(rows.indptr)}
    count, width = rows.shape
    present = rows != 0
    lengths = np.count_nonzero(present, axis=1)
    places = np.flatnonzero(present)
    indices = places - np.repeat(np.arange(0, count * width, width), lengths)
    return {"data": rows.ravel()[places], "indices": indices, "lengths": lengths}


def count_bytes(plan: Plan, place: str, rows: Rows) -> tuple[int, int]:
    """Count the bytes on disk that rows of a CSR matrix would take in the end, and in pieces."""
    arrays, size = compress_rows(rows), plan.chunk_nonzeros
    sums = [0, 0]
    for array, dtype in _dtypes(plan, place).items():
        final = dtype if array == "data" else "int32"
        for part in batches(len(arrays[array]), size):
            values = arrays[array][part]
            sums[0] += len(encode_chunk(np.cumsum(values) if array == "lengths" else values, final, "blosc"))
        sums[1] += len(arrays[array]) * np.dtype(dtype).itemsize
    return sums[0], sums[1]


def piece_file(place: str, shard: int) -> str:
    """Return the place of a piece's file in the store."""
    return f"{PIECES}/{place}/{shard:06d}"


def read_piece(
    journal: Journal, plan: Plan, place: str, shard: int, piece: PieceRecord, array: PieceArray, within: slice
) -> Iterator[np.ndarray]:
    """Read values of an array of a piece, some at a time.

    Parameters
    ----------
    journal, plan, place, shard, piece
        The piece, and its record.
    array, within
        The array, and from which of its values to which.

    Raises
    ------
    ValueError, OSError
        The file is not of this form.
    """
    cells = plan.cells_of(shard)
    rows = (cells.stop - cells.start) * plan.request.rows_per_cell
    dtypes, size = _dtypes(plan, place), plan.chunk_nonzeros
    widths = {name: np.dtype(dtype).itemsize for name, dtype in dtypes.items()}
    of_value = widths["data"] + widths["indices"]
    with journal.storage.open(piece_file(place, shard)) as file:
        if file.seek(0, os.SEEK_END) != piece.nonzeros * of_value + rows * widths["lengths"]:
            raise ValueError("it is of another size")
        if array == "lengths":
            yield _read(file, piece.nonzeros * of_value + within.start * widths[array], dtypes[array], within)
            return
        for first in range(within.start // size * size, within.stop, size):
            held = min(size, piece.nonzeros - first)
            begin = first * of_value + (held * widths["data"] if array == "indices" else 0)
            part = slice(max(within.start - first, 0), min(within.stop - first, held))
            yield _read(file, begin + part.start * widths[array], dtypes[array], part)


def _read(file: BinaryIO, begin: int, dtype: str, part: slice) -> np.ndarray:
    """Read the values of a part from their first byte on."""
    file.seek(begin)
    length = (part.stop - part.start) * np.dtype(dtype).itemsize
    content = file.read(length)
    if len(content) != length:
        raise ValueError("it lacks values")
    return np.frombuffer(content, dtype=dtype)


def _dtypes(plan: Plan, place: str) -> Mapping[PieceArray, str]:
    columns = "<u2" if plan.arrays[place] <= _NARROW else "<i4"
    return {"data": np.dtype(plan.array_dtype(place)).newbyteorder("<").str, "indices": columns, "lengths": "<i4"}
