"""Panel expression of many cells by rows: in memory, or in a file of which a batch is read at a time.

A row's values are read bit for bit as they were added, so that a training is the same either way.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from scipy import sparse

from causcell._internal.batching import batches
from causcell._internal.files import is_full, local_path
from causcell.errors import ConfigurationError, DataError, OutputFullError

IN_MEMORY = 128 * 2**20
"""Bytes of values and indices that ``cache="auto"`` keeps in memory: about 130,000 cells of 125 expressed genes."""

_BLOCK_ROWS = 4096

_NOWHERE = 2**62


@dataclass(frozen=True)
class PanelCache:
    """Place where panel expression is kept during a training.

    Attributes
    ----------
    folder
        Folder of the file.
    least
        Bytes of values and indices beyond which they go to the file.
    """

    folder: Path = Path()
    least: int = _NOWHERE


def find_cache(cache: str | os.PathLike[str], out: Path) -> PanelCache:
    """Return where panel expression is kept.

    Parameters
    ----------
    cache
        ``memory``; ``disk``, a file beside the run; ``auto``, in memory up to `IN_MEMORY` bytes and beyond on disk; or
        a folder for the file.
    out
        Folder of the run.

    Raises
    ------
    ConfigurationError
        It is none of these.
    """
    if cache == "memory":
        return PanelCache()
    if cache in ("auto", "disk"):
        there = next(folder for folder in (*out.absolute().parents, Path("/")) if folder.is_dir())
        return PanelCache(there, IN_MEMORY if cache == "auto" else 0)
    folder = local_path(cache, "cache")
    if not folder.is_dir():
        raise ConfigurationError(
            f"cache={os.fspath(cache)!r} is no folder; give one that there is, or 'auto', 'memory' or 'disk'"
        )
    return PanelCache(folder, 0)


class PanelFile:
    """Panel expression in a file, float32 [n x G]: rows are read as they are asked for, and nothing of them is kept.

    The file has no name and goes with this object, or when its process ends in whatever way. A nonzero takes 6 bytes,
    8 of a panel of more than 65,536 genes; memory is 8 bytes a cell. It is read by `os.preadv`, not mapped: pages of a
    map count as the process's memory.

    Parameters
    ----------
    folder
        Folder of the file.
    genes
        Number of panel genes, G.
    file
        The file, opened; a new one, if not given.

    Attributes
    ----------
    shape
        (n, G).
    """

    def __init__(self, folder: Path, genes: int, file: IO[bytes] | None = None) -> None:
        self._record = np.dtype([("gene", np.uint16 if genes <= 2**16 else np.uint32), ("value", np.float32)])
        self._folder = folder
        self._file = file or tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - it outlives this
        weakref.finalize(self, self._file.close)
        self._lengths: list[np.ndarray] = []
        self._indptr = np.zeros(1, dtype=np.int64)
        self._genes = genes

    def __reduce__(self) -> tuple[Any, ...]:
        """Give the open file to a process that is being started (`multiprocessing.reduction`); it has no name."""
        file = DupFd(self._file.fileno())
        return _reopen, (file, self._folder, self._genes, self.indptr)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, G)."""
        return len(self._indptr) + sum(map(len, self._lengths)) - 1, self._genes

    def add(self, rows: sparse.csr_matrix) -> None:
        """Append rows [rows x G]; raises `OutputFullError` where the disk is full."""
        records = np.empty(rows.nnz, dtype=self._record)
        records["gene"], records["value"] = rows.indices, rows.data
        left = records.view(np.uint8).data
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            if not is_full(error):
                raise
            raise OutputFullError(
                f"there is no space left in {str(self._folder)!r} for the cache of the panel's values "
                f"({error.strerror}), which takes {self._record.itemsize} bytes for each value that is not zero: "
                f"{self.shape[0]} cells took {self._file.tell() / 1e6:,.0f} MB; free some space, or name another "
                "folder (cache=)"
            ) from error
        self._lengths.append(np.diff(rows.indptr))

    @property
    def indptr(self) -> np.ndarray:
        """Place of each row's first value among all, int64 [n + 1]."""
        if self._lengths:
            added = np.cumsum(np.concatenate(self._lengths), dtype=np.int64)
            self._indptr = np.concatenate([self._indptr, self._indptr[-1] + added])
            self._lengths = []
        return self._indptr

    def __getitem__(self, rows: slice | np.ndarray) -> sparse.csr_matrix:
        indptr = self.indptr
        wanted = np.arange(*rows.indices(self.shape[0])) if isinstance(rows, slice) else np.asarray(rows)
        starts, stops = indptr[wanted], indptr[wanted + 1]
        begins = np.concatenate([[0], np.cumsum(stops - starts)])
        records = np.empty(begins[-1], dtype=self._record)
        into, size = records.view(np.uint8).data, self._record.itemsize
        breaks = np.flatnonzero(starts[1:] != stops[:-1]) + 1  # rows that follow each other are read at once
        firsts, lasts = [0, *breaks.tolist()], [*breaks.tolist(), len(wanted)]
        places, places_in_file = (size * begins).tolist(), (size * starts).tolist()
        for first, last in zip(firsts, lasts, strict=True):
            if places[first] < places[last]:
                self._read(into[places[first] : places[last]], places_in_file[first])
        kind = _index_type(max(int(begins[-1]), self._genes))
        parts = (records["value"].copy(), records["gene"].astype(kind), begins.astype(kind))
        return sparse.csr_matrix(parts, shape=(len(wanted), self._genes))

    def _read(self, into: memoryview, start: int) -> None:
        while into:
            count = os.preadv(self._file.fileno(), [into], start)
            if not count:
                raise DataError("the cache of the panel's values is shorter than what was written; train again")
            into, start = into[count:], start + count

    def arrays(self) -> Iterator[np.ndarray]:
        """Return the arrays of the matrix one after the other, in pieces: ``indptr``, ``indices``, ``data``."""
        kind = _index_type(max(int(self.indptr[-1]), self._genes))
        yield self.indptr.astype(kind)
        for part in batches(self.shape[0], _BLOCK_ROWS):
            yield self[part].indices.astype(kind)
        for part in batches(self.shape[0], _BLOCK_ROWS):
            yield self[part].data


def _reopen(file: Any, folder: Path, genes: int, indptr: np.ndarray) -> PanelFile:
    """Open in a process that was started what `PanelFile.__reduce__` gave it."""
    panel = PanelFile(folder, genes, os.fdopen(file.detach(), "r+b", buffering=0))
    panel._indptr = indptr
    return panel


PanelRows: TypeAlias = "sparse.csr_matrix | PanelFile"
"""Panel expression, float32 [n x G], of which rows are taken as CSR matrices."""


class PanelBuilder:
    """Panel expression as it is read, block by block; in memory until there is more of it than the cache allows.

    Parameters
    ----------
    genes
        Number of panel genes, G.
    cache
        Where it is kept.
    """

    def __init__(self, genes: int, cache: PanelCache) -> None:
        self._genes, self._cache = genes, cache
        self._blocks: list[sparse.csr_matrix] = []
        self._bytes = 0
        self._file: PanelFile | None = None

    def add(self, rows: sparse.csr_matrix) -> None:
        """Append rows, float32 CSR [rows x G]; raises `OutputFullError` where the disk is full."""
        self._bytes += rows.data.nbytes + rows.indices.nbytes
        self._blocks.append(rows)
        if self._bytes > self._cache.least:
            self._file = self._file or PanelFile(self._cache.folder, self._genes)
            for block in self._blocks:
                self._file.add(block)
            self._blocks = []

    def finish(self) -> PanelRows:
        """Return all rows so far; more can be added."""
        if self._file is not None:
            return self._file
        if len(self._blocks) > 1:
            self._blocks = [sparse.vstack(self._blocks, format="csr", dtype=np.float32)]
        return self._blocks[0]


def matrix_arrays(rows: PanelRows) -> Iterator[Any]:
    """Return ``indptr``, ``indices`` and ``data`` of a matrix one after the other, as scipy has them, or pieces."""
    if isinstance(rows, PanelFile):
        yield from rows.arrays()
    else:
        yield from (rows.indptr, rows.indices, rows.data)


def _index_type(largest: int) -> type[np.signedinteger[Any]]:
    """Return the type that scipy has indices up to this number in."""
    return np.int32 if largest < 2**31 else np.int64
