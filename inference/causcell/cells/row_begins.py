"""Where the rows of a large sparse matrix begin: checked in pieces and read as they are asked for, never held whole."""

from __future__ import annotations

from typing import Any

import numpy as np

from causcell._internal.batching import batches
from causcell.cells.by_rows import ByRows
from causcell.cells.disk_array import DiskArray
from causcell.cells.guard import damaged
from causcell.errors import DataError

_PIECE = 2**20


class RowBegins:
    """Beginning of each row of a CSR matrix on disk: ``begins[slice]``, int64, and ``begins[row]``.

    Parameters
    ----------
    array
        ``indptr`` on disk.
    entries
        Number of the matrix's values.

    Raises
    ------
    DataError
        As rows are asked for: a chunk is absent, values fall, or point outside.
    """

    def __init__(self, array: DiskArray, entries: int) -> None:
        self._array, self._entries = array, entries
        self._rows = ByRows(array.shape[0], self._read)

    def __len__(self) -> int:
        return self._array.shape[0]

    def __getitem__(self, rows: int | slice) -> Any:
        if isinstance(rows, slice):
            return self._rows[rows]
        return self._rows[rows : rows + 1][0]

    def check(self) -> None:
        """Check all of it, piece by piece."""
        end = 0
        for rows in batches(len(self), _PIECE):
            piece = self._read(rows)
            if rows.start == 0 and piece[0] != 0:
                raise self._damaged(f"it begins with {piece[0]}, not with 0")
            if piece[0] < end:
                raise self._damaged(f"it falls from {end} to {piece[0]} at {rows.start}")
            end = int(piece[-1])
        if end != self._entries:
            raise self._damaged(f"it ends with {end}, and {self._entries} values are there")

    def _read(self, rows: slice) -> np.ndarray:
        values, absent = self._array.read(rows)
        if absent and self._entries:
            raise self._damaged("a chunk of its values is missing")
        if values.dtype.kind not in "iu":
            raise self._damaged(f"it is {values.dtype}, not whole numbers")
        falls = np.flatnonzero(values[1:] < values[:-1])
        if len(falls):
            place = falls[0]
            raise self._damaged(f"it falls from {values[place]} to {values[place + 1]} at {rows.start + place + 1}")
        if len(values) and not 0 <= values[0] <= values[-1] <= self._entries:
            raise self._damaged(f"it points to {values[0]} to {values[-1]}, and {self._entries} values are there")
        return values.astype(np.int64, copy=False)

    def _damaged(self, what: str) -> DataError:
        return damaged(self._array.title, self._array.name, what)
