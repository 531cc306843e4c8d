"""Cells to read, in slices: of one AnnData or file (`Cells`), or of several (`Collection`)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np

from causcell._internal.batching import Places, rows_within
from causcell._internal.choices import suggest
from causcell._internal.digests import name_digests
from causcell._internal.remote import READABLE, any_path
from causcell._internal.telling import warn
from causcell.cells.backing import Source, open_source
from causcell.cells.columns import join_tables
from causcell.cells.csc import rowwise_copy
from causcell.cells.guard import IN_MEMORY
from causcell.cells.matrices import as_values, check_begins, take_rows
from causcell.cells.unique_names import LARGE, check_digests, check_texts, texts_digest
from causcell.cells.where import Where
from causcell.cells.where_tree import INDEX
from causcell.errors import ConfigurationError, DataError, format_list
from causcell.preprocessing import Matrix

if TYPE_CHECKING:
    import anndata
    import pandas as pd

    from causcell.concepts import ConceptSchema

_SLICE = 65536
"""Names are read so many at a time."""


class Cells:
    """Names, labels and values of cells, in input order. A context manager that closes the file it opened.

    Names and values are read as they are asked for, so that memory does not grow with them; of up to 8 million cells
    what stays is a digest of each name, 8 bytes.

    Parameters
    ----------
    source
        An AnnData (in memory or backed), or a path or URL of ``.h5ad`` or ``.zarr``.
    layer
        Read ``layers[layer]`` in place of ``X``.
    raw
        Read genes and values of ``adata.raw`` in place of ``X``.
    where
        A condition on the columns of ``obs``, such as ``cell_type == "B cells"``: only these cells, in input order; see
        `causcell.cells.where`.
    key
        Key of this file among several: its cells are named ``key:name``.
    scratch
        Folder for a copy by rows of a matrix that is stored by columns (CSC); a temporary one, if not given. A copy
        that is there already is used.
    announce
        Whether to warn before such a copy is made.
    checked
        The file was opened before, and its names and its matrix as a whole are not checked again.

    Attributes
    ----------
    path
        File or URL, or `None` for cells in memory.
    layer, raw, where, key, scratch, checked
        As given.

    Raises
    ------
    CellNameError
        Duplicated cell names: every random number of a cell hangs on its name.
    DataError
        A file that can't be read, an absent layer, no cell left.
    ConceptError, ConfigurationError
        A condition that can't be evaluated, or does not say yes or no for each cell; a layer beside ``raw``.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> obs = pd.DataFrame({"stim": ["ctrl", "IFN", "IFN"]}, index=["a", "b", "c"])
    >>> adata = anndata.AnnData(np.eye(3, dtype=np.float32), obs=obs)
    >>> with Cells(adata, where="stim == 'IFN'") as cells:
    ...     cells.names, cells.values(slice(0, 1))
    (array(['b', 'c'], dtype=object), array([[0., 1., 0.]], dtype=float32))
    """

    def __init__(
        self,
        source: anndata.AnnData | str | os.PathLike[str],
        *,
        layer: str | None = None,
        raw: bool = False,
        where: str | None = None,
        key: str | None = None,
        scratch: Path | None = None,
        announce: bool = True,
        checked: bool = False,
    ) -> None:
        if raw and layer is not None:
            raise ConfigurationError(f"layer={layer!r} and raw=True exclude each other; leave one out")
        self.path = any_path(source, "data", READABLE).absolute() if isinstance(source, str | os.PathLike) else None
        self.layer, self.raw, self.where, self.key, self.scratch = layer, raw, where, key, scratch
        self._announce, self.checked = announce, checked
        self._source = open_source(source, raw=raw)
        self._by_rows: Any = None
        self._encoded: tuple[ConceptSchema, np.ndarray] | None = None
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        if self.layer is not None and self.layer not in self._source.layers:
            hint = "; adata.raw is read by raw=True" if self.layer.lower().startswith("raw") else ""
            there = self._source.layers
            known = f"{suggest(self.layer, there)}the layers are {format_list(there)}" if there else "there are none"
            raise DataError(f"there is no layer {self.layer!r}; {known}{hint}")
        self._rows = None if self.where is None else self._matching_rows(self.where)
        self._count = self._source.count if self._rows is None else len(self._rows)
        if not self._count:
            raise DataError("there are no cells" + (f" for which {self.where}" if self.where else ""))
        if not self.checked:
            self._check_names()

    def __enter__(self) -> Cells:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file that was opened, and remove a temporary copy."""
        self._source.close()
        if self._by_rows is not None:
            self._by_rows.close()

    def __len__(self) -> int:
        return self._count

    @property
    def parts(self) -> tuple[Cells, ...]:
        """The files that have cells, each as cells of its own."""
        return (self,)

    def split_rows(self, rows: Places) -> list[tuple[int, Cells, Places]]:
        """Split consecutive or ascending rows by file: place of the file in `parts`, its cells, and which of these."""
        return [(0, self, rows)]

    @property
    def genes(self) -> list[str]:
        """Names of the file's genes."""
        return self._source.genes

    def gene_column(self, name: str) -> np.ndarray | None:
        """Return a column of ``var`` (of ``raw``, where that is read), [genes]; `None` if there is none."""
        return self._source.gene_column(name)

    @property
    def obs(self) -> pd.DataFrame:
        """Annotations of the cells, [n x columns]."""
        obs = self._source.annotations()
        if self.key is not None:
            obs = obs.set_axis(self._keyed(obs.index.to_numpy(dtype=object)))
        return obs if self._rows is None else obs.iloc[self._rows]

    def read_obs(self, columns: Sequence[str]) -> pd.DataFrame:
        """Return some columns of ``obs`` that there are, without the cells' names, [n x columns]."""
        obs = self._source.annotations(list(columns))
        return obs if self._rows is None else obs.iloc[self._rows]

    @property
    def names(self) -> np.ndarray:
        """Names of all cells, str objects [n]."""
        return self.read_names(slice(0, self._count))

    def read_names(self, rows: slice) -> np.ndarray:
        """Return the names of consecutive cells, str objects [rows]."""
        wanted = self.places(rows)
        if isinstance(wanted, slice):
            return self._keyed(self._source.names(wanted.start, wanted.stop))
        if not len(wanted):
            return np.empty(0, dtype=object)
        first = int(wanted[0])
        return self._keyed(self._source.names(first, int(wanted[-1]) + 1)[wanted - first])

    def places(self, rows: slice | np.ndarray) -> slice | np.ndarray:
        """Return the places in the file of some of the cells."""
        return rows if self._rows is None else self._rows[rows]

    @property
    def file(self) -> Source:
        """The file or AnnData with all of its cells, whatever ``where`` says."""
        return self._source

    def _keyed(self, names: np.ndarray) -> np.ndarray:
        if self.key is None:
            return names
        return np.array([f"{self.key}:{name}" for name in names], dtype=object)

    @cached_property
    def name_digests(self) -> np.ndarray:
        """Digest of each cell's name, uint64 [n]."""
        starts = range(0, self._count, _SLICE)
        pieces = [name_digests(self.read_names(slice(i, min(i + _SLICE, self._count)))) for i in starts]
        return np.concatenate(pieces)  # memory grows as names are found: a damaged file may state any number of them

    @cached_property
    def texts_digest(self) -> str:
        """SHA-256 of all cells' names as texts."""
        return texts_digest(self._count, self.read_names)

    @property
    def read_by_rows(self) -> bool:
        """Tell whether what is known of each cell is better read as it is asked for than kept."""
        return self.checked or self._count > LARGE

    def _check_names(self) -> None:
        """Raise `CellNameError` for two of one name."""
        if self._count <= LARGE:
            check_digests(self.name_digests, self.read_names)
        else:
            self.__dict__["texts_digest"] = check_texts(self._count, self.read_names)

    def labels(self, schema: ConceptSchema) -> np.ndarray:
        """Return the label codes of all cells, int32 [n x m]; see `causcell.concepts.ConceptSchema.encode`."""
        if self._encoded is None or self._encoded[0] != schema:
            present = [name for name in schema.names if name in self._source.columns]
            self._encoded = (schema, schema.encode(self.read_obs(present)))
        return self._encoded[1]

    @property
    def columns(self) -> list[str]:
        """Names of the columns of ``obs``."""
        return self._source.columns

    def column(self, name: str) -> pd.Series:
        """Return a column of ``obs`` that there is, [n]."""
        return self.read_obs([name])[name]

    def values(self, rows: slice | np.ndarray) -> Matrix:
        """Return the file's values of some cells, in the order asked for, [rows x file genes]."""
        wanted = np.arange(*rows.indices(self._count)) if isinstance(rows, slice) else np.asarray(rows)
        taken = take_rows(self._matrix, wanted if self._rows is None else self._rows[wanted])
        return as_values(taken, len(wanted), len(self.genes), *self._titles)

    @property
    def _titles(self) -> tuple[str, str]:
        """Name of the file and of the matrix that is read, for messages."""
        file = IN_MEMORY if self.path is None else repr(str(self.path))
        return file, "X" if self.layer is None else f"layers[{self.layer!r}]"

    @cached_property
    def _matrix(self) -> Any:
        matrix = self._source.matrix(self.layer)
        if matrix is None:
            raise DataError("there is no expression in X; name a layer that holds it")
        if getattr(matrix, "format", "csr") == "csr":
            return matrix if self.checked else check_begins(matrix)
        if self._announce:
            warn(
                f"{self.path or 'the file'} holds its matrix by columns (CSC), and cells are rows: a copy by rows is "
                "made first; to save that, write the file with a CSR matrix (adata.X = adata.X.tocsr())"
            )
        self._by_rows = rowwise_copy(matrix, self.scratch, self.key or "cells")
        return self._by_rows

    def _matching_rows(self, where: str) -> np.ndarray:
        condition = Where(where, self._source.columns)
        named = [column for column in self._source.columns if column in condition.columns]
        everything = INDEX in condition.columns and INDEX not in named
        return np.flatnonzero(condition.evaluate(self._source.annotations(None if everything else named)))


class Collection:
    """Cells of several files, one file after the other, each cell named ``key:name``.

    Parameters
    ----------
    sources
        What `Cells` takes, by key. Files may differ in the genes they have and in their order.
    layer, raw, where, scratch, announce, checked
        As for `Cells`, for every file; a file may have no cell for which ``where`` holds.

    Raises
    ------
    ConfigurationError
        No file, or a key that is empty or contains a colon.
    DataError, CellNameError, ConceptError
        As for `Cells`; a note names the file.
    """

    def __init__(
        self,
        sources: Mapping[str, anndata.AnnData | str | os.PathLike[str]],
        *,
        layer: str | None = None,
        raw: bool = False,
        where: str | None = None,
        scratch: Path | None = None,
        announce: bool = True,
        checked: bool = False,
    ) -> None:
        strange = [key for key in sources if not isinstance(key, str) or not key or ":" in key]
        if strange or not sources:
            raise ConfigurationError(
                f"{format_list(strange)} can't be keys of files: a key is a text, not empty, without a colon"
                if strange
                else "there are no files; give at least one"
            )
        self.layer, self.raw, self.where, self.scratch = layer, raw, where, scratch
        options: dict[str, Any] = {"layer": layer, "raw": raw, "where": where, "scratch": scratch, "checked": checked}
        self._parts: tuple[Cells, ...] = ()
        try:
            for key, source in sources.items():
                try:
                    part = Cells(source, key=key, announce=announce, **options)
                    self._parts += (part,)
                except DataError as error:
                    if where is None or not str(error).startswith("there are no cells for which"):
                        error.add_note(f"in file {key!r}")
                        raise
            if not self._parts:
                raise DataError(f"there are no cells for which {where}")
        except BaseException:
            self.close()
            raise
        self._starts = np.cumsum([0, *map(len, self.parts)])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files that were opened."""
        for part in self.parts:
            part.close()

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def parts(self) -> tuple[Cells, ...]:
        """The files that have cells, each as cells of its own."""
        return self._parts

    @property
    def obs(self) -> pd.DataFrame:
        """Annotations of the cells, [n x columns]; a column that a file lacks is missing there."""
        return join_tables([part.obs for part in self.parts])

    @property
    def names(self) -> np.ndarray:
        """Names of all cells, str objects [n]."""
        return np.concatenate([part.names for part in self.parts])

    @property
    def name_digests(self) -> np.ndarray:
        """Digest of each cell's name, uint64 [n]."""
        return np.concatenate([part.name_digests for part in self.parts])

    @property
    def read_by_rows(self) -> bool:
        """Tell whether what is known of each cell is better read as it is asked for than kept."""
        return len(self) > LARGE or any(part.read_by_rows for part in self.parts)

    def read_names(self, rows: slice) -> np.ndarray:
        """Return the names of consecutive cells, str objects [rows]."""
        return np.concatenate([part.read_names(within) for _, part, within in self.split_rows(rows)])

    def labels(self, schema: ConceptSchema) -> np.ndarray:
        """Return the label codes of all cells, int32 [n x m]."""
        return np.concatenate([part.labels(schema) for part in self.parts])

    def split_rows(self, rows: Places) -> list[tuple[int, Cells, Places]]:
        """Split consecutive or ascending rows by file: place of the file in `parts`, its cells, and which of these."""
        found = [rows_within(rows, int(self._starts[place]), len(part)) for place, part in enumerate(self.parts)]
        parts = enumerate(zip(self.parts, found, strict=True))
        return [(place, part, within) for place, (part, within) in parts if within is not None]


AnyCells = Cells | Collection
AnySource: TypeAlias = "anndata.AnnData | str | os.PathLike[str] | Mapping[str, Any]"
"""An AnnData, a path to one, or a mapping from keys to either."""


def open_cells(source: AnySource, **options: Any) -> AnyCells:
    """Open the `Cells` of one source, or the `Collection` of a mapping from keys to sources; both say the options."""
    return Collection(source, **options) if isinstance(source, Mapping) else Cells(source, **options)
