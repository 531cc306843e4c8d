"""Cells bound to a model: names, labels and panel expression of rows, what is missing, and where they came from."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from causcell.cells.collection import AnyCells, AnySource, Cells, open_cells
from causcell.cells.panel import PanelReader
from causcell.concepts import ConceptSchema
from causcell.errors import CausCellWarning, ConfigurationError, DataError, format_list
from causcell.preprocessing import Preprocessing, check_scale


@dataclass(frozen=True)
class CellBatch:
    """Consecutive cells, as a model reads them.

    Attributes
    ----------
    rows
        Their places among all cells.
    names
        str objects [n].
    expression
        Panel expression on the log scale, float32 [n x G].
    """

    rows: slice
    names: np.ndarray
    expression: np.ndarray


@dataclass(frozen=True)
class CellSource:
    """Files of cells and how they are read: what a worker needs to open the same cells. It can be pickled.

    Attributes
    ----------
    files
        Path of one file, or pairs (key, path) of several.
    layer, where
        As for `causcell.cells.collection.Cells`.
    expression, allow_missing_genes
        As for `PanelCells`.
    scratch
        Folder of copies by rows of matrices that are stored by columns; where there is no such folder, temporary ones
        are made.
    """

    files: str | tuple[tuple[str, str], ...]
    layer: str | None = None
    where: str | None = None
    expression: str | None = None
    allow_missing_genes: float = 0.0
    scratch: str | None = None

    def open(self, schema: ConceptSchema, preprocessing: Preprocessing, *, announce: bool = True) -> PanelCells:
        """Open the files and bind their cells to a model's concepts and panel; see `PanelCells`."""
        scratch = Path(self.scratch) if self.scratch is not None and Path(self.scratch).is_dir() else None
        files: AnySource = self.files if isinstance(self.files, str) else dict(self.files)
        cells = open_cells(files, layer=self.layer, where=self.where, scratch=scratch, announce=announce)
        return PanelCells(
            cells,
            schema,
            preprocessing,
            expression=self.expression,
            allow_missing_genes=self.allow_missing_genes,
            announce=announce,
        )


class _NamesInMessages(Sequence[str]):
    """Names of consecutive cells, of which one is read when the message of an error needs it."""

    def __init__(self, cells: Cells, rows: slice) -> None:
        self._cells, self._rows = cells, rows

    def __len__(self) -> int:
        return int(self._rows.stop - self._rows.start)

    def __getitem__(self, place: Any) -> Any:
        row = self._rows.start + place
        return self._cells.read_names(slice(row, row + 1))[0]


class PanelCells:
    """Cells bound to a model's concepts and gene panel. A context manager that closes them.

    Parameters
    ----------
    cells
        The cells.
    schema
        Concepts, whose labels are read from ``obs``.
    preprocessing
        The panel and its scale.
    expression
        Scale of the cells' values, ``counts`` or ``log1p`` (default: that of the model's training cells); it is checked
        as values are read.
    allow_missing_genes
        Share of the panel's genes that may be absent; they are filled with the training mean, and a warning names them.
    announce
        Whether to warn of missing genes.

    Attributes
    ----------
    cells
        The cells, for their other annotations.
    missing
        Panel genes that some file lacks.

    Raises
    ------
    ConfigurationError
        Counts for a model of log1p values, whose scale for counts is not known.
    GenePanelError
        More genes are missing than allowed.
    """

    def __init__(
        self,
        cells: AnyCells,
        schema: ConceptSchema,
        preprocessing: Preprocessing,
        *,
        expression: str | None = None,
        allow_missing_genes: float = 0.0,
        announce: bool = True,
    ) -> None:
        declared = preprocessing.scale if expression is None else check_scale(expression)
        if declared == "counts" and preprocessing.scale == "log1p":
            raise ConfigurationError(
                "this model was trained on log1p values as given, whose scale for raw counts is not known; "
                "give log1p values normalised as the training file's were"
            )
        self.cells, self._schema = cells, schema
        self._closed = False
        self._expression, self._allow_missing_genes = expression, allow_missing_genes
        self._readers = tuple(
            PanelReader(replace(preprocessing, scale=declared), part.genes, allow_missing=allow_missing_genes)
            for part in cells.parts
        )
        self.missing = tuple(dict.fromkeys(gene for reader in self._readers for gene in reader.missing))
        if announce:
            self._announce_missing(len(preprocessing.genes))

    def _announce_missing(self, genes: int) -> None:
        for part, reader in zip(self.cells.parts, self._readers, strict=True):
            if reader.missing:
                warnings.warn(
                    f"{len(reader.missing)} of {genes} panel genes are missing"
                    f"{f' in {part.key!r}' if part.key else ''} and were filled with the training mean: "
                    f"{format_list(reader.missing)}",
                    CausCellWarning,
                    stacklevel=4,
                )

    def __enter__(self) -> PanelCells:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closed = True
        self.cells.close()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise DataError("these cells are closed: read them inside the with block, or bind them again")

    def __len__(self) -> int:
        return len(self.cells)

    @cached_property
    def labels(self) -> np.ndarray:
        """Label codes of all cells, int32 [n x m]; -1 is unlabelled."""
        self._refuse_closed()
        return self.cells.labels(self._schema)

    def read_names(self, rows: slice) -> np.ndarray:
        """Return the names of consecutive cells, str objects [rows]."""
        self._refuse_closed()
        return self.cells.read_names(rows)

    def read(self, rows: slice) -> CellBatch:
        """Read consecutive cells.

        Raises
        ------
        ExpressionError
            Values that are not of the declared scale, or a cell without a single count.
        DataError
            The cells are closed.
        """
        return CellBatch(rows, self.read_names(rows), self.read_expression(rows))

    def read_expression(self, rows: slice) -> np.ndarray:
        """Return the panel expression of consecutive cells without their names, float32 [n x G]; see `read`."""
        self._refuse_closed()
        pieces = [
            self._readers[place].read(part.values(within), _NamesInMessages(part, within))
            for place, part, within in self.cells.split_rows(rows)
        ]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    @property
    def source(self) -> CellSource | None:
        """Files that another process can open the same cells from; `None` for cells in memory."""
        paths = [(part.key, part.path) for part in self.cells.parts]
        if any(path is None for _, path in paths):
            return None
        files = tuple((str(key), str(path)) for key, path in paths)
        return CellSource(
            files if paths[0][0] is not None else files[0][1],
            self.cells.layer,
            self.cells.where,
            self._expression,
            self._allow_missing_genes,
            None if self.cells.scratch is None else str(self.cells.scratch),
        )

    def describe_origin(self) -> dict[str, Any]:
        """Return the files, their sizes and times, the layer and the query, for people and to notice later changes."""
        files = []
        for part in self.cells.parts:
            status = part.path.stat() if part.path else None
            files.append(
                {
                    "key": part.key,
                    "path": str(part.path) if part.path else None,
                    "bytes": status.st_size if status else None,
                    "modified": status.st_mtime_ns if status else None,
                }
            )
        return {"files": files, "layer": self.cells.layer, "where": self.cells.where}
