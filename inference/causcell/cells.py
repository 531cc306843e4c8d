"""Cells to read: an AnnData in memory, backed by a file, or a path to one, read in slices."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from causcell.errors import CellNameError, ConceptError, ConfigurationError, DataError, listed
from causcell.expression import Matrix

if TYPE_CHECKING:
    import anndata
    import pandas as pd


class Cells:
    """Names, labels and values of cells, in input order. A context manager that closes the file it opened.

    Parameters
    ----------
    source
        An AnnData (in memory or backed), or a path to ``.h5ad`` (opened backed: values are read as they are asked
        for) or ``.zarr``.
    layer
        Read ``layers[layer]`` in place of ``X``.
    where
        A pandas query over ``obs``, such as ``cell_type == "B cells"``: only these cells, in input order.

    Raises
    ------
    CellNameError
        Duplicated cell names: every random number of a cell hangs on its name.
    DataError
        A file that can't be read, an absent layer, no cell left.

    Attributes
    ----------
    names
        Cell names, str objects [n].
    """

    def __init__(
        self, source: anndata.AnnData | str | os.PathLike[str], *, layer: str | None = None, where: str | None = None
    ) -> None:
        self._opened = isinstance(source, str | os.PathLike)
        self._adata = open_anndata(source) if isinstance(source, str | os.PathLike) else source
        self._layer = layer
        if layer is not None and layer not in self._adata.layers:
            raise DataError(f"there is no layer {layer!r}; the layers are {listed(self._adata.layers)}")
        names = self._adata.obs_names
        if not names.is_unique:
            twice = names[names.duplicated()].unique()
            raise CellNameError(
                f"{len(twice)} cell names are duplicated: {listed(twice)}; every random number of a cell hangs on its "
                "name: make them unique (adata.obs_names_make_unique(), or a prefix for each file)"
            )
        self._rows = np.arange(self._adata.n_obs) if where is None else _matching_rows(self._adata.obs, where)
        if not len(self._rows):
            raise DataError("there are no cells" + (f" for which {where}" if where else ""))
        self.names: np.ndarray = names.to_numpy(dtype=object)[self._rows]

    def __enter__(self) -> Cells:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._opened and self._adata.isbacked:
            self._adata.file.close()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def genes(self) -> list[str]:
        """Names of the file's genes."""
        return self._adata.var_names.astype(str).tolist()

    @property
    def obs(self) -> pd.DataFrame:
        """Annotations of the cells."""
        return self._adata.obs.iloc[self._rows]

    def values(self, rows: slice | np.ndarray) -> Matrix:
        """The file's values of some cells, in the order asked for [rows x file genes]."""
        wanted = self._rows[rows]
        try:
            matrix = self._adata.X if self._layer is None else self._adata.layers[self._layer]
        except KeyError:  # a backed file without X
            matrix = None
        if matrix is None:
            raise DataError("there is no expression in X; name a layer that holds it")
        if isinstance(matrix, np.ndarray) or not self._adata.isbacked:
            return _plain(matrix[wanted])
        if len(wanted) and (np.diff(wanted) == 1).all():
            return _plain(matrix[int(wanted[0]) : int(wanted[-1]) + 1])
        order = np.argsort(wanted, kind="stable")  # a backed matrix is read in ascending order
        return _plain(matrix[wanted[order]])[np.argsort(order, kind="stable")]


def open_anndata(path: str | os.PathLike[str]) -> anndata.AnnData:
    """An AnnData from ``.h5ad`` (backed) or ``.zarr``; raises `DataError` for anything else."""
    import anndata

    location = Path(path)
    if not location.exists():
        raise DataError(f"there is no file {str(path)!r}")
    try:
        if location.suffix == ".h5ad":
            return anndata.read_h5ad(location, backed="r")
        if location.suffix == ".zarr":
            return anndata.read_zarr(location)
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{str(path)!r} can't be read as AnnData: {error}") from error
    raise DataError(f"{str(path)!r} is neither .h5ad nor .zarr; save it with adata.write_h5ad")


def _matching_rows(obs: pd.DataFrame, where: str) -> np.ndarray:
    try:
        chosen = obs.eval(where, engine="python")
    except Exception as error:  # pandas raises whatever the expression makes it raise
        raise ConceptError(
            f"--where {where!r} can't be evaluated: {error}; it is a pandas query over the columns "
            f"{listed(obs.columns, 40)}, such as 'cell_type == \"B cells\"'"
        ) from error
    chosen = np.asarray(chosen)
    if chosen.dtype != bool or chosen.shape != (len(obs),):
        raise ConfigurationError(f"--where {where!r} does not say yes or no for each cell")
    return np.flatnonzero(chosen)


def _plain(matrix: object) -> Matrix:
    """An in-memory matrix of whatever a slice of AnnData is."""
    to_memory = getattr(matrix, "to_memory", None)
    return to_memory() if to_memory is not None else matrix


def batches(count: int, size: int) -> list[slice]:
    """Consecutive slices of at most ``size`` rows that cover ``count`` rows."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def padded(array: np.ndarray, size: int) -> np.ndarray:
    """The array with its last row repeated up to ``size`` rows: batches of one size give the same bits anywhere."""
    if len(array) == size:
        return array
    return np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])
