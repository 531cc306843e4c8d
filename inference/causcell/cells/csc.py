"""A copy by rows of a sparse matrix that is stored by columns (CSC), made in bounded memory."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from causcell._internal.files import ScratchFolder

_ENTRIES = 2**23
"""Nonzeros that are held in memory at once."""

_BOUNDS = "bounds.npy"


class RowwiseCopy:
    """Blocks of rows on disk, each a CSR matrix; slices and ascending indices take rows.

    Parameters
    ----------
    folder
        Folder of the copy.
    columns
        Number of columns.
    scratch
        What the copy lies in, which `close` removes.

    Attributes
    ----------
    shape
        (rows, columns).
    """

    def __init__(self, folder: Path, columns: int, scratch: ScratchFolder | None = None) -> None:
        self._folder, self._scratch = folder, scratch
        self._bounds = np.load(folder / _BOUNDS)
        self.shape = (int(self._bounds[-1]), columns)
        self._held: tuple[int, sparse.csr_matrix] | None = None

    def __getitem__(self, rows: slice | np.ndarray) -> sparse.csr_matrix:
        wanted = np.arange(*rows.indices(self.shape[0])) if isinstance(rows, slice) else rows
        place = np.searchsorted(self._bounds, wanted, side="right") - 1
        blocks = np.unique(place).tolist()
        return sparse.vstack([self._block(i)[wanted[place == i] - self._bounds[i]] for i in blocks], format="csr")

    def _block(self, i: int) -> sparse.csr_matrix:
        if self._held is None or self._held[0] != i:
            self._held = (i, sparse.load_npz(self._folder / f"{i}.npz"))
        return self._held[1]

    def close(self) -> None:
        """Remove a temporary copy."""
        if self._scratch is not None:
            self._scratch.close()


def rowwise_copy(matrix: Any, scratch: Path | None = None, name: str = "cells") -> RowwiseCopy:
    """Copy a matrix on disk by rows, reading it twice, a few columns at a time.

    Parameters
    ----------
    matrix
        A CSC matrix on disk (`causcell.cells.matrices.CompressedRows`), [cells x genes].
    scratch
        Folder for the copy, which stays there and is used again; a temporary one that goes with the copy, if not
        given. Either takes about 12 bytes a nonzero.
    name
        Name of the copy in ``scratch``.
    """
    own = None
    if scratch is None:
        own = ScratchFolder()
        scratch = own.path
    folder = scratch / f"rows of {name}"
    if not (folder / _BOUNDS).exists():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            _copy(matrix, folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            if own is not None:
                own.close()
            raise
    return RowwiseCopy(folder, matrix.shape[1], own)


def _copy(matrix: Any, folder: Path) -> None:
    columns = _column_ranges(matrix.indptr)
    counts = np.zeros(matrix.shape[0], dtype=np.int64)
    for start, stop in columns:
        counts += np.bincount(matrix.read_major(start, stop).indices, minlength=len(counts))
    bounds = _row_bounds(counts)
    for start, stop in columns:
        part = matrix.read_major(start, stop).tocoo()
        order = np.argsort(part.row, kind="stable")
        row, column, data = part.row[order], part.col[order] + start, part.data[order]
        edges = np.searchsorted(row, bounds)
        for i in np.flatnonzero(np.diff(edges)).tolist():
            here = slice(edges[i], edges[i + 1])
            for suffix, values in (("row", row[here] - bounds[i]), ("column", column[here]), ("data", data[here])):
                with (folder / f"{i}.{suffix}").open("ab") as file:
                    file.write(values.astype(data.dtype if suffix == "data" else np.int32).tobytes())
    for i, (first, last) in enumerate(itertools.pairwise(bounds.tolist())):
        parts = [folder / f"{i}.{suffix}" for suffix in ("row", "column", "data")]
        kinds = (np.int32, np.int32, matrix.dtype)
        row, column, data = (
            np.fromfile(part, dtype=kind) if part.exists() else np.empty(0, dtype=kind)
            for part, kind in zip(parts, kinds, strict=True)
        )
        block = sparse.csr_matrix((data, (row, column)), shape=(last - first, matrix.shape[1]))
        sparse.save_npz(folder / f"{i}.npz", block, compressed=False)
        for part in parts:
            part.unlink(missing_ok=True)
    np.save(folder / "bounds", bounds)


def _column_ranges(indptr: np.ndarray) -> list[tuple[int, int]]:
    """Return ranges of consecutive columns with about `_ENTRIES` nonzeros each."""
    groups = indptr[1:] // _ENTRIES
    edges = [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(groups)]
    return [(start, stop) for start, stop in itertools.pairwise(edges) if start < stop]


def _row_bounds(counts: np.ndarray) -> np.ndarray:
    """Return edges of consecutive rows with about `_ENTRIES` nonzeros, int64."""
    groups = np.cumsum(counts) // _ENTRIES
    return np.unique([0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(counts)]).astype(np.int64)
