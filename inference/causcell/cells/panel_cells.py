"""Cells bound to a model: names, labels and panel expression of rows, what is missing, and where they came from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from causcell._internal.batching import Places
from causcell._internal.remote_file import state_of
from causcell._internal.telling import warn
from causcell.cells.by_rows import Rows
from causcell.cells.collection import AnyCells, AnySource, Cells, open_cells
from causcell.cells.concept_rows import all_numbers, can_read_by_rows, label_rows, number_rows
from causcell.cells.log_scale import SumWatch
from causcell.cells.names import NamesInMessages
from causcell.cells.panel import PanelReader
from causcell.cells.totals import advise_column, read_totals
from causcell.cells.untrained import warn_of_untrained
from causcell.concepts import ConceptSchema
from causcell.errors import ConfigurationError, DataError, format_list
from causcell.preprocessing import Preprocessing, Scale, check_scale


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
    library
        Library sizes, totals of counts over the normalisation genes, float64 [n]; `None` where they are not asked for.
    panel_totals
        What of these falls on the panel, float64 [n]; `None` likewise.
    """

    rows: slice
    names: np.ndarray
    expression: np.ndarray
    library: np.ndarray | None = None
    panel_totals: np.ndarray | None = None


@dataclass(frozen=True)
class Reading:
    """How the values of files are read.

    Attributes
    ----------
    layer, raw
        Read a layer, or genes and values of ``adata.raw``, in place of ``X``.
    expression
        Scale of the values, ``counts`` or ``log1p`` (default: that of the model's training cells); it is checked.
    totals
        Column of ``obs`` with each cell's total of counts, for files that lack genes of it.
    round_counts
        Round counts that are not whole: floating point left a rest, or they were corrected for ambient RNA.
    allow_missing_genes
        Share of the panel's genes, and of a cell's total, that may be missing.
    """

    layer: str | None = None
    raw: bool = False
    expression: str | None = None
    totals: str | None = None
    round_counts: bool = False
    allow_missing_genes: float = 0.0

    def open(self, source: AnySource, **options: Any) -> AnyCells:
        """Open cells; see `causcell.cells.collection.open_cells` for further options."""
        return open_cells(source, layer=self.layer, raw=self.raw, **options)

    def bind(
        self, cells: AnyCells, schema: ConceptSchema, preprocessing: Preprocessing, *, announce: bool = True
    ) -> PanelCells:
        """Bind cells that `open` opened to a model's concepts and panel; see `PanelCells`."""
        return PanelCells(cells, schema, preprocessing, announce=announce, **self.bind_options)

    @property
    def bind_options(self) -> dict[str, Any]:
        """Arguments of `PanelCells`."""
        return {
            "expression": self.expression,
            "allow_missing_genes": self.allow_missing_genes,
            "totals": self.totals,
            "round_counts": self.round_counts,
        }


@dataclass(frozen=True)
class CellSource:
    """Files of cells and how they are read: what a worker needs to open the same cells. It can be pickled.

    Attributes
    ----------
    files
        Path of one file, or pairs (key, path) of several.
    reading
        How their values are read.
    where
        As for `causcell.cells.collection.Cells`.
    scratch
        Folder of copies by rows of matrices that are stored by columns; where there is no such folder, temporary ones
        are made.
    """

    files: str | tuple[tuple[str, str], ...]
    reading: Reading = Reading()
    where: str | None = None
    scratch: str | None = None

    def open(
        self, schema: ConceptSchema, preprocessing: Preprocessing, *, announce: bool = True, checked: bool = False
    ) -> PanelCells:
        """Open the files and bind their cells to a model's concepts and panel; see `PanelCells` and `Cells`."""
        scratch = Path(self.scratch) if self.scratch is not None and Path(self.scratch).is_dir() else None
        files: AnySource = self.files if isinstance(self.files, str) else dict(self.files)
        cells = self.reading.open(files, where=self.where, scratch=scratch, announce=announce, checked=checked)
        return self.reading.bind(cells, schema, preprocessing, announce=announce)


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
        Share of the panel's genes that may be absent, which are filled with the training mean, and of a cell's total
        that absent genes may carry, by which totals are corrected; a warning names them.
    totals, round_counts
        As for `Reading`.
    announce
        Whether to warn of missing genes, and of sums of cells that are unlike the training cells'.

    Attributes
    ----------
    cells
        The cells, for their other annotations.
    reading
        How their values are read.
    missing
        Panel genes that some file lacks.

    Raises
    ------
    ConfigurationError
        Counts for a model of log1p values, whose scale for counts is not known; totals or rounding for log1p values;
        a model that was trained with totals of a column, and none named.
    GenePanelError
        More genes are missing than allowed.
    DataError
        Totals that can't be used; see `causcell.cells.totals.read_totals`.
    """

    def __init__(
        self,
        cells: AnyCells,
        schema: ConceptSchema,
        preprocessing: Preprocessing,
        *,
        expression: str | None = None,
        allow_missing_genes: float = 0.0,
        totals: str | None = None,
        round_counts: bool = False,
        announce: bool = True,
    ) -> None:
        declared = preprocessing.scale if expression is None else check_scale(expression)
        if declared == "counts" and preprocessing.scale == "log1p":
            raise ConfigurationError(
                "this model was trained on log1p values as given, whose scale for raw counts is not known; "
                "give log1p values normalised as the training file's were"
            )
        self.cells, self._schema, self._declared = cells, schema, declared
        self._closed = False
        self.reading = Reading(cells.layer, cells.raw, expression, totals, round_counts, allow_missing_genes)
        self._readers = tuple(self._make_reader(part, declared, preprocessing, announce) for part in cells.parts)
        self._totals = tuple(None if totals is None else read_totals(part, totals) for part in cells.parts)
        self.missing = tuple(dict.fromkeys(gene for reader in self._readers for gene in reader.missing))
        if announce:
            self._announce_missing(len(preprocessing.genes))

    def _make_reader(self, part: Cells, declared: Scale, preprocessing: Preprocessing, announce: bool) -> PanelReader:
        reading = self.reading
        return PanelReader(
            preprocessing,
            part.genes,
            expression=declared,
            allow_missing=reading.allow_missing_genes,
            totals=reading.totals,
            totals_advice=advise_column(part.columns),
            round_counts=reading.round_counts,
            watch=_watch_sums(part, declared, preprocessing, reading.totals) if announce else None,
        )

    def _announce_missing(self, genes: int) -> None:
        for part, reader in zip(self.cells.parts, self._readers, strict=True):
            place = f" in {part.key!r}" if part.key else ""
            if reader.missing:
                warn(
                    f"{len(reader.missing)} of {genes} panel genes are missing{place} and were filled with the "
                    f"training mean: {format_list(reader.missing)}"
                )
            missing = reader.missing_totals
            if missing is not None and missing.genes:
                told = (
                    "values are too large by as much as these genes carry, which this model does not know"
                    if missing.share is None
                    else f"totals were taken for {missing.factor:.4g} times what the other genes have, which is true "
                    "on average and not of each cell"
                )
                warn(f"{missing.describe()}{place}; {told} (totals from a column are exact: totals=)")

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
        """Label codes of all cells, int32 [n x m]; -1 is unlabelled. It warns of labels that no training cell has."""
        self._refuse_closed()
        codes = self.cells.labels(self._schema)
        warn_of_untrained(self.cells.parts, self._schema, codes)
        return codes

    @cached_property
    def numbers(self) -> np.ndarray | None:
        """Standardised numbers of all cells, float32 [n x c], of concepts that have some; `None` where none do."""
        self._refuse_closed()
        if not self._schema.numeric:
            return None
        return all_numbers(self.cells, self._schema)

    @cached_property
    def label_rows(self) -> Rows:
        """`labels`, read by rows where there are many cells or a worker needs few: ``label_rows[slice]``."""
        self._refuse_closed()
        if can_read_by_rows(self.cells, self._schema):
            return label_rows(self.cells, self._schema, lambda: self.labels)
        return self.labels

    @cached_property
    def number_rows(self) -> Rows | None:
        """`numbers`, read by rows as `label_rows` are."""
        self._refuse_closed()
        if self._schema.numeric and can_read_by_rows(self.cells, self._schema):
            return number_rows(self.cells, self._schema)
        return self.numbers

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

    def read_with_library(self, rows: slice) -> CellBatch:
        """Read consecutive cells with their library sizes; see `read`.

        Raises
        ------
        ConfigurationError
            The cells are log1p values; see `require_library_sizes`.
        """
        self.require_library_sizes()
        expression, library = self._read_parts(rows, library=True)
        return CellBatch(rows, self.read_names(rows), expression, library)

    def require_library_sizes(self) -> None:
        """Raise `ConfigurationError` if the cells' values do not tell their library sizes."""
        if self._declared != "counts":
            raise ConfigurationError(
                "the cells are given as log1p values, which do not tell their library sizes; give raw counts "
                "(expression='counts'), or one library size for all (library_size=10000)"
            )

    def read_expression(self, rows: Places) -> np.ndarray:
        """Return the panel expression of consecutive cells, or of places in ascending order, float32 [n x G].

        See `read`; names are not read.
        """
        return self._read_parts(rows, library=False)[0]

    def _read_parts(self, rows: Places, *, library: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return panel expression and library sizes, which are empty where they are not asked for."""
        self._refuse_closed()
        pieces, sizes = [], []
        for place, part, within in self.cells.split_rows(rows):
            totals, reader, values = self._totals[place], self._readers[place], part.values(within)
            here = None if totals is None else totals[within]
            places = range(within.start, within.stop) if isinstance(within, slice) else within
            pieces.append(reader.read(values, NamesInMessages(part, places), here))
            sizes.append(reader.library_sizes(values, here) if library else np.empty(0))
        return (pieces[0], sizes[0]) if len(pieces) == 1 else (np.concatenate(pieces), np.concatenate(sizes))

    @property
    def source(self) -> CellSource | None:
        """Files that another process can open the same cells from; `None` for cells in memory."""
        paths = [(part.key, part.path) for part in self.cells.parts]
        if any(path is None for _, path in paths):
            return None
        files = tuple((str(key), str(path)) for key, path in paths)
        return CellSource(
            files if paths[0][0] is not None else files[0][1],
            self.reading,
            self.cells.where,
            None if self.cells.scratch is None else str(self.cells.scratch),
        )

    def describe_origin(self) -> dict[str, Any]:
        """Return the files, their sizes and times, the query and how values are read, to notice later changes."""
        files = []
        for part in self.cells.parts:
            size, modified = (None, None) if part.path is None else state_of(part.path)
            path = str(part.path) if part.path else None
            files.append({"key": part.key, "path": path, "bytes": size, "modified": modified})
        return {"files": files, "layer": self.cells.layer, "where": self.cells.where, **self.chosen}

    @property
    def chosen(self) -> dict[str, Any]:
        """Ways to read values that decide them and were chosen: ``raw``, ``totals`` and ``round_counts``."""
        ways = {name: getattr(self.reading, name) for name in ("raw", "totals", "round_counts")}
        return {name: way for name, way in ways.items() if way}


def _watch_sums(cells: Cells, declared: Scale, preprocessing: Preprocessing, totals: str | None) -> SumWatch | None:
    """Make what compares sums of cells with the training cells', where a scale can be wrong and nothing else tells."""
    if preprocessing.panel_sums is None:
        return None
    if preprocessing.scale == "log1p":
        reason = (
            "they may be normalised to another total, or by another logarithm, than the training file (about {times} "
            "times its total), and this model takes log1p values as given"
        )
    elif totals is not None:
        reason = f"the column {totals!r} may count other genes than the totals of training ({{times}} times the sum)"
    elif declared == "log1p" and not set(preprocessing.normalisation_genes) <= set(cells.genes):
        reason = (
            "genes of the total are missing in the file, so that its scale can't be told for sure; values may be "
            "normalised to about {times} times the total of 10,000"
        )
    elif declared == "log1p" and preprocessing.totals is not None:
        reason = "they may be normalised to about {times} times the total of 10,000"
    else:
        return None
    here = len(set(preprocessing.genes) & set(cells.genes)) / len(preprocessing.genes)
    return SumWatch(
        preprocessing.panel_sums, len(cells), here, f"{reason}{f' (in {cells.key!r})' if cells.key else ''}"
    )
