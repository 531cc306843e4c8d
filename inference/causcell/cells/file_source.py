"""An ``.h5ad`` or ``.zarr`` file of today's form, read element by element."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell.cells.columns import Form, Uncarried, find_form, missing_text
from causcell.cells.disk_array import DiskArray
from causcell.cells.guard import damaged, reading
from causcell.cells.matrices import as_matrix
from causcell.cells.names import check_columns, check_names
from causcell.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

NO_RAW = "there is no adata.raw; leave out raw=True, or name the layer that holds the values"
"""Message where values of ``adata.raw`` are asked for and there are none."""

_NULLABLE = ("nullable-integer", "nullable-boolean", "nullable-string-array")
_KINDS = ("array", "string-array", "categorical", *_NULLABLE)
"""Encodings of columns that can travel."""


class FileSource:
    """An ``.h5ad`` or ``.zarr`` file of today's form, read element by element; a `causcell.cells.backing.Source`.

    Parameters
    ----------
    group
        The opened file.
    title
        What messages call it.
    close
        Closes it.
    children
        Returns the names of what a group of the file holds.
    raw
        Take genes and values from ``raw``.
    """

    def __init__(
        self,
        group: Any,
        title: str,
        close: Callable[[], None],
        children: Callable[[str], list[str]],
        *,
        raw: bool = False,
    ) -> None:
        self._group, self._title, self._close, self._raw = group, title, close, raw
        with reading(title, "obs"):
            obs = group["obs"]
            self.columns = [_as_text(name) for name in obs.attrs["column-order"]]
            self._index_name = _as_text(obs.attrs["_index"])
            self._index = self._names_of(obs[self._index_name], f"obs/{self._index_name}")
            self.count = self._index.shape[0]
        check_columns(self.columns)
        self._table = table = "raw/var" if raw else "var"
        with reading(title, table):
            if raw and table not in group:  # zarr has an empty "raw" where there is none
                raise DataError(NO_RAW)
            index = _as_text(group[table].attrs["_index"])
            genes = self._names_of(group[table][index], f"{table}/{index}")
            pieces = [_texts(piece) for piece in genes.read_pieces()] or [np.empty(0, dtype=object)]
            self.genes = np.concatenate(pieces).tolist()
        check_names(np.asarray(self.genes, dtype=object), "var_names")
        with reading(title, "layers"):
            self.layers = children("layers") if "layers" in group else []
        with reading(title, "obsm"):
            self.embeddings = children("obsm") if "obsm" in group else []
        self._labels: dict[str, pd.CategoricalDtype] = {}

    @property
    def has_raw(self) -> bool:
        """Tell whether the file has ``raw``."""
        return "raw/var" in self._group

    def _names_of(self, element: Any, name: str) -> DiskArray:
        """Return names on disk; of a nullable array the values, once none has been found to be missing."""
        if hasattr(element, "shape"):
            return _checked_vector(DiskArray(element, self._title, name))
        values = _checked_vector(DiskArray(element["values"], self._title, f"{name}/values"))
        mask = _checked_vector(DiskArray(element["mask"], self._title, f"{name}/mask"))
        if mask.shape != values.shape:
            raise damaged(
                self._title, mask.name, f"it has {mask.shape[0]} values, and {values.shape[0]} names are there"
            )
        if any(piece.any() for piece in mask.read_pieces(filled=True)):
            raise damaged(self._title, name, "names are missing")
        return values

    def names(self, start: int, stop: int) -> np.ndarray:
        """Return the names of consecutive cells, str objects [stop - start]."""
        with reading(self._title, f"obs/{self._index_name}"):
            names = _texts(self._index.read_present(slice(start, stop)))
        check_names(names, "obs_names")
        return names

    def annotations(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return all columns of ``obs`` with the cells' names; or some of them, without."""
        import pandas as pd

        found = {name: self._column("obs", name, self.count) for name in (self.columns if columns is None else columns)}
        if columns is not None:
            return pd.DataFrame(found, index=range(self.count))
        index = pd.Index(self.names(0, self.count), name=None if self._index_name == "_index" else self._index_name)
        with reading(self._title, "obs"):
            plain = {name: getattr(column, "array", column) for name, column in found.items()}
            return pd.DataFrame(plain, index=index, columns=self.columns)

    def gene_column(self, name: str) -> np.ndarray | None:
        """Return a column of ``var`` (of ``raw``, if so opened), [genes]; `None` if there is none."""
        with reading(self._title, self._table):
            listed = [_as_text(each) for each in self._group[self._table].attrs["column-order"]]
        return np.asarray(self._column(self._table, name, len(self.genes))) if name in listed else None

    def _column(self, table: str, name: str, count: int) -> Any:
        """Read a column of ``obs`` or ``var``, once its parts have been found to have as many values as the table."""
        from anndata.io import read_elem

        place, rows = f"{table}/{name}", "cells" if table == "obs" else "genes"
        with reading(self._title, place):
            element = self._group[table][name]
            for part, array in _arrays(element, place):
                stored = DiskArray(array, self._title, part)
                if part.startswith(f"{place}/categories"):
                    filled = part.endswith("/mask")
                    for _ in _checked_vector(stored).read_pieces(filled=filled):  # so that none is filled in
                        pass
                elif stored.shape != (count,):
                    raise damaged(self._title, part, f"it has shape {stored.shape}, and {table} has {count} {rows}")
            column = read_elem(element)
            if isinstance(column, dict) or len(column) != count:
                raise damaged(self._title, place, f"it is no column (of {count} {rows})")
            return column

    def column_form(self, name: str) -> Form | Uncarried:
        """Return the form of a column of ``obs``, without reading its values."""
        with reading(self._title, f"obs/{name}"):
            element = self._group["obs"][name]
            kind = str(element.attrs.get("encoding-type", "array"))
        if kind not in _KINDS:
            return Uncarried(f"is stored as {kind}, which is no column")
        if kind == "array" and DiskArray(element, self._title, f"obs/{name}").dtype.kind not in "biufOSTU":
            return Uncarried(f"holds {element.dtype}: turn it into text, numbers or labels")
        head = self._read_rows(name, slice(0, 0))
        if kind == "nullable-string-array":
            return missing_text()
        return np.dtype(object) if head.dtype == object else find_form(head)

    def read_columns(self, names: Sequence[str], rows: slice | np.ndarray) -> pd.DataFrame:
        """Return columns of ``obs`` for some cells (ascending), without their names."""
        import pandas as pd

        count = len(range(*rows.indices(self.count)) if isinstance(rows, slice) else rows)
        return pd.DataFrame({name: self._read_rows(name, rows) for name in names}, index=range(count))

    def _read_rows(self, name: str, rows: slice | np.ndarray) -> pd.Series:
        import pandas as pd

        with reading(self._title, f"obs/{name}"):
            element = self._group["obs"][name]
            kind = str(element.attrs.get("encoding-type", "array"))
            if kind == "categorical":
                labels = self._labels_of(name, element)
                codes = self._read_part(element["codes"], f"obs/{name}/codes", rows)
                return pd.Series(pd.Categorical.from_codes(codes, dtype=labels))
            if not kind.startswith("nullable"):
                values = self._read_part(element, f"obs/{name}", rows)
                return pd.Series(_texts(values) if values.dtype.kind in "OSTU" else values)
            values, mask = (self._read_part(element[part], f"obs/{name}/{part}", rows) for part in ("values", "mask"))
            mask = mask.astype(bool)
            if kind == "nullable-boolean":
                return pd.Series(pd.arrays.BooleanArray(values.astype(bool), mask))
            if kind == "nullable-integer":
                return pd.Series(pd.arrays.IntegerArray(values, mask))
            texts = _texts(values)
            texts[mask] = pd.NA
            return pd.Series(texts, dtype=missing_text())

    def _read_part(self, element: Any, place: str, rows: slice | np.ndarray) -> np.ndarray:
        array = DiskArray(element, self._title, place)
        if array.shape != (self.count,):
            raise damaged(self._title, place, f"it has shape {array.shape}, and obs has {self.count} cells")
        return array.read(rows)[0]

    def _labels_of(self, name: str, element: Any) -> pd.CategoricalDtype:
        """Return the labels of a column, which are read once."""
        import pandas as pd
        from anndata.io import read_elem

        if name not in self._labels:
            for part, array in _arrays(element["categories"], f"obs/{name}/categories"):
                for _ in _checked_vector(DiskArray(array, self._title, part)).read_pieces(
                    filled=part.endswith("/mask")
                ):
                    pass
            labels = pd.Index(read_elem(element["categories"]))
            self._labels[name] = pd.CategoricalDtype(labels, ordered=bool(element.attrs.get("ordered", False)))
        return self._labels[name]

    def embedding(self, name: str) -> DiskArray | None:
        """Return an element of ``obsm`` that is an array; `None` where it is none."""
        with reading(self._title, f"obsm/{name}"):
            element = self._group["obsm"][name]
            return DiskArray(element, self._title, f"obsm/{name}") if hasattr(element, "shape") else None

    def read_elements(self) -> dict[str, Any]:
        """Return ``var``, ``obsm``, ``varm``, ``obsp`` and ``uns``, those that there are, in memory."""
        from anndata.io import read_elem

        found = {}
        for name in ("var", "obsm", "varm", "obsp", "uns"):
            with reading(self._title, name):
                if name in self._group:
                    found[name] = read_elem(self._group[name])
        return found

    def gene_columns(self) -> dict[str, pd.Series]:
        """Return the columns of ``var`` (of ``raw``, if so opened), [genes] each."""
        import pandas as pd

        with reading(self._title, self._table):
            table = self._group[self._table]
            listed = [_as_text(each) for each in table.attrs["column-order"]]
            columns = [name for name in listed if str(table[name].attrs.get("encoding-type", "array")) in _KINDS]
        found = {name: self._column(self._table, name, len(self.genes)) for name in columns}
        return {name: pd.Series(getattr(column, "array", column)) for name, column in found.items()}

    def matrix(self, layer: str | None) -> Any:
        """Return ``X`` or a layer; `None` if there is no ``X``."""
        place = "raw/X" if self._raw else "X" if layer is None else f"layers/{layer}"
        with reading(self._title, place):
            if place not in self._group:
                return None
            return as_matrix(self._group[place], (self.count, len(self.genes)), self._title, place)

    def close(self) -> None:
        """Close the file."""
        self._close()


def _arrays(element: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Find the arrays of a column, which may be a group of arrays, of which one may be such a group."""
    if hasattr(element, "shape"):
        yield place, element
        return
    for name in element:
        yield from _arrays(element[name], f"{place}/{name}")


def _checked_vector(array: DiskArray) -> DiskArray:
    if len(array.shape) != 1:
        raise damaged(array.title, array.name, f"it has {len(array.shape)} dimensions in place of one")
    return array


def _as_text(value: Any) -> str:
    """Return a name that an attribute of a file holds; raises `TypeError` for what is no text."""
    if isinstance(value, bytes):
        return value.decode()
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return str(value)


def _texts(values: np.ndarray) -> np.ndarray:
    """Return names read from a file as str objects; whole numbers become text, as they do when anndata reads them."""
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    return (values.astype(str) if values.dtype.kind in "iu" else values).astype(object)
