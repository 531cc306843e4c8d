"""The backing of cells: an AnnData, or a file of one, of which only what is asked for is read."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import numpy as np

from causcell._internal.remote import READABLE, AnyPath, any_path
from causcell.cells.columns import Form, Uncarried, find_form
from causcell.cells.file_source import NO_RAW, FileSource
from causcell.cells.guard import IN_MEMORY, reading
from causcell.cells.hdf5_file import open_hdf5, read_texts
from causcell.cells.matrices import CompressedRows, as_matrix
from causcell.cells.names import check_columns, check_index
from causcell.errors import DataError

if TYPE_CHECKING:
    import anndata
    import pandas as pd

T = TypeVar("T")


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
    layers, embeddings
        Names of the layers, and of the elements of ``obsm``.
    """

    count: int
    columns: list[str]
    genes: list[str]
    layers: list[str]
    embeddings: list[str]

    def names(self, start: int, stop: int) -> np.ndarray:
        """Return the names of consecutive cells, str objects [stop - start]."""
        ...

    def annotations(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return all columns of ``obs`` with the cells' names; or some of them, without."""
        ...

    def column_form(self, name: str) -> Form | Uncarried:
        """Return the form in which a column of ``obs`` travels; see `causcell.cells.columns`."""
        ...

    def read_columns(self, names: Sequence[str], rows: slice | np.ndarray) -> pd.DataFrame:
        """Return columns of ``obs`` for some cells (ascending), without their names."""
        ...

    def embedding(self, name: str) -> Any:
        """Return an element of ``obsm`` that is an array, [n x k]; `None` where it is none."""
        ...

    def read_elements(self) -> dict[str, Any]:
        """Return ``var``, ``obsm``, ``varm``, ``obsp`` and ``uns``, those that there are, in memory."""
        ...

    def gene_column(self, name: str) -> np.ndarray | None:
        """Return a column of ``var`` (of ``raw``, if so opened), [genes]; `None` if there is none."""
        ...

    def gene_columns(self) -> dict[str, pd.Series]:
        """Return the columns of ``var`` (of ``raw``, if so opened), [genes] each."""
        ...

    def matrix(self, layer: str | None) -> Any:
        """Return ``X`` (of ``raw``, if so opened) or a layer, for `take_rows`; `None` if there is no ``X``."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class ObjectSource:
    """An AnnData: in memory, backed, or lazy (of `anndata.experimental.read_lazy`). See `Source`."""

    def __init__(
        self, adata: anndata.AnnData, *, raw: bool = False, title: str = IN_MEMORY, opened: bool = False
    ) -> None:
        self._adata, self._raw, self._title, self._opened = adata, raw, title, opened
        with reading(title):
            if raw and adata.raw is None:
                raise DataError(NO_RAW)
            genes = (adata.raw if raw else adata).var_names
            check_index(adata.obs_names, "obs_names")
            check_index(genes, "var_names")
            check_columns(adata.obs.columns)
            self.count = adata.n_obs
            self.columns = list(adata.obs.columns)
            self.genes = genes.tolist()
            self.layers = list(adata.layers)
            self.embeddings = list(adata.obsm)

    def names(self, start: int, stop: int) -> np.ndarray:
        """Return the names of consecutive cells, str objects [stop - start]."""
        return np.asarray(self._adata.obs_names[start:stop], dtype=object)

    def annotations(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return all columns of ``obs`` with the cells' names; or some of them, without."""
        with reading(self._title, "obs"):
            obs: Any = self._adata.obs
            if columns is None:
                return _to_frame(obs)
            if len(columns):
                return _to_frame(obs[list(columns)]).reset_index(drop=True)
            import pandas as pd

            return pd.DataFrame(index=range(self.count))

    def column_form(self, name: str) -> Form | Uncarried:
        """Return the form in which a column of ``obs`` travels; see `causcell.cells.columns`."""
        import pandas as pd

        obs: Any = self._adata.obs
        return find_form(obs[name] if isinstance(obs, pd.DataFrame) else self.annotations([name])[name])

    def read_columns(self, names: Sequence[str], rows: slice | np.ndarray) -> pd.DataFrame:
        """Return columns of ``obs`` for some cells (ascending), without their names."""
        with reading(self._title, "obs"):
            return _to_frame(self._adata.obs[list(names)].iloc[rows]).reset_index(drop=True)

    def embedding(self, name: str) -> Any:
        """Return an element of ``obsm`` that is an array, [n x k]; `None` where it is none."""
        with reading(self._title, f"obsm[{name!r}]"):
            value = self._adata.obsm[name]
            if hasattr(value, "iloc"):  # a table of numbers
                value = _to_frame(value).to_numpy()
            return value if hasattr(value, "dtype") and not hasattr(value, "nnz") else None

    def read_elements(self) -> dict[str, Any]:
        """Return ``var``, ``obsm``, ``varm``, ``obsp`` and ``uns``, those that there are, in memory."""
        with reading(self._title):
            elements: dict[str, Any] = {"var": _to_frame(self._adata.var).copy()}
            for name in ("obsm", "varm", "obsp"):
                elements[name] = {key: _to_memory(value) for key, value in getattr(self._adata, name).items()}
            return elements | {"uns": copy.deepcopy(dict(self._adata.uns))}

    def gene_columns(self) -> dict[str, pd.Series]:
        """Return the columns of ``var`` (of ``raw``, if so opened), [genes] each."""
        with reading(self._title, "var"):
            var: Any = (self._adata.raw if self._raw else self._adata).var
            return {str(name): column.reset_index(drop=True) for name, column in _to_frame(var).items()}

    def gene_column(self, name: str) -> np.ndarray | None:
        """Return a column of ``var`` (of ``raw``, if so opened), [genes]; `None` if there is none."""
        with reading(self._title, "var"):
            var: Any = (self._adata.raw if self._raw else self._adata).var
            return np.asarray(_to_frame(var)[name]) if name in var.columns else None

    def matrix(self, layer: str | None) -> Any:
        """Return ``X`` or a layer; `None` if there is no ``X``."""
        name = "raw.X" if self._raw else "X" if layer is None else f"layers[{layer!r}]"
        with reading(self._title, name):
            value: Any
            if self._raw:
                value = self._adata.raw.X
            elif layer is not None:
                value = self._adata.layers[layer]
            else:
                try:
                    value = self._adata.X
                except KeyError:  # a backed file without X
                    value = None
            return None if value is None else as_matrix(value, (self.count, len(self.genes)), self._title, name)

    def close(self) -> None:
        """Close the file of a backed AnnData that was opened here."""
        if self._opened and self._adata.isbacked:
            self._adata.file.close()


def _to_frame(obs: Any) -> pd.DataFrame:
    """Return annotations as a data frame in memory, lazy ones too."""
    if not hasattr(obs, "to_memory"):
        return cast("pd.DataFrame", obs)
    frame: pd.DataFrame = obs.to_memory()
    return frame.rename_axis(None) if frame.index.name == "_index" else frame


def _to_memory(value: Any) -> Any:
    """Return an element in memory, a lazy one too."""
    for method in ("to_memory", "compute"):
        if hasattr(value, method):
            return getattr(value, method)()
    return value.copy() if hasattr(value, "copy") else value


def open_source(source: anndata.AnnData | str | os.PathLike[str], *, raw: bool = False) -> Source:
    """Open the source for an AnnData, or for the path of one; raises `DataError` for anything else.

    Parameters
    ----------
    source
        An AnnData, or a path to ``.h5ad``, ``.zarr`` or ``.zarr.zip``.
    raw
        Take genes and values from ``adata.raw``.
    """
    if isinstance(source, str | os.PathLike):
        return _opened(source, functools.partial(_open_file, raw=raw))
    check_anndata(source)
    return ObjectSource(source, raw=raw)


def check_anndata(source: object) -> None:
    """Raise `DataError` unless it is an AnnData; the message says how to come to one."""
    import anndata

    if isinstance(source, anndata.AnnData):
        return
    kind = type(source).__name__
    package = type(source).__module__.split(".")[0]
    remedies = {
        "DataFrame": "anndata.AnnData(frame) makes one of a table of cells by genes",
        "ndarray": "anndata.AnnData(array, obs=..., var=...) makes one",
        "Raw": "adata.raw.to_adata() makes one",
        "MuData": "give one modality, such as mdata['rna']",
        "SpatialData": "give one table, such as sdata['table']",
        "NoneType": "there is nothing here: was a function used that changes its argument and returns None?",
    }
    remedy = remedies.get(kind)
    if isinstance(source, Mapping):
        remedy = "several files are joined first (anndata.concat)"
    elif remedy is None and isinstance(source, list | tuple | set):
        remedy = "where several are taken, they are given by key: {'a': ..., 'b': ...}; else join them (anndata.concat)"
    elif remedy is None and hasattr(source, "shape"):
        remedy = remedies["ndarray"]
    raise DataError(
        f"cells are given as {kind if package == 'builtins' else f'{package}.{kind}'}, and an AnnData or a path to "
        f".h5ad or .zarr is wanted{f'; {remedy}' if remedy else ''}"
    )


def open_anndata(source: anndata.AnnData | str | os.PathLike[str]) -> anndata.AnnData:
    """Open an AnnData from ``.h5ad`` (backed) or ``.zarr``, for what needs more of it than cells.

    Parameters
    ----------
    source
        A path; or an AnnData, which is given back with ``obs`` in memory, if it was lazy.

    Raises
    ------
    DataError
        There is no such file, it can't be read as AnnData, or it is no AnnData.
    """
    if isinstance(source, str | os.PathLike):
        return _opened(source, _open_whole)
    import anndata

    check_anndata(source)
    ObjectSource(source)
    if not hasattr(source.obs, "to_memory"):
        return source
    parts: dict[str, Any] = {"layers": dict(source.layers), "var": _to_frame(source.var)}
    return anndata.AnnData(source.X, obs=_to_frame(source.obs), **parts)


def _opened(path: str | os.PathLike[str], open_: Callable[[AnyPath], T]) -> T:
    location = any_path(path, "data", READABLE)
    with reading(repr(str(path if isinstance(location, Path) else location))):
        if isinstance(location, Path) and not location.exists():
            raise DataError(f"there is no file {str(path)!r}")
        if location.suffix not in (".h5ad", ".zarr") and not location.name.endswith(".zarr.zip"):
            raise DataError(f"{str(path)!r} is neither .h5ad nor .zarr; save it with adata.write_h5ad")
        return open_(location)


def _open_whole(location: AnyPath) -> anndata.AnnData:
    """Open an AnnData once the gate has let its file pass."""
    import anndata
    import pandas as pd

    if location.suffix == ".h5ad" and isinstance(location, Path):
        file, close = open_hdf5(location)
        try:
            read_texts(file)
        finally:
            close()
        adata = anndata.read_h5ad(location, backed="r")
        ObjectSource(adata, title=repr(str(location)))
        return adata
    source = _open_file(location)
    try:
        if isinstance(source, ObjectSource):
            return source._adata
        layers = {name: _read_whole(source.matrix(name)) for name in source.layers}
        x = source.matrix(None)
        parts: dict[str, Any] = {"layers": layers, "var": _read_var(location)}
        adata = anndata.AnnData(None if x is None else _read_whole(x), obs=source.annotations(), **parts)
        has_raw = isinstance(source, FileSource) and source.has_raw
    finally:
        source.close()
    if has_raw:
        with contextlib.closing(_open_file(location, raw=True)) as source:
            raw = _read_whole(source.matrix(None))
            adata.raw = anndata.AnnData(raw, obs=adata.obs[[]], var=pd.DataFrame(index=source.genes))
    return adata


def _read_var(location: AnyPath) -> Any:
    from anndata.io import read_elem

    group, close, _ = _open_group(location)
    try:
        return read_elem(group["var"])
    finally:
        close()


def _read_whole(matrix: Any) -> Any:
    if isinstance(matrix, CompressedRows):
        return matrix.read_major(0, len(matrix.indptr) - 1)
    return matrix[0 : matrix.shape[0]]


def _open_group(location: AnyPath) -> tuple[Any, Callable[[], None], Callable[[str], list[str]]]:
    """Open the root of a file; return it, what closes it, and what returns the names of what a group holds."""
    if location.suffix == ".h5ad":
        file, close = open_hdf5(location)
        return file, close, lambda place: sorted(file[place])
    from causcell.cells.zarr_file import open_zarr

    group, store = open_zarr(location)
    return group, store.close, store.children


def _open_file(location: AnyPath, *, raw: bool = False) -> Source:
    group, close, children = _open_group(location)
    try:
        obs = group["obs"]
        if hasattr(obs, "attrs") and obs.attrs.get("encoding-version") == "0.2.0" and not hasattr(obs, "shape"):
            return FileSource(group, repr(str(location)), close, children, raw=raw)
    except BaseException:
        close()
        raise
    # a form of earlier times, read whole but for X
    if location.suffix == ".h5ad":
        close()
        if not isinstance(location, Path):
            raise DataError(
                f"{str(location)!r} is an .h5ad of an early form, which is read from this machine alone; copy it here, "
                "or write it again with anndata"
            )
        return ObjectSource(_open_whole(location), raw=raw, title=repr(str(location)), opened=True)
    import anndata

    try:
        return ObjectSource(anndata.read_zarr(group), raw=raw, title=repr(str(location)))
    finally:
        close()
