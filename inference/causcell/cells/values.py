"""Values of a file: whether they can be what was declared, what they look like where not, and counts made whole."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from scipy import sparse

from causcell.cells.log_scale import BASES, find_scale, power_sums, unit_deviation
from causcell.errors import ExpressionError
from causcell.preprocessing import Matrix, Names, Scale

_LARGEST_LOG1P = 20.0  # log1p of 5e8, beyond any count of one gene in one cell

_NEARLY_WHOLE = 1e-3
"""Distance from a whole number that floating point explains; of large counts `_ROUNDING` times the count, more."""

_ROUNDING = 1e-6
_MULTIPLES = 0.03
"""Mean distance of multiples of a unit from whole numbers, up to which they are multiples: others have a quarter."""

_CONSTANT = 1e-3
_NEAR_ONE = 0.05
"""How far from 1 the number may be that a cell's counts were multiplied by, and rounding still finds the counts: one
divided by a total that had been rounded, or counted other genes too. It has to hold for `_MOST_CELLS`."""

_MOST_CELLS = 0.9
_LARGEST_LEAST = 3

_ROWS_LOOKED_AT = 64

_MOST_CHANGED = 0.2
"""Share of the counts that rounding may change."""

Look: TypeAlias = Literal["nearly whole", "log1p", "normalised", "brought back", "scaled", "fractional"]

_SUPPLY = "give raw counts (often in adata.raw, raw=True, or in a layer)"
_LOOKS: dict[Look, str] = {
    "nearly whole": "whole but for {deviation:.1g}, as counts that went through floating point are; round "
    "them (round_counts=True)",
    "log1p": f"as log1p values are; {_SUPPLY}, or declare log1p values (expression='log1p')",
    "normalised": f"as counts scaled in each cell are, without a logarithm; {_SUPPLY}, or log1p values "
    "(expression='log1p')",
    "brought back": "as counts that were normalised and brought back are; round them (round_counts=True), or give the "
    "raw counts (often in adata.raw, raw=True, or in a layer)",
    "scaled": "as counts times {unit:.4g} are; give the counts (divide by it), or round them (round_counts=True)",
    "fractional": f"as log1p values are, or counts corrected for ambient RNA or estimated from reads; {_SUPPLY}, "
    "declare log1p values (expression='log1p'), or round such counts (round_counts=True)",
}


def check_values(values: Matrix, scale: Scale, cell_names: Names, *, round_counts: bool = False) -> None:
    """Check that values can be what is declared.

    Parameters
    ----------
    values
        [cells x genes].
    scale
        What was declared.
    cell_names
        Names of the cells, for messages.
    round_counts
        Whether counts that are not whole may be rounded: those that floating point or a correction left. Values that
        look like log1p or normalised ones are refused still.

    Raises
    ------
    ExpressionError
        They can't.
    """
    data = values.data if sparse.issparse(values) else np.asarray(values)
    if data.size == 0:
        return
    low, high = data.min(), data.max()  # NaN and infinities show in these
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = ~np.isfinite(data)
        raise ExpressionError(
            f"expression holds {int(bad.sum())} NaN or infinite values, first in cell "
            f"{_first_cell(values, bad, cell_names)!r}; missing values can't be used: impute or remove them"
        )
    if low < 0:
        raise ExpressionError(
            f"expression holds negative values (lowest {low:.4g}), first in cell "
            f"{_first_cell(values, data < 0, cell_names)!r}; scaled or corrected values can't be used: give raw "
            "counts, or log1p values (often in adata.raw, raw=True, or in a layer)"
        )
    whole = data.dtype.kind in "iub" or bool((data == np.floor(data)).all())
    if scale == "counts" and not whole:
        _check_fractions(values, data, cell_names, round_counts)
    if scale == "log1p" and whole and high > 1:
        raise ExpressionError(
            f"expression was declared as log1p, but holds whole numbers only (up to {high:.6g}), which raw counts are; "
            "declare counts (expression='counts'), or give log1p values"
        )
    if scale == "log1p" and high > _LARGEST_LOG1P:
        raise ExpressionError(
            f"expression was declared as log1p, but holds {high:.6g}, more than any log1p value can be "
            f"({_LARGEST_LOG1P:g}); give log1p values (scanpy.pp.log1p), or declare counts"
        )


def guess_scale(values: Matrix) -> Scale:
    """Guess what values [cells x genes] of no declared scale are: log1p values where they look so, else counts."""
    data = values.data if sparse.issparse(values) else np.asarray(values)
    if not data.size or not np.isfinite(data).all() or data.min() < 0:
        return "counts"  # which is refused, whatever it is
    if _is_nearly_whole(data) or data.max() > _LARGEST_LOG1P:
        return "counts"
    return "log1p" if recognise(values) in ("log1p", "fractional") else "counts"


def round_to_counts(values: Matrix) -> Matrix:
    """Round values [cells x genes] to whole numbers; the input is left as it is."""
    if not sparse.issparse(values):
        return np.rint(values)
    rounded = values.copy()
    rounded.data = np.rint(values.data)
    return rounded


def _check_fractions(values: Matrix, data: np.ndarray, cell_names: Names, round_counts: bool) -> None:
    """Raise `ExpressionError` for values declared as counts that are not whole, unless they are rounded."""
    precise = data.astype(np.float64)
    distance = np.abs(precise - np.rint(precise))
    look: Look = "nearly whole" if _is_nearly_whole(data) else recognise(values)
    changed = np.abs(np.rint(precise).sum() / precise.sum() - 1)
    if round_counts and changed <= _MOST_CHANGED and look not in ("log1p", "normalised"):
        return
    fraction = distance > 0
    holds = (
        f"expression was declared as counts, but holds {data[fraction].flat[0]:.9g} in cell "
        f"{_first_cell(values, fraction, cell_names)!r}"
    )
    if round_counts and changed > _MOST_CHANGED:
        raise ExpressionError(
            f"{holds}, and rounding would change the cells' sum by {changed:.0%}: these are no counts; {_SUPPLY}"
        )
    told = _LOOKS[look].format(deviation=distance.max(), unit=precise[precise > 0].min())
    rounded = ", and can't be rounded" if round_counts else ""
    raise ExpressionError(f"{holds}{rounded}; it looks {told}")


def _is_nearly_whole(data: np.ndarray) -> bool:
    precise = data.astype(np.float64)
    return bool((np.abs(precise - np.rint(precise)) <= _NEARLY_WHOLE + _ROUNDING * np.abs(precise)).all())


def recognise(values: Matrix) -> Look:
    """Tell what values [cells x genes] that are not all whole look like, from up to 64 of the cells.

    Counts of a cell that were scaled are multiples of one number, and differ in it from cell to cell; of log1p values
    that is true of their expm1. Values of a whole file also sum to one total. Corrected counts are neither.
    """
    some = sparse.csr_matrix(values[:_ROWS_LOOKED_AT], dtype=np.float64)
    if not some.nnz:
        return "fractional"
    plain = unit_deviation(some, None)
    logarithmic = [unit_deviation(some, base) for base in BASES] if some.data.max() <= _LARGEST_LOG1P else []
    if min(logarithmic, default=1.0) < min(_MULTIPLES, plain):
        return "log1p"
    if plain < _MULTIPLES:
        entries = np.diff(some.indptr)
        units = np.minimum.reduceat(some.data, some.indptr[:-1][entries > 0])
        unit = units.min()
        if np.abs(units / unit - np.rint(units / unit)).max() > _CONSTANT:  # each cell by a number of its own
            count = np.clip(np.rint(units), 1, _LARGEST_LEAST)  # of the least gene of a cell
            near = np.abs(units / count - 1) < _NEAR_ONE
            return "brought back" if near.mean() > _MOST_CELLS else "normalised"
        return "fractional" if abs(unit - 1) < _CONSTANT else "scaled"
    if some.shape[0] == 1:
        return "fractional"
    if _is_constant(np.asarray(some.sum(axis=1)).ravel()):
        return "normalised"
    if logarithmic and any(_is_constant(power_sums(some, base)) for base in BASES):
        return "log1p"
    return "log1p" if logarithmic and some.shape[0] > 3 and find_scale(some) is not None else "fractional"


def _is_constant(sums: np.ndarray) -> bool:
    return bool(np.ptp(sums) < _CONSTANT * sums.mean())


def _first_cell(values: Matrix, bad: np.ndarray, cell_names: Names) -> str:
    first = int(np.flatnonzero(bad.ravel())[0])
    if sparse.issparse(values):
        rows = values.tocoo().row
        return str(cell_names[int(rows[first])])
    return str(cell_names[first // values.shape[1]])
