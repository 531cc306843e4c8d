"""The backing of cells: an AnnData, or a file of one, of which only what is asked for is read."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from causcell.errors import DataError

if TYPE_CHECKING:
    import anndata
    import pandas as pd

T = TypeVar("T")
NO_RAW = "there is no adata.raw; leave out raw=True, or name the layer that holds the values"
"""Message where values of ``adata.raw`` are asked for and there are none."""

_SPAN = 8
"""Rows with gaps are read as one range while that is at most this many times as long."""


class Source(Protocol):
    """A table of cells, in memory or on disk.

    Attributes
    ----------
    count
        Number of cells.
    columns
        Names of the columns of ``obs``.
    genes
        Names of the genes.
    layers
        Names of the layers.
    """

    count: int
    columns: list[str]
    genes: list[str]
    layers: list[str]

    def names(self, start: int, stop: int) -> np.ndarray:
        """Return the names of consecutive cells, str objects [stop - start]."""
        ...

    def annotations(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return all columns of ``obs`` with the cells' names; or some of them, without."""
        ...

    def matrix(self, layer: str | None) -> Any:
        """Return ``X`` (of ``raw``, if so opened) or a layer, for `take_rows`; `None` if there is no ``X``."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class ObjectSource:
    """An AnnData, in memory or backed. See `Source`."""

    def __init__(self, adata: anndata.AnnData, *, raw: bool = False, opened: bool = False) -> None:
        if raw and adata.raw is None:
            raise DataError(NO_RAW)
        self._adata, self._raw, self._opened = adata, raw, opened
        self.count = adata.n_obs
        self.columns = list(adata.obs.columns)
        self.genes = (adata.raw if raw else adata).var_names.astype(str).tolist()
        self.layers = list(adata.layers)

    def names(self, start: int, stop: int) -> np.ndarray:
        """Return the names of consecutive cells, str objects [stop - start]."""
        return np.asarray(self._adata.obs_names[start:stop], dtype=object)

    def annotations(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return all columns of ``obs`` with the cells' names; or some of them, without."""
        obs = self._adata.obs
        return obs if columns is None else obs[list(columns)].reset_index(drop=True)

    def matrix(self, layer: str | None) -> Any:
        """Return ``X`` or a layer; `None` if there is no ``X``."""
        if self._raw:
            return self._adata.raw.X
        if layer is not None:
            return self._adata.layers[layer]
        try:
            return self._adata.X
        except KeyError:  # a backed file without X
            return None

    def close(self) -> None:
        """Close the file of a backed AnnData that was opened here."""
        if self._opened and self._adata.isbacked:
            self._adata.file.close()


class FileSource:
    """An ``.h5ad`` or ``.zarr`` file of today's form, read element by element. See `Source`."""

    def __init__(self, group: Any, close: Any, *, raw: bool = False) -> None:
        if raw and "raw/var" not in group:  # zarr has an empty "raw" where there is none
            raise DataError(NO_RAW)
        self._group, self._close, self._raw = group, close, raw
        index = group["obs"].attrs["_index"]
        self._index = group["obs"][index]
        self.columns = [str(name) for name in group["obs"].attrs["column-order"]]
        self.layers = [str(name) for name in group["layers"]] if "layers" in group else []
        var = group["raw/var"] if raw else group["var"]
        self.genes = _texts(var[var.attrs["_index"]], 0, None).tolist()
        self.count = len(_texts(self._index, 0, None)) if not hasattr(self._index, "shape") else self._index.shape[0]

    def names(self, start: int, stop: int) -> np.ndarray:
        """Return the names of consecutive cells, str objects [stop - start]."""
        return _texts(self._index, start, stop)

    def annotations(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return all columns of ``obs`` with the cells' names; or some of them, without."""
        import pandas as pd
        from anndata.io import read_elem

        if columns is None:
            return read_elem(self._group["obs"])
        return pd.DataFrame({name: read_elem(self._group["obs"][name]) for name in columns}, index=range(self.count))

    def matrix(self, layer: str | None) -> Any:
        """Return ``X`` or a layer; `None` if there is no ``X``."""
        from anndata.io import sparse_dataset

        place = "raw/X" if self._raw else "X" if layer is None else f"layers/{layer}"
        if place not in self._group:
            return None
        element = self._group[place]
        if hasattr(element, "shape"):
            return element
        dataset = sparse_dataset(element)
        return _CsrRows(dataset) if dataset.format == "csr" else dataset

    def close(self) -> None:
        """Close the file."""
        self._close()


class _CsrRows:
    """Rows of a CSR matrix on disk: anndata's own slices take fifteen times as long for a batch."""

    format = "csr"

    def __init__(self, dataset: Any) -> None:
        self.shape: tuple[int, int] = dataset.shape
        self._dataset, group = dataset, dataset.group
        self._indptr = np.asarray(group["indptr"][:])
        self._indices, self._data = group["indices"], group["data"]

    def __getitem__(self, rows: slice | np.ndarray) -> Any:
        from scipy import sparse

        if not isinstance(rows, slice):
            return self._dataset[rows]
        first, last = self._indptr[rows.start], self._indptr[rows.stop]
        indptr = self._indptr[rows.start : rows.stop + 1] - first
        parts = (self._data[first:last], self._indices[first:last], indptr)
        return sparse.csr_matrix(parts, shape=(rows.stop - rows.start, self.shape[1]))


def _texts(element: Any, start: int, stop: int | None) -> np.ndarray:
    """Return strings of an array on disk, str objects."""
    from anndata.io import read_elem

    if not hasattr(element, "shape"):  # a nullable array, which has no slices of its own
        values = np.asarray(read_elem(element)[start:stop])
    else:
        values = np.asarray(
            (element.asstr() if hasattr(element, "asstr") and element.dtype == object else element)[start:stop]
        )
    return (values if values.dtype.kind in "OT" else values.astype(str)).astype(object)


def open_source(source: anndata.AnnData | str | os.PathLike[str], *, raw: bool = False) -> Source:
    """Open the source for an AnnData, or for the path of one; raises `DataError` for anything else.

    Parameters
    ----------
    source
        An AnnData, or the path of one.
    raw
        Take genes and values of ``adata.raw``.
    """
    if isinstance(source, str | os.PathLike):
        return _opened(source, functools.partial(_open_file, raw=raw))
    return ObjectSource(source, raw=raw)


def open_anndata(path: str | os.PathLike[str]) -> anndata.AnnData:
    """Open an AnnData from ``.h5ad`` (backed) or ``.zarr``, for what needs more of it than cells.

    Raises
    ------
    DataError
        There is no such file, or it can't be read as AnnData.
    """
    return _opened(path, _open_whole)


def _opened(path: str | os.PathLike[str], open_: Callable[[Path], T]) -> T:
    location = Path(path)
    if not location.exists():
        raise DataError(f"there is no file {str(path)!r}")
    if location.suffix not in (".h5ad", ".zarr"):
        raise DataError(f"{str(path)!r} is neither .h5ad nor .zarr; save it with adata.write_h5ad")
    try:
        return open_(location)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{str(path)!r} can't be read as AnnData: {error}") from error


def _open_whole(location: Path) -> anndata.AnnData:
    import anndata

    return anndata.read_h5ad(location, backed="r") if location.suffix == ".h5ad" else anndata.read_zarr(location)


def _open_file(location: Path, *, raw: bool = False) -> Source:
    group: Any
    if location.suffix == ".h5ad":
        import h5py

        group = h5py.File(location, "r")
        close = group.close
    else:
        import zarr

        group = zarr.open_group(location, mode="r")
        close = group.store.close
    obs = group["obs"]
    if hasattr(obs, "attrs") and obs.attrs.get("encoding-version") == "0.2.0" and not hasattr(obs, "shape"):
        return FileSource(group, close, raw=raw)
    close()
    return ObjectSource(_open_whole(location), raw=raw, opened=True)  # a form of earlier times, read whole but for X


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
    from scipy import sparse

    if isinstance(matrix, np.ndarray) or sparse.issparse(matrix):
        return matrix[rows]
    order = np.argsort(rows, kind="stable")  # on disk, rows are read in ascending order
    ascending = rows[order]
    if len(rows) and ascending[-1] - ascending[0] < _SPAN * len(rows):
        first = int(ascending[0])
        taken = _in_memory(matrix[first : int(ascending[-1]) + 1])
        return taken if (np.diff(rows) == 1).all() else taken[rows - first]
    by_row = getattr(matrix, "oindex", matrix)  # zarr's name for it
    return _in_memory(by_row[ascending])[np.argsort(order, kind="stable")]


def _in_memory(matrix: Any) -> Any:
    """Bring a slice of AnnData into memory, whatever it is."""
    to_memory = getattr(matrix, "to_memory", None)
    return matrix if to_memory is None else to_memory()
