"""Arrays on disk: slices that are guarded, and that tell whether a chunk was absent."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from causcell.cells.guard import damaged, reading

_SLICE = 65536


class DiskArray:
    """An array of HDF5 or zarr.

    Both fill a chunk that is not there with zeros or empty text, without a word. zarr leaves out chunks of nothing but
    zeros when it writes, so that an absent one may be right; who reads has to judge.

    Parameters
    ----------
    array
        h5py's or zarr's.
    title
        What messages call the file.
    name
        What messages call the array, such as ``X/indices``.

    Attributes
    ----------
    shape, dtype, title, name
        As of the array and as given.
    """

    def __init__(self, array: Any, title: str, name: str) -> None:
        self._array, self.title, self.name = array, title, name
        with reading(title, name):
            if getattr(array, "shape", None) is None or not hasattr(array, "dtype"):
                raise damaged(title, name, "it is no array")
            self.shape: tuple[int, ...] = tuple(array.shape)
            self.dtype: Any = array.dtype

    def read(self, rows: slice | np.ndarray) -> tuple[np.ndarray, bool]:
        """Read rows (ascending), and return whether one of their chunks is absent."""
        with reading(self.title, self.name):
            store = getattr(getattr(self._array, "store_path", None), "store", None)
            watched = getattr(store, "take_absent", None)
            if watched is None:
                return self._read(rows), self._incomplete
            watched(self._array.path)
            values = self._read(rows)
            return values, watched(self._array.path)

    def _read(self, rows: slice | np.ndarray) -> np.ndarray:
        array = self._array
        if hasattr(array, "asstr") and array.dtype.kind == "O":
            array = array.asstr()
        by_row = array if isinstance(rows, slice) else getattr(array, "oindex", array)  # zarr's name for it
        return np.asarray(by_row[rows])

    def read_present(self, rows: slice | np.ndarray) -> np.ndarray:
        """Read rows (ascending) of an array that has no reason to lack a chunk.

        Raises
        ------
        DataError
            A chunk is absent.
        """
        values, absent = self.read(rows)
        if absent and values.size:
            raise damaged(self.title, self.name, "a chunk of its values is missing")
        return values

    def read_pieces(self, *, filled: bool = False) -> Iterator[np.ndarray]:
        """Read all rows in pieces: a length that is damaged is found out before memory is taken for it.

        Parameters
        ----------
        filled
            Whether chunks may be absent, as those of a mask that says nothing is missing are.
        """
        for start in range(0, self.shape[0], _SLICE):
            rows = slice(start, min(start + _SLICE, self.shape[0]))
            yield self.read(rows)[0] if filled else self.read_present(rows)

    @cached_property
    def _incomplete(self) -> bool:
        """Tell whether chunks of an HDF5 data set are absent."""
        identifier: Any = getattr(self._array, "id", None)
        if not hasattr(identifier, "get_num_chunks") or not math.prod(self.shape):
            return False
        chunks: tuple[int, ...] | None = self._array.chunks
        if chunks is None:
            return int(identifier.get_storage_size()) == 0
        expected: int = math.prod(-(-length // chunk) for length, chunk in zip(self.shape, chunks, strict=True))
        return int(identifier.get_num_chunks()) < expected
