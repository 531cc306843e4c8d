"""Labels and numbers of cells by rows: assembled at once where they are few, else read as they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from causcell.cells.by_rows import ByRows
from causcell.cells.collection import AnyCells, Cells
from causcell.cells.file_source import FileSource
from causcell.concept_encoding import encode_column
from causcell.concepts import ConceptSchema
from causcell.errors import CausCellError

if TYPE_CHECKING:
    import pandas as pd


def can_read_by_rows(cells: AnyCells, schema: ConceptSchema) -> bool:
    """Tell whether labels are better read by rows: there are many cells, or a worker reads a few of them.

    Values that are no numbers, such as sets, are looked at together, as `causcell.cells.untrained` does.
    """
    if not cells.read_by_rows or any(each.value and not each.value.is_number for each in schema.concepts):
        return False
    return all(isinstance(part.file, FileSource) for part in cells.parts)


def label_rows(cells: AnyCells, schema: ConceptSchema, whole: Callable[[], object]) -> ByRows:
    """Return the label codes of cells, int32 [n x m], read by rows.

    Parameters
    ----------
    cells, schema
        The cells, and the concepts.
    whole
        Assembles all labels: called for its message, where those of some rows can't be.
    """

    def read(part: Cells, rows: slice) -> np.ndarray:
        try:
            return schema.encode(_read_columns(part, schema.names, rows))
        except CausCellError:
            whole()
            raise

    return _by_rows(cells, read)


def number_rows(cells: AnyCells, schema: ConceptSchema) -> ByRows:
    """Return the standardised numbers of cells, float32 [n x c], of concepts that have some, read by rows."""
    names = [schema.concepts[i].name for i in schema.numeric]
    return _by_rows(cells, lambda part, rows: _encode_numbers(_read_columns(part, names, rows), schema))


def all_numbers(cells: AnyCells, schema: ConceptSchema) -> np.ndarray:
    """Read the standardised numbers of all cells, float32 [n x c], NaN where a cell has none."""
    names = [schema.concepts[i].name for i in schema.numeric]
    found = (part.read_obs([name for name in names if name in part.columns]) for part in cells.parts)
    return np.concatenate([_encode_numbers(obs, schema) for obs in found])


def _encode_numbers(obs: pd.DataFrame, schema: ConceptSchema) -> np.ndarray:
    concepts = [schema.concepts[i] for i in schema.numeric]
    numbers = np.full((len(obs), len(concepts)), np.nan, dtype=np.float32)
    for place, each in enumerate(concepts):
        if each.name in obs:
            numbers[:, place] = encode_column(obs, each.name, each.labels, each.value)[1][:, 0]
    return numbers


def _read_columns(part: Cells, names: Sequence[str], rows: slice) -> pd.DataFrame:
    return part.file.read_columns([name for name in names if name in part.columns], part.places(rows))


def _by_rows(cells: AnyCells, read: Callable[[Cells, slice], np.ndarray]) -> ByRows:
    def read_all(rows: slice) -> np.ndarray:
        pieces = [read(part, within) for _, part, within in cells.split_rows(rows)]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    return ByRows(len(cells), read_all)
