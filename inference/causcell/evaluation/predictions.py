"""Predictions of any method, read from files: what an evaluation asks, answered by their rows.

A file is an AnnData, an atlas or any other: one row a (cell, intervention[, draw]), named in ``obs`` as
`causcell.evaluation.prediction_rows` says, genes by name, values on the log scale or counts. ``uns["causcell"]`` says
whether rows are samples or means (``estimate``), as it does in atlases; where it does not, the one who opens it says.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
from scipy import sparse

from causcell._internal.batching import batches
from causcell._internal.choices import check_choice
from causcell.cells.collection import Cells
from causcell.cells.elements import read_elements, read_embeddings
from causcell.cells.guard import IN_MEMORY
from causcell.cells.panel import PanelReader
from causcell.cells.totals import read_totals
from causcell.concepts import UNEXPLAINED, ConceptSchema
from causcell.counterfactual.interventions import Intervention
from causcell.diffusion.solvers import Estimate
from causcell.errors import ConfigurationError, DataError, ExpressionError, GenePanelError, format_list
from causcell.evaluation.prediction_rows import ESTIMATES, read_rows
from causcell.evaluation.predictor import Embeddings
from causcell.preprocessing import Preprocessing, Scale, check_scale

if TYPE_CHECKING:
    import anndata
    import pandas as pd

_READ_ROWS = 1024
_MIN_GENES = 2
_FACTUAL = Intervention((), "factual")

Source: TypeAlias = "anndata.AnnData | str | os.PathLike[str]"


@dataclass(frozen=True)
class PredictionReading:
    """How files of predictions are read.

    Attributes
    ----------
    estimate
        What rows are of a cell's expression, ``mean`` or ``sample``; for files that do not say.
    expression
        Scale of the values: ``log1p`` (natural logarithms, for a total of 10,000) or ``counts``; it is checked.
    totals
        Column of ``obs`` with the total that a row's counts are scaled by, where a file lacks genes that it counts.
    layer
        Read this layer in place of ``X``.
    """

    estimate: str | None = None
    expression: str = "log1p"
    totals: str | None = None
    layer: str | None = None

    def __post_init__(self) -> None:
        check_scale(self.expression)
        if self.estimate is not None:
            check_choice(self.estimate, ESTIMATES, "estimate")


class Predictions:
    """Predictions of a method; see `causcell.evaluation.predictor.Predictor`. A context manager that closes its files.

    Parameters
    ----------
    sources
        One or more files or AnnData of one method: of samples, of mean estimates, or of parts of the cells.
    cells
        Names and genes of the cells that are judged by, and the scale of their values.
    schema
        Concepts and graph.
    reading
        How the files are read.

    Attributes
    ----------
    schema
        As given.
    preprocessing
        The genes that every file and the cells have, in the first file's order.
    rows
        The rows of all files.
    left_out_genes
        Genes of the predictions that the cells do not have.

    Raises
    ------
    DataError
        Rows can't be used; see `causcell.evaluation.prediction_rows.read_rows`. A file holds effects or embeddings.
    ConfigurationError
        A file does not say whether it holds samples or means, or says something else than ``reading`` does.
    GenePanelError
        Fewer than two genes in common.
    """

    def __init__(
        self,
        sources: Source | Sequence[Source],
        cells: JudgedCells,
        schema: ConceptSchema,
        reading: PredictionReading | None = None,
    ) -> None:
        self.schema, self._cells = schema, cells
        self.reading = PredictionReading() if reading is None else reading
        given: list[Source] = list(sources) if isinstance(sources, list | tuple) else [sources]
        if not given:
            raise ConfigurationError("predictions=[] names no file; give at least one")
        self._files: list[Cells] = []
        try:
            self._open(given)
        except BaseException:
            self.close()
            raise

    def _open(self, given: Sequence[Source]) -> None:
        named = []
        modes = []
        self._embeddings: dict[int, dict[str, np.ndarray]] = {}
        for place, source in enumerate(given):
            title = repr(str(source)) if isinstance(source, str | os.PathLike) else IN_MEMORY
            self._files.append(Cells(source, layer=self.reading.layer))
            facts = read_elements(source, ["uns/causcell"]).get("uns/causcell", {})
            facts = facts if isinstance(facts, Mapping) else {}
            named.append((title, self._files[-1], _settle_estimate(facts, self.reading.estimate, title)))
            modes.append(str(facts.get("mode", "do")))
            keys = ["X_causcell", *(f"X_causcell_{name}" for name in (*self.schema.names, UNEXPLAINED))]
            self._embeddings[place] = read_embeddings(source, keys, len(self._files[-1]))
        if len(set(modes)) > 1:
            raise ConfigurationError(
                f"the predictions were made in several modes ({format_list(dict.fromkeys(modes))}); judge each mode's "
                "files in a run of their own"
            )
        self.modes = (modes[0],)
        self.titles = tuple(title for title, _, _ in named)
        self.rows = read_rows(named, self._cells.names, self.schema, self._cells.labels)
        self.preprocessing = self._choose_panel()
        self._readers = [self._make_reader(title, file) for title, file, _ in named]
        self._totals = [
            None if self.reading.totals is None else read_totals(file, self.reading.totals) for file in self._files
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()

    @property
    def estimates(self) -> tuple[Estimate, ...]:
        """Kinds of estimate that rows are of a cell's expression: ``mean``, ``sample`` or both."""
        return tuple(each for i, each in enumerate(ESTIMATES) if (self.rows.estimate == i).any())

    @property
    def has_embeddings(self) -> bool:
        """Tell whether a file has embeddings."""
        return any(self._embeddings.values())

    def covers(self, cells: anndata.AnnData, do: Mapping[str, str], estimate: Estimate | None = None) -> np.ndarray:
        """Tell which cells have a row, bool [n]; see `causcell.evaluation.predictor.Predictor.covers`."""
        rows, intervention = self._places(cells), Intervention.of(self.schema, do)
        kinds = ESTIMATES if estimate is None else (estimate,)
        return np.asarray(np.any([self.rows.covers(rows, intervention, kind) for kind in kinds], axis=0))

    def predict(
        self, cells: anndata.AnnData, do: Mapping[str, str], *, estimate: Estimate, mode: str = "do", seed: int = 0
    ) -> np.ndarray | None:
        """Read the first draw of each cell, float32 [n x G]; `None` unless each has a row of this estimate."""
        rows, intervention = self._places(cells), Intervention.of(self.schema, do)
        start, stop = self.rows.find(rows, intervention, estimate)
        return self._read(start) if (stop > start).all() else None

    def expect(
        self, cells: anndata.AnnData, do: Mapping[str, str], *, mode: str = "do", seed: int = 0
    ) -> np.ndarray | None:
        """Read mean estimates; where there are none, samples averaged over a cell's draws, float32 [n x G]."""
        means = self.predict(cells, do, estimate="mean")
        if means is not None:
            return means
        rows, intervention = self._places(cells), Intervention.of(self.schema, do)
        start, stop = self.rows.find(rows, intervention, "sample")
        if not (stop > start).all():
            return None
        total = np.zeros((len(rows), len(self.preprocessing.genes)), dtype=np.float64)
        for draw in range(int((stop - start).max())):
            drawn = start + draw < stop
            total[drawn] += self._read(start[drawn] + draw)
        return np.asarray(total / (stop - start)[:, None], dtype=np.float32)

    def embed(self, cells: anndata.AnnData) -> Embeddings | None:
        """Return the embeddings beside the factual rows of the cells; `None` unless each has some in one file."""
        rows = self._places(cells)
        for place, found in self._embeddings.items():
            for estimate in ESTIMATES:
                start, stop = self.rows.find(rows, _FACTUAL, estimate)
                if found and (stop > start).all() and (self.rows.file[start] == place).all():
                    return self._select_embeddings(place, self.rows.row[start])
        return None

    def _select_embeddings(self, place: int, rows: np.ndarray) -> Embeddings:
        found, file = self._embeddings[place], self._files[place]
        concepts = {
            name.removeprefix("X_causcell_"): each[rows] for name, each in found.items() if name != "X_causcell"
        }
        readings = {}
        for name in self.schema.names:
            if f"{name}_predicted" in file.columns:
                column = file.column(f"{name}_predicted").iloc[rows]
                readings[name] = self.schema.encode(column.to_frame(name).reset_index(drop=True))[
                    :, self.schema.index(name)
                ]
        joint = found.get("X_causcell")
        return Embeddings(concepts, None if joint is None else joint[rows], readings)

    def _places(self, cells: anndata.AnnData) -> np.ndarray:
        return np.asarray(self._cells.names.get_indexer(cells.obs_names.astype(str)))

    def _read(self, rows: np.ndarray) -> np.ndarray:
        """Read the panel expression of rows, float32 [n x G], in the order asked for."""
        expression = np.empty((len(rows), len(self.preprocessing.genes)), dtype=np.float32)
        for place in range(len(self._files)):
            mine = np.flatnonzero(self.rows.file[rows] == place)
            mine = mine[np.argsort(self.rows.row[rows[mine]], kind="stable")]  # as they lie on disk
            totals = self._totals[place]
            for part in batches(len(mine), _READ_ROWS):
                stored = self.rows.row[rows[mine[part]]]
                expression[mine[part]] = self._read_values(place, stored, None if totals is None else totals[stored])
        return expression

    def _read_values(self, place: int, rows: np.ndarray, totals: np.ndarray | None) -> np.ndarray:
        """Read the panel expression of rows of one file; raises `ExpressionError` that names the file."""
        title, names, values = self.titles[place], _RowNames(self._files[place], rows), self._files[place].values(rows)
        data = values.data if sparse.issparse(values) else values
        if data.size and data.min() < 0:
            first = int(
                np.asarray(values.min(axis=1).todense() if sparse.issparse(values) else values.min(axis=1)).argmin()
            )
            raise ExpressionError(
                f"{title} holds negative values (lowest {data.min():.4g}, in row {names[first]!r}), and expression has "
                "none: clip at zero what a method predicts a little below it (adata.X = adata.X.clip(0)), and bring "
                "values that were centred or scaled back to the log scale"
            )
        try:
            return self._readers[place].read(values, names, totals)
        except ExpressionError as error:
            raise ExpressionError(f"{title}: {error}") from error

    def _choose_panel(self) -> Preprocessing:
        """Choose the genes that every file and the cells have."""
        common = set(self._cells.genes).intersection(*(file.genes for file in self._files))
        panel = [gene for gene in self._files[0].genes if gene in common]
        if len(panel) < _MIN_GENES:
            raise GenePanelError(
                f"the predictions and the cells have {len(panel)} genes in common, of "
                f"{format_list(self._files[0].genes, 3)} and {format_list(self._cells.genes, 3)}; genes are matched by "
                "name: give them the same names"
            )
        self.left_out_genes = tuple(dict.fromkeys(g for file in self._files for g in file.genes if g not in common))
        return self._cells.preprocessing(panel)

    def _make_reader(self, title: str, file: Cells) -> PanelReader:
        reading = self.reading
        scale = check_scale(reading.expression)
        if scale == "log1p":  # generated values need not sum to a total: prediction_scale compares them with real ones
            return PanelReader(_make_unit_preprocessing(self.preprocessing.genes, "log1p", ()), file.genes)
        if self._cells.scale == "log1p":
            raise ConfigurationError(
                f"{title} is declared to hold counts, and the cells hold log1p values as given, whose total is not "
                "known; give predictions on the cells' scale (predictions_expression='log1p'), or cells as counts"
            )
        absent = set(self._cells.genes) - set(file.genes)
        if absent and reading.totals is None:
            raise GenePanelError(
                f"{title} lacks {len(absent)} of the {len(self._cells.genes)} genes that a cell's total is taken over: "
                f"{format_list(sorted(absent))}; name the column of its obs with each row's total of counts "
                "(predictions_totals='n_counts'), or give log1p values for a total of 10,000 "
                "(predictions_expression='log1p')"
            )
        counted = () if reading.totals is not None else tuple(self._cells.genes)
        return PanelReader(
            _make_unit_preprocessing(self.preprocessing.genes, "counts", counted),
            file.genes,
            totals=reading.totals,
        )


class _RowNames(Sequence[str]):
    """Names of rows of a file, of which one is read when the message of an error needs it."""

    def __init__(self, file: Cells, rows: np.ndarray) -> None:
        self._file, self._rows = file, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: Any) -> Any:
        row = int(self._rows[place])
        return str(self._file.read_names(slice(row, row + 1))[0])


@dataclass(frozen=True)
class JudgedCells:
    """The cells that predictions are judged by: their names, their genes and the scale of their values.

    Attributes
    ----------
    names
        Names of the cells, an index of str.
    labels
        Their label codes, int [n x m]; -1 is unlabelled.
    genes
        Names of their genes.
    scale
        ``counts``, or ``log1p`` values as given.
    totals
        Column that totals of counts are read from; `None` where they are sums over the genes.
    """

    names: pd.Index
    labels: np.ndarray
    genes: tuple[str, ...]
    scale: Scale
    totals: str | None = None

    def preprocessing(self, panel: Sequence[str]) -> Preprocessing:
        """Return the transformation of the cells' values to expression of a panel; it does not standardise."""
        counted = self.genes if self.scale == "counts" and self.totals is None else ()
        return _make_unit_preprocessing(panel, self.scale, counted)


def _make_unit_preprocessing(panel: Sequence[str], scale: Scale, counted: Sequence[str]) -> Preprocessing:
    unit = np.ones(len(panel), dtype=np.float32)
    return Preprocessing(tuple(panel), scale, tuple(counted), 0 * unit, unit)


def _settle_estimate(facts: Mapping[str, Any], declared: str | None, title: str) -> Estimate:
    """Return what a file holds, by its ``uns["causcell"]`` or by what was declared."""
    store = str(facts.get("store", "expression"))
    if store in ("effects", "embeddings"):
        remedy = "store='expression'" if store == "effects" else "store='expression', or causcell materialize"
        raise DataError(f"{title} is an atlas of {store}, and predictions are expression; write it with {remedy}")
    said = "mean" if store == "summary" else facts.get("estimate")
    if said is None and declared is None:
        raise ConfigurationError(
            f"{title} does not say whether its rows are samples of cells or mean estimates "
            "(uns['causcell']['estimate']); say estimate='sample' or estimate='mean'"
        )
    if said is not None and declared is not None and said != declared:
        raise ConfigurationError(
            f"{title} says that its rows are {said!r} (uns['causcell']), and estimate={declared!r} was declared; leave "
            "estimate= out"
        )
    return check_choice(str(said if said is not None else declared), ESTIMATES, "estimate")
