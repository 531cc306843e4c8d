"""Cells to read: an AnnData, a path to one, or several files, read in slices."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from causcell._internal.batching import batches
from causcell._internal.digests import name_digests
from causcell.cells.backing import open_source, take_rows
from causcell.cells.csc import rowwise_copy
from causcell.cells.panel import PanelReader
from causcell.errors import CausCellWarning, CellNameError, ConceptError, ConfigurationError, DataError, format_list
from causcell.preprocessing import Matrix

if TYPE_CHECKING:
    import anndata
    import pandas as pd

    from causcell.concepts import ConceptSchema

_SLICE = 65536
"""Names are read so many at a time."""


class CellTable(Protocol):
    """Names and labels of cells, in order.

    Attributes
    ----------
    parts
        The files that they are read from.
    layer, where
        What of these is read.
    """

    @property
    def parts(self) -> tuple[Cells, ...]: ...

    @property
    def layer(self) -> str | None: ...

    @property
    def where(self) -> str | None: ...

    def __len__(self) -> int: ...

    def names_of(self, rows: slice) -> np.ndarray:
        """Names of consecutive cells, str objects."""
        ...

    def labels(self, schema: ConceptSchema) -> np.ndarray:
        """Label codes of all cells, int32 [n x m]."""
        ...


class Cells:
    """Names, labels and values of cells, in input order. A context manager that closes the file it opened.

    Names and values are read as they are asked for, so that memory does not grow with them; what stays is a digest of
    each name, 8 bytes.

    Parameters
    ----------
    source
        An AnnData (in memory or backed), or a path to ``.h5ad`` or ``.zarr``.
    layer
        Read ``layers[layer]`` in place of ``X``.
    where
        A pandas query over ``obs``, such as ``cell_type == "B cells"``: only these cells, in input order.
    key
        Of this file among several: its cells are named ``key:name``.
    scratch
        Folder for a copy by rows of a matrix that is stored by columns (CSC); a temporary one, if not given. A copy
        that is there already is used.

    Raises
    ------
    CellNameError
        Duplicated cell names: every random number of a cell hangs on its name.
    DataError
        A file that can't be read, an absent layer, no cell left.
    """

    def __init__(
        self,
        source: anndata.AnnData | str | os.PathLike[str],
        *,
        layer: str | None = None,
        where: str | None = None,
        key: str | None = None,
        scratch: Path | None = None,
    ) -> None:
        self.path = Path(source).absolute() if isinstance(source, str | os.PathLike) else None
        self.layer, self.where, self.key = layer, where, key
        self._scratch = scratch
        self._source = open_source(source)
        self._by_rows: Any = None
        self._encoded: tuple[ConceptSchema, np.ndarray] | None = None
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        if self.layer is not None and self.layer not in self._source.layers:
            raise DataError(f"there is no layer {self.layer!r}; the layers are {format_list(self._source.layers)}")
        self._rows = None if self.where is None else self._matching_rows(self.where)
        self._count = self._source.count if self._rows is None else len(self._rows)
        if not self._count:
            raise DataError("there are no cells" + (f" for which {self.where}" if self.where else ""))
        self._check_names()

    def __enter__(self) -> Cells:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file that was opened."""
        self._source.close()
        if self._by_rows is not None:
            self._by_rows.close()

    def __len__(self) -> int:
        return self._count

    @property
    def parts(self) -> tuple[Cells, ...]:
        """The files, each as cells of its own."""
        return (self,)

    @property
    def genes(self) -> list[str]:
        """Names of the file's genes."""
        return self._source.genes

    @property
    def obs(self) -> pd.DataFrame:
        """Annotations of the cells."""
        obs = self._source.annotations()
        if self.key is not None:
            obs = obs.set_axis(self._keyed(obs.index.to_numpy(dtype=object)))
        return obs if self._rows is None else obs.iloc[self._rows]

    @property
    def names(self) -> np.ndarray:
        """Names of all cells, str objects [n]."""
        return self.names_of(slice(0, self._count))

    def names_of(self, rows: slice) -> np.ndarray:
        """Names of consecutive cells, str objects."""
        if self._rows is None:
            return self._keyed(self._source.names(rows.start, rows.stop))
        wanted = self._rows[rows]
        if not len(wanted):
            return np.empty(0, dtype=object)
        first = int(wanted[0])
        return self._keyed(self._source.names(first, int(wanted[-1]) + 1)[wanted - first])

    def _keyed(self, names: np.ndarray) -> np.ndarray:
        if self.key is None:
            return names
        return np.array([f"{self.key}:{name}" for name in names], dtype=object)

    @cached_property
    def name_digests(self) -> np.ndarray:
        """Digest of each cell's name, uint64 [n]."""
        digests = np.empty(self._count, dtype=np.uint64)
        for rows in batches(self._count, _SLICE):
            digests[rows] = name_digests(self.names_of(rows))
        return digests

    def _check_names(self) -> None:
        order = np.argsort(self.name_digests, kind="stable")
        again = np.diff(self.name_digests[order]) == 0
        if not again.any():
            return
        suspects = np.unique(np.concatenate([order[:-1][again], order[1:][again]]))
        counts = Counter(self.names_of(slice(row, row + 1))[0] for row in suspects.tolist())
        twice = [name for name, count in counts.items() if count > 1]
        if twice:
            raise CellNameError(
                f"{len(twice)} cell names are duplicated: {format_list(twice)}; every random number of a cell "
                f"hangs on its "
                "name: make them unique (adata.obs_names_make_unique(), or a prefix for each file)"
            )

    def labels(self, schema: ConceptSchema) -> np.ndarray:
        """Label codes of all cells, int32 [n x m]; see `causcell.concepts.ConceptSchema.encode`."""
        if self._encoded is None or self._encoded[0] != schema:
            present = [name for name in schema.names if name in self._source.columns]
            obs = self._source.annotations(present)
            self._encoded = (schema, schema.encode(obs if self._rows is None else obs.iloc[self._rows]))
        return self._encoded[1]

    def values(self, rows: slice | np.ndarray) -> Matrix:
        """The file's values of some cells, in the order asked for [rows x file genes]."""
        wanted = np.arange(*rows.indices(self._count)) if isinstance(rows, slice) else np.asarray(rows)
        return take_rows(self._matrix, wanted if self._rows is None else self._rows[wanted])

    def read(self, reader: PanelReader, rows: slice) -> np.ndarray:
        """Panel expression of consecutive cells, float32 [rows x G]."""
        return reader.read(self.values(rows), self.names_of(rows))

    @cached_property
    def _matrix(self) -> Any:
        matrix = self._source.matrix(self.layer)
        if matrix is None:
            raise DataError("there is no expression in X; name a layer that holds it")
        if getattr(matrix, "format", "csr") == "csr":
            return matrix
        if not hasattr(matrix, "to_memory"):
            return matrix.tocsr()
        warnings.warn(
            f"{self.path or 'the file'} holds its matrix by columns (CSC), and cells are rows: a copy by rows is made "
            "first; to save that, write the file with a CSR matrix (adata.X = adata.X.tocsr())",
            CausCellWarning,
            stacklevel=2,
        )
        self._by_rows = rowwise_copy(matrix, self._scratch, self.key or "cells")
        return self._by_rows

    def _matching_rows(self, where: str) -> np.ndarray:
        named = [column for column in self._source.columns if column in where]
        obs = self._source.annotations(None if "index" in where else named)
        try:
            chosen = obs.eval(where, engine="python")
        except Exception as error:  # pandas raises whatever the expression makes it raise
            raise ConceptError(
                f"--where {where!r} can't be evaluated: {error}; it is a pandas query over the columns "
                f"{format_list(self._source.columns, 40)}, such as 'cell_type == \"B cells\"'"
            ) from error
        chosen = np.asarray(chosen)
        if chosen.dtype != bool or chosen.shape != (len(obs),):
            raise ConfigurationError(f"--where {where!r} does not say yes or no for each cell")
        return np.flatnonzero(chosen)


class Collection:
    """Cells of several files, one file after the other, each cell named ``key:name``.

    Parameters
    ----------
    sources
        What `Cells` takes, by key. Files may differ in the genes they have and in their order.
    layer, where, scratch
        As for `Cells`, for every file; a file may have no cell for which ``where``.

    Raises
    ------
    ConfigurationError
        No file, or a key that is empty or contains a colon.
    """

    def __init__(
        self,
        sources: Mapping[str, anndata.AnnData | str | os.PathLike[str]],
        *,
        layer: str | None = None,
        where: str | None = None,
        scratch: Path | None = None,
    ) -> None:
        strange = [key for key in sources if not key or ":" in key]
        if strange or not sources:
            raise ConfigurationError(
                f"{format_list(strange)} can't be keys of files: a key is not empty and has no colon"
                if strange
                else "there are no files; give at least one"
            )
        self.layer, self.where = layer, where
        self._parts: tuple[Cells, ...] = ()
        try:
            for key, source in sources.items():
                try:
                    self._parts += (Cells(source, layer=layer, where=where, key=key, scratch=scratch),)
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

    def __enter__(self) -> Collection:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files that were opened."""
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
        """Annotations of the cells; a column that a file lacks is missing there."""
        import pandas as pd

        return pd.concat([part.obs for part in self.parts])

    @property
    def names(self) -> np.ndarray:
        """Names of all cells, str objects [n]."""
        return np.concatenate([part.names for part in self.parts])

    @property
    def name_digests(self) -> np.ndarray:
        """Digest of each cell's name, uint64 [n]."""
        return np.concatenate([part.name_digests for part in self.parts])

    def names_of(self, rows: slice) -> np.ndarray:
        """Names of consecutive cells, str objects."""
        return np.concatenate([part.names_of(here) for _, part, here in self._within(rows)])

    def labels(self, schema: ConceptSchema) -> np.ndarray:
        """Label codes of all cells, int32 [n x m]."""
        return np.concatenate([part.labels(schema) for part in self.parts])

    def read(self, reader: CollectionReader, rows: slice) -> np.ndarray:
        """Panel expression of consecutive cells, float32 [rows x G]."""
        return np.concatenate([part.read(reader.readers[i], here) for i, part, here in self._within(rows)])

    def _within(self, rows: slice) -> Iterator[tuple[int, Cells, slice]]:
        """The files that rows fall into, and which of their cells."""
        for i, part in enumerate(self.parts):
            start, stop = (int(np.clip(edge - self._starts[i], 0, len(part))) for edge in (rows.start, rows.stop))
            if start < stop:
                yield i, part, slice(start, stop)


class CollectionReader:
    """A `PanelReader` for each file of a collection."""

    def __init__(self, readers: tuple[PanelReader, ...]) -> None:
        self.readers = readers
        self.missing = tuple(dict.fromkeys(gene for reader in readers for gene in reader.missing))


AnyCells = Cells | Collection


AnyReader = PanelReader | CollectionReader


def open_cells(
    source: anndata.AnnData | str | os.PathLike[str] | Mapping[str, Any],
    *,
    layer: str | None = None,
    where: str | None = None,
    scratch: Path | None = None,
) -> AnyCells:
    """`Cells` of one source, or the `Collection` of a mapping from keys to sources."""
    if isinstance(source, Mapping):
        return Collection(source, layer=layer, where=where, scratch=scratch)
    return Cells(source, layer=layer, where=where, scratch=scratch)
