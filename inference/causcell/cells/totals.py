"""Totals of cells from a column of ``obs``: where a file lacks genes that they count."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from causcell._internal.choices import suggest
from causcell.cells.table import CellTable
from causcell.errors import DataError, ExpressionError, format_list
from causcell.preprocessing import Names

_ROUNDING = 1e-3
"""Share of a total that a column may lie below the counts: columns are stored as float32, or rounded."""

_TOLERANCE = 0.01
"""Share of a total that a column may lie above exact sums, as of `causcell.cells.log_scale.TOLERANCE`."""

_USUAL = ("n_counts", "total_counts", "nCount_RNA", "ncounts", "n_umi", "nUMI", "n_UMI", "library_size", "total_umis")


def read_totals(cells: CellTable, column: str) -> np.ndarray:
    """Read the totals of all cells from a column.

    Parameters
    ----------
    cells
        Opened cells.
    column
        Column of ``obs``.

    Returns
    -------
    float64 [n].

    Raises
    ------
    DataError
        There is no such column, or it does not hold numbers.
    ExpressionError
        A total that is missing, infinite or not positive.
    """
    if column not in cells.columns:
        raise DataError(
            f"totals={column!r} is no column of obs; {suggest(column, cells.columns)}its columns are "
            f"{format_list(cells.columns, 40)}"
        )
    values = cells.column(column)
    if values.dtype.kind not in "iuf":
        raise DataError(f"totals={column!r} has values of type {values.dtype}, and totals are numbers of counts")
    totals = values.to_numpy(dtype=np.float64, na_value=np.nan)
    bad = ~(np.isfinite(totals) & (totals > 0))
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        name = cells.read_names(slice(first, first + 1))[0]
        raise ExpressionError(
            f"totals={column!r} holds {totals[first]:g} for cell {str(name)!r}, the first of {int(bad.sum())}; totals "
            "are positive and finite: leave these cells out, or give another column"
        )
    return np.asarray(totals)


def check_sums(sums: np.ndarray, totals: np.ndarray, column: str, cell_names: Names, *, exact: bool = False) -> None:
    """Check totals of a column against the counts in the file.

    Parameters
    ----------
    sums
        Sums of the counts, float64 [cells].
    totals
        Totals of the column, float64 [cells].
    column, cell_names
        Their names, for messages.
    exact
        Whether the sums are over all genes of the model's totals, so that a larger total counts other genes.

    Raises
    ------
    ExpressionError
        A total is below its sum; or above it, where the sum is exact.
    """
    low = totals < sums * (1 - _ROUNDING)
    if low.any():
        first = int(np.flatnonzero(low)[0])
        raise ExpressionError(
            f"totals={column!r} holds {totals[first]:,.6g} for cell {str(cell_names[first])!r}, whose counts in the "
            f"file sum to {sums[first]:,.6g} already; give a column with the total of all counts of a cell"
        )
    high = totals > sums * (1 + _TOLERANCE)
    if exact and high.any():
        first = int(np.flatnonzero(high)[0])
        raise ExpressionError(
            f"totals={column!r} holds {totals[first]:,.6g} for cell {str(cell_names[first])!r}, and the genes that "
            f"this model takes a total over, all of which the file has, sum to {sums[first]:,.6g}; leave totals= out: "
            "the sums are right, and the column counts other genes too"
        )


def advise_column(columns: Iterable[str]) -> str:
    """Return the column that likely holds totals, or the usual name of one."""
    known = set(columns)
    return next((name for name in _USUAL if name in known), _USUAL[0])
