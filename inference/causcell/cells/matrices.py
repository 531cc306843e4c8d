"""Matrices of cells that are not plain arrays in memory: by rows or columns on disk, dense on disk, computed lazily."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from causcell.cells.disk_array import DiskArray
from causcell.cells.guard import damaged, reading
from causcell.cells.row_begins import RowBegins
from causcell.cells.unique_names import LARGE
from causcell.errors import DataError
from causcell.preprocessing import Matrix

_NEAR = 8
"""Rows that lie no further apart are read as one range."""


def as_matrix(value: Any, shape: tuple[int, int], title: str, name: str) -> Any:
    """Return a matrix of AnnData as something that `take_rows` takes rows of.

    Parameters
    ----------
    value
        Array, sparse matrix, dask array, or array or sparse matrix on disk, [n x genes].
    shape
        (n, genes), as ``obs`` and ``var`` say.
    title, name
        What messages call the file and the matrix.

    Returns
    -------
    numpy array, CSR matrix, `DenseRows`, `CompressedRows` (CSR or CSC) or `LazyRows`.

    Raises
    ------
    DataError
        It is of another type, of another shape, not of numbers, or its parts contradict each other.
    """
    if hasattr(value, "group") and hasattr(value, "format"):  # anndata's sparse dataset
        return CompressedRows(value.group, value.format, tuple(value.shape), shape, title, name)
    if hasattr(value, "attrs") and not hasattr(value, "shape"):  # a group on disk
        from anndata.io import sparse_dataset

        with reading(title, name):
            dataset = sparse_dataset(value)
            return CompressedRows(value, dataset.format, tuple(dataset.shape), shape, title, name)
    if type(value).__name__ == "DataFrame":
        value = value.to_numpy()
    if tuple(getattr(value, "shape", ())) != shape:
        found = " x ".join(map(str, getattr(value, "shape", ()))) or type(value).__name__
        raise damaged(title, name, f"it is {found}, where obs has {shape[0]} cells and var {shape[1]} genes")
    if hasattr(value, "dask") and hasattr(value, "compute"):
        return LazyRows(value, title, name)
    if isinstance(value, np.ndarray):
        as_numbers(value[:0], title, name)
        return value if isinstance(value, np.ma.MaskedArray) else np.asarray(value)
    if sparse.issparse(value):
        return _checked_in_memory(value, title, name)
    if type(value).__module__.split(".")[0] in ("h5py", "zarr"):
        return DenseRows(DiskArray(value, title, name))
    raise DataError(
        f"{name} of {title} is a {type(value).__module__}.{type(value).__qualname__}, which can't be read; give a "
        "numpy array, a scipy sparse matrix, a dask array of either, or a file (for CuPy: "
        "rapids_singlecell.get.anndata_to_CPU(adata))"
    )


def _checked_in_memory(matrix: Any, title: str, name: str) -> sparse.csr_matrix:
    """Return a sparse matrix in memory by rows, once its parts have been found to agree."""
    as_numbers(matrix.data[:0] if hasattr(matrix.data, "dtype") else np.empty(0, matrix.dtype), title, name)
    if matrix.format not in ("csr", "csc"):
        return sparse.csr_matrix(matrix)
    major = matrix.shape[0 if matrix.format == "csr" else 1]
    _check_indptr(matrix.indptr, major, len(matrix.data), len(matrix.indices), title, name, exact=False)
    if matrix.format == "csr":  # whose indices are looked at as they are read
        return matrix if isinstance(matrix, sparse.spmatrix) else sparse.csr_matrix(matrix)
    _check_range(matrix.indices[: matrix.indptr[-1]], matrix.shape[0], title, f"{name}/indices")
    return sparse.csr_matrix(matrix)


class DenseRows:
    """Rows of a dense matrix on disk.

    Attributes
    ----------
    shape
        (rows, columns).
    """

    def __init__(self, array: DiskArray) -> None:
        self._array = array
        self.shape = array.shape
        as_numbers(np.empty(0, array.dtype), array.title, array.name)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        values, absent = self._array.read(rows)
        if absent and values.size and not values.any(axis=1).all():
            raise damaged(
                self._array.title,
                self._array.name,
                "chunks of its values are missing, and with them all values of some cells",
            )
        return values


class LazyRows:
    """Rows of a dask array, whose chunks may be sparse or dense.

    Attributes
    ----------
    shape
        (rows, columns).
    """

    def __init__(self, array: Any, title: str, name: str) -> None:
        self._array, self._title, self._name = array, title, name
        self.shape = tuple(array.shape)

    def __getitem__(self, rows: slice | np.ndarray) -> Any:
        with reading(self._title, self._name):
            return self._array[rows].compute()


class CompressedRows:
    """A sparse matrix on disk, by rows (CSR) or by columns (CSC), whose parts are checked against each other.

    ``indptr`` is checked as a whole when the matrix is opened, or where it is long by `check_begins`; indices as they
    are read.

    Parameters
    ----------
    group
        Group of ``data``, ``indices`` and ``indptr``.
    format
        ``csr`` or ``csc``.
    stated
        Shape that the group states.
    shape
        Shape that names of cells and genes give.
    title, name
        What messages call the file and the matrix.

    Attributes
    ----------
    shape, format
        As given.
    indptr
        Where each row, or column, begins, int64; of more than 8 million it is read as it is asked for.
    dtype
        Type of the values that are read.

    Raises
    ------
    DataError
        The parts contradict each other.
    """

    def __init__(
        self, group: Any, format: str, stated: tuple[int, ...], shape: tuple[int, int], title: str, name: str
    ) -> None:
        if stated != shape:
            found = " x ".join(map(str, stated))
            raise damaged(title, name, f"it is {found}, where obs has {shape[0]} cells and var {shape[1]} genes")
        self.shape, self.format, self._title, self._name = shape, format, title, name
        with reading(title, name):
            parts = {part: group[part] for part in ("data", "indices", "indptr")}
        self._data, self._indices, indptr = (DiskArray(array, title, f"{name}/{part}") for part, array in parts.items())
        for part in (self._data, self._indices, indptr):
            if len(part.shape) != 1:
                raise damaged(title, part.name, f"it has {len(part.shape)} dimensions in place of one")
        self.dtype = as_numbers(np.empty(0, self._data.dtype), title, self._data.name).dtype
        major = shape[0 if format == "csr" else 1]
        if indptr.shape != (major + 1,):
            raise damaged(title, indptr.name, f"it has {indptr.shape[0]} values, and {major + 1} are needed")
        entries = self._data.shape[0]
        self.indptr: np.ndarray | RowBegins
        if major > LARGE:
            _check_entries(entries, self._indices.shape[0], title, name)
            self.indptr = RowBegins(indptr, entries)
            return
        begins, absent = indptr.read(slice(None))
        if absent and entries:
            raise damaged(title, indptr.name, "a chunk of its values is missing")
        _check_indptr(begins, major, entries, self._indices.shape[0], title, name, exact=True)
        self.indptr = begins.astype(np.int64, copy=False)

    def __getitem__(self, rows: slice | np.ndarray) -> sparse.csr_matrix:
        """Return rows (ascending) of a matrix by rows."""
        if isinstance(rows, slice):
            return self.read_major(*rows.indices(self.shape[0])[:2])
        if not len(rows):
            return sparse.csr_matrix((0, self.shape[1]), dtype=self.dtype)
        pieces = []
        for near in np.split(rows, np.flatnonzero(np.diff(rows) > _NEAR) + 1):
            piece = self.read_major(int(near[0]), int(near[-1]) + 1)
            pieces.append(piece if (np.diff(near) == 1).all() else piece[near - near[0]])
        return pieces[0] if len(pieces) == 1 else sparse.vstack(pieces, format="csr")

    def read_major(self, start: int, stop: int) -> Any:
        """Read consecutive rows of a CSR matrix, or columns of a CSC one, as a scipy matrix of the same format."""
        first, last = int(self.indptr[start]), int(self.indptr[stop])
        data = as_numbers(self._data.read_present(slice(first, last)), self._title, self._data.name)
        indices, absent = self._indices.read(slice(first, last))
        indptr = self.indptr[start : stop + 1] - first
        minor = self.shape[1 if self.format == "csr" else 0]
        _check_range(indices, minor, self._title, self._indices.name)
        kind = np.int32 if max(minor, last - first) < 2**31 else np.int64
        parts = (data, indices.astype(kind), indptr.astype(kind))
        if self.format == "csr":
            piece: Any = sparse.csr_matrix(parts, shape=(stop - start, minor))
        else:
            piece = sparse.csc_matrix(parts, shape=(minor, stop - start))
        if not _rise(piece.indices, piece.indptr):
            piece.sort_indices()
            if not _rise(piece.indices, piece.indptr):
                what = "a chunk of its values is missing" if absent else "one entry of the matrix stands there twice"
                raise damaged(self._title, self._indices.name, what)
        return piece


def _check_indptr(
    indptr: np.ndarray, major: int, entries: int, indices: int, title: str, name: str, *, exact: bool
) -> None:
    """Check where rows begin; matrices in memory may have room for more entries than they hold."""
    where = f"{name}/indptr"
    if indptr.dtype.kind not in "iu" or indptr.shape != (major + 1,):
        raise damaged(title, where, f"it is {indptr.dtype} of shape {indptr.shape}, not {major + 1} whole numbers")
    if indptr[0] != 0:
        raise damaged(title, where, f"it begins with {indptr[0]}, not with 0")
    falls = np.flatnonzero(indptr[1:] < indptr[:-1])
    if len(falls):
        raise damaged(title, where, f"it falls from {indptr[falls[0]]} to {indptr[falls[0] + 1]} at {falls[0] + 1}")
    _check_entries(entries, indices, title, name)
    if (exact and indptr[-1] != entries) or indptr[-1] > entries:
        raise damaged(title, where, f"it ends with {indptr[-1]}, and {entries} values are there")


def _check_entries(entries: int, indices: int, title: str, name: str) -> None:
    if indices != entries:
        raise damaged(title, f"{name}/indices", f"it has {indices} values, and data {entries}")


def check_begins(matrix: Any) -> Any:
    """Return a matrix once where its rows begin is checked, which was not done yet where they are many."""
    begins = getattr(matrix, "indptr", None)
    if isinstance(begins, RowBegins):
        begins.check()
    return matrix


def _check_range(indices: np.ndarray, limit: int, title: str, name: str) -> None:
    if indices.dtype.kind not in "iu":
        raise damaged(title, name, f"it is {indices.dtype}, not whole numbers")
    if not indices.size:
        return
    low, high = indices.min(), indices.max()
    if low < 0 or high >= limit:
        raise damaged(title, name, f"it holds {low if low < 0 else high}, and places are 0 to {limit - 1}")


def _rise(indices: np.ndarray, indptr: np.ndarray) -> bool:
    """Return whether the indices of each row rise from one to the next, so that none stands there twice."""
    if len(indices) < 2:
        return True
    rises = indices[1:] > indices[:-1]
    edges = indptr[1:-1]
    rises[edges[(edges > 0) & (edges < len(indices))] - 1] = True
    return bool(rises.all())


def as_numbers(values: np.ndarray, title: str, name: str) -> np.ndarray:
    """Return values as numbers that numpy and scipy compute with; raises `DataError` for what is no real number."""
    dtype = values.dtype
    if dtype.kind == "b":
        return values.astype(np.uint8)
    if dtype.kind == "f" and dtype.itemsize == 2:
        return values.astype(np.float32)
    if dtype.kind == "f" and dtype.itemsize > 8:
        return values.astype(np.float64)
    if dtype.kind in "iuf":
        return values if dtype.isnative else values.astype(dtype.newbyteorder("="))
    remedy = "take its real part" if dtype.kind == "c" else "make it numbers (adata.X = adata.X.astype('float32'))"
    raise DataError(f"{name} of {title} is of type {dtype}, and expression is real numbers: {remedy}")


def as_values(values: Any, rows: int, genes: int, title: str, name: str) -> Matrix:
    """Return rows that were taken of a matrix as a numpy array or CSR matrix of plain numbers.

    Raises
    ------
    DataError
        Masked values, indices beyond the genes, another shape or type.
    """
    if isinstance(values, np.ma.MaskedArray):
        if np.ma.is_masked(values):
            raise DataError(
                f"{name} of {title} holds masked values; missing values can't be used: impute or remove them"
            )
        values = values.data
    if not (isinstance(values, np.ndarray) or sparse.issparse(values)):
        raise DataError(
            f"{name} of {title} gives rows as {type(values).__module__}.{type(values).__qualname__}, which can't be "
            "read; give numpy arrays or scipy sparse matrices"
        )
    if values.shape != (rows, genes):
        raise damaged(title, name, f"{rows} rows of it are {' x '.join(map(str, values.shape))}, not of {genes} genes")
    if not sparse.issparse(values):
        return as_numbers(np.asarray(values), title, name)
    taken = values if isinstance(values, sparse.csr_matrix) else sparse.csr_matrix(values)
    _check_range(taken.indices, genes, title, f"{name}/indices")
    data = as_numbers(taken.data, title, name)
    if data is taken.data:
        return taken
    return sparse.csr_matrix((data, taken.indices, taken.indptr), shape=taken.shape)


def take_rows(matrix: Any, rows: np.ndarray) -> Any:
    """Take rows of a matrix in memory or on disk, in the order asked for.

    Parameters
    ----------
    matrix
        [n x genes].
    rows
        Places of the rows, int [r].

    Returns
    -------
    numpy or scipy sparse, in memory, [r x genes].
    """
    if isinstance(matrix, np.ndarray) or sparse.issparse(matrix):
        return matrix[rows]
    order = np.argsort(rows, kind="stable")  # on disk, rows are read in ascending order
    ascending = rows[order]
    if len(rows) and ascending[-1] - ascending[0] < _NEAR * len(rows):
        first = int(ascending[0])
        taken = matrix[first : int(ascending[-1]) + 1]
        return taken if (np.diff(rows) == 1).all() else taken[rows - first]
    return matrix[ascending][np.argsort(order, kind="stable")]
