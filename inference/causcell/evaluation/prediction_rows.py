"""Rows of predictions: of which cell each one is, under which intervention, in which draw, and what it is of it.

A row has ``source_cell`` and ``intervention`` in ``obs``, as the rows of an atlas have, and ``draw`` where there are
several. To set what a cell has already changes nothing: a row of ``stim=ctrl`` for a control cell is a factual one, so
that a grid over all labels has a factual row for every labelled cell. Names are checked here, values as they are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell._internal.choices import suggest
from causcell.cells.collection import Cells
from causcell.concepts import ConceptSchema
from causcell.counterfactual.interventions import Intervention, parse_intervention
from causcell.diffusion.solvers import Estimate
from causcell.errors import ConceptError, DataError, format_list

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = {
    "source_cell": "the name of the cell that a row was predicted for",
    "intervention": "what was set, such as 'stim=IFN', or 'factual'",
}
ESTIMATES: tuple[Estimate, ...] = ("mean", "sample")


@dataclass(frozen=True)
class PredictionRows:
    """Rows of one or more files, sorted by intervention, estimate, cell and draw.

    Attributes
    ----------
    interventions
        Those of the rows, without what the cells have already.
    intervention, estimate
        Places in ``interventions`` and in `ESTIMATES`, int [R].
    cell
        Rows of the cells that they are of, int [R].
    draw
        Numbers of the draws, int [R].
    file, row
        Places among the files, and in the file, int [R].
    """

    interventions: tuple[Intervention, ...]
    intervention: np.ndarray
    estimate: np.ndarray
    cell: np.ndarray
    draw: np.ndarray
    file: np.ndarray
    row: np.ndarray

    def find(self, cells: np.ndarray, intervention: Intervention, estimate: Estimate) -> tuple[np.ndarray, np.ndarray]:
        """Find the rows of some cells.

        Parameters
        ----------
        cells
            Rows of the cells, int [n].
        intervention, estimate
            What is asked for.

        Returns
        -------
        First row here and first one no longer of each cell, int [n] both: a cell's draws are the rows between. They
        are the same where a cell has none.
        """
        if intervention not in self.interventions:
            return np.zeros(len(cells), dtype=np.int64), np.zeros(len(cells), dtype=np.int64)
        place, kind = self.interventions.index(intervention), ESTIMATES.index(estimate)
        order = self.intervention * len(ESTIMATES) + self.estimate
        start, stop = np.searchsorted(order, place * 2 + kind), np.searchsorted(order, place * 2 + kind, side="right")
        block = self.cell[start:stop]
        return start + np.searchsorted(block, cells), start + np.searchsorted(block, cells, side="right")

    def covers(self, cells: np.ndarray, intervention: Intervention, estimate: Estimate) -> np.ndarray:
        """Tell which cells (rows, int [n]) have a row, bool [n]."""
        start, stop = self.find(cells, intervention, estimate)
        return np.asarray(stop > start)

    def names(self, rows: np.ndarray, cell_names: pd.Index) -> np.ndarray:
        """Name rows as an atlas does, ``cell|intervention``, str objects [n]."""
        return np.array(
            [f"{cell_names[self.cell[i]]}|{self.interventions[self.intervention[i]].name}" for i in rows], dtype=object
        )


def read_rows(
    files: Sequence[tuple[str, Cells, Estimate]], cell_names: pd.Index, schema: ConceptSchema, labels: np.ndarray
) -> PredictionRows:
    """Read the rows of files of predictions.

    Parameters
    ----------
    files
        What messages call each file, the file, and what its rows are of a cell's expression.
    cell_names
        Names of the cells that are judged by.
    schema
        Concepts with their labels.
    labels
        Label codes of the cells, int [n x m].

    Raises
    ------
    DataError
        A column is missing, a source cell is none of the cells, or two rows are of the same cell, intervention, draw
        and estimate.
    ConceptError
        An intervention that is not of the form ``concept=label``, or names what there is not.
    """
    interventions = _Interventions()
    columns: dict[str, list[np.ndarray]] = {}
    for place, (title, file, estimate) in enumerate(files):
        names, texts = (_read_column(file, name, title) for name in _COLUMNS)
        found = _find_cells(names, cell_names, title)
        parsed = _parse_interventions(texts, schema, title)
        for name, values in {
            "intervention": np.array([interventions.place(parsed[text]) for text in texts.tolist()]),
            "estimate": np.full(len(found), ESTIMATES.index(estimate)),
            "cell": found,
            "draw": _read_draws(file, title),
            "file": np.full(len(found), place),
            "row": np.arange(len(found)),
        }.items():
            columns.setdefault(name, []).append(values.astype(np.int64))
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    rows = _sort_rows(interventions.found, joined, ("draw", "cell", "estimate", "intervention"))
    _refuse_twins(rows, [title for title, _, _ in files], cell_names)
    return _leave_out_what_cells_have(rows, schema, labels)


class _Interventions:
    """Distinct interventions and their places."""

    def __init__(self) -> None:
        self.found: list[Intervention] = []
        self._places: dict[Intervention, int] = {}

    def place(self, intervention: Intervention) -> int:
        if intervention not in self._places:
            self._places[intervention] = len(self.found)
            self.found.append(intervention)
        return self._places[intervention]


def _sort_rows(
    interventions: Sequence[Intervention], columns: Mapping[str, np.ndarray], keys: Sequence[str]
) -> PredictionRows:
    """Sort rows by keys, the last one first."""
    order = np.lexsort([columns[key] for key in keys])
    kept = {field.name: columns[field.name][order] for field in fields(PredictionRows) if field.name in columns}
    return PredictionRows(tuple(interventions), **kept)


def _leave_out_what_cells_have(rows: PredictionRows, schema: ConceptSchema, labels: np.ndarray) -> PredictionRows:
    """Name each row by what it changes: targets that its cell has already are left out, unless others change them.

    Where several rows then say the same of a cell, those of the plainest intervention are kept.
    """
    found = _Interventions()
    changed = np.empty(len(rows.cell), dtype=np.int64)
    for place, each in enumerate(rows.interventions):
        mine = np.flatnonzero(rows.intervention == place)
        concepts, codes = [i for i, _ in each.targets], np.array([code for _, code in each.targets], dtype=np.int64)
        has = labels[rows.cell[mine]][:, concepts] == codes
        for pattern in np.unique(has, axis=0):
            acted = [target for target, own in zip(each.targets, pattern, strict=True) if not own]
            own = {i for i, _ in each.targets} - {i for i, _ in acted}
            if schema.descendants(i for i, _ in acted) & own:  # held against what the others would change
                acted = list(each.targets)
            texts = each.texts(schema)
            named = {schema.names[i]: texts[schema.names[i]] for i, _ in acted}
            changed[mine[(has == pattern).all(axis=1)]] = found.place(Intervention.of(schema, named))
    lengths = np.array([len(each.targets) for each in rows.interventions])
    columns = {field.name: getattr(rows, field.name) for field in fields(rows) if field.name != "interventions"}
    columns |= {"said": rows.intervention, "length": lengths[rows.intervention], "intervention": changed}
    order = np.lexsort([columns[key] for key in ("draw", "said", "length", "cell", "estimate", "intervention")])
    columns = {name: values[order] for name, values in columns.items()}
    keys = np.stack([columns[name] for name in ("intervention", "estimate", "cell")])
    starts = np.flatnonzero(np.r_[True, (keys[:, 1:] != keys[:, :-1]).any(axis=0)])
    plainest = np.repeat(columns["said"][starts], np.diff(np.r_[starts, len(order)]))
    kept = columns["said"] == plainest
    return _sort_rows(
        found.found,
        {name: values[kept] for name, values in columns.items()},
        ("draw", "cell", "estimate", "intervention"),
    )


def _read_column(file: Cells, name: str, title: str) -> np.ndarray:
    if name not in file.columns:
        raise DataError(
            f"{title} has no column {name!r} in obs: {_COLUMNS[name]}; {suggest(name, file.columns)}its columns are "
            f"{format_list(file.columns, 40)}: name each row's cell and intervention, as an atlas does"
        )
    column = file.column(name)
    if column.isna().any():
        raise DataError(f"{title}: obs[{name!r}] is missing in {int(column.isna().sum())} rows; each row needs one")
    return np.asarray(column.astype(str), dtype=object)


def _find_cells(names: np.ndarray, cell_names: pd.Index, title: str) -> np.ndarray:
    """Find the cells of these names, int [n]; raises `DataError` for names of no cell."""
    found = np.asarray(cell_names.get_indexer(names))
    if (found < 0).any():
        strange = sorted(set(names[found < 0].tolist()))
        raise DataError(
            f"{title} has {int((found < 0).sum())} rows whose source_cell is none of the {len(cell_names)} cells: "
            f"{format_list(strange)}; {suggest(strange[0], cell_names[:1000])}give the file of the cells that were "
            "predicted, or leave these rows out"
        )
    return found


def _parse_interventions(texts: np.ndarray, schema: ConceptSchema, title: str) -> dict[str, Intervention]:
    parsed = {}
    for text in dict.fromkeys(texts.tolist()):
        try:
            parsed[text] = parse_intervention(schema, text)
        except ConceptError as error:
            count = int((texts == text).sum())
            raise type(error)(f"{title}: obs['intervention'] is {text!r} in {count} rows: {error}") from error
    return parsed


def _read_draws(file: Cells, title: str) -> np.ndarray:
    if "draw" not in file.columns:
        return np.zeros(len(file), dtype=np.int64)
    column: Any = file.column("draw")
    if column.dtype.kind not in "iu":
        raise DataError(f"{title}: obs['draw'] has values of type {column.dtype}; draws are numbered 0, 1, 2, ...")
    return np.asarray(column)


def _refuse_twins(rows: PredictionRows, titles: Sequence[str], cell_names: pd.Index) -> None:
    keys = np.stack([rows.intervention, rows.estimate, rows.cell, rows.draw])
    twins = np.flatnonzero((keys[:, 1:] == keys[:, :-1]).all(axis=0)) if keys.shape[1] > 1 else np.empty(0, dtype=int)
    if not len(twins):
        return
    places = sorted({titles[rows.file[i]] for i in (*twins, *(twins + 1))})
    raise DataError(
        f"{len(twins)} rows of the predictions stand twice ({format_list(places)}): "
        f"{format_list(rows.names(twins[:8], cell_names))}; give each cell one row an intervention, or number several "
        "samples of it in obs['draw']"
    )
