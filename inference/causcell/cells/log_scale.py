"""Scale of log1p values: the total and the base that a cell's values were made with, and those that a model needs.

Over the genes that a cell's counts were scaled to a total over, expm1 of its log1p values sums to that total. A model
of counts knows its genes and its total (10,000), so that another total, or another base of the logarithm, shows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from causcell._internal.telling import warn
from causcell.errors import ExpressionError
from causcell.preprocessing import SUM_QUANTILES, TARGET_SUM, Names

BASES: tuple[float, ...] = (math.e, 2.0, 10.0)
"""Bases of logarithms that are told apart."""

TOLERANCE = 0.01
"""Share of the total that a cell's sum may be off: float16 rounds values by up to .4 %, two decimals by .5 %, and 1 %
of the total is a hundredth on the log scale."""

_SPREAD = 0.02
"""Spread of sums over cells, as a share of their median, below which they are one total."""

_MULTIPLES = 0.03
_ROWS_LOOKED_AT = 64
_MIN_ROWS = 8
_MIN_MULTIPLES = 3
_MIN_MULTIPLES_OF_ALL = 20
_LARGEST_MULTIPLE = 20.5
_ODDS = 3.0
"""Factor between the odds of the share of missing genes in training cells and in others, beyond which constant sums are
another total: cell types differ in it, but then from cell to cell too."""

_WIDENED = 1.05
"""How far beyond the training cells' sums others may lie."""

_NORMALISE = "normalise raw counts by scanpy.pp.normalize_total(adata, target_sum=1e4) and scanpy.pp.log1p(adata)"


@dataclass(frozen=True)
class LogScale:
    """Total and base that log1p values were made with: log_base(1 + total * count / sum of counts)."""

    total: float
    base: float

    def describe(self) -> str:
        """Return the scale in words."""
        name = "natural logarithms" if self.base == math.e else f"logarithms of base {self.base:g}"
        return f"{name} for a total of {self.total:,.0f} a cell"

    def remedy(self) -> str:
        """Return how such values become those for a total of 10,000."""
        right = math.isclose(self.total, TARGET_SUM, rel_tol=TOLERANCE)
        power = "np.expm1(X)" if self.base == math.e else f"({self.base:g}**X - 1)"
        if self.base != math.e and right:
            return f"multiply them by ln {self.base:g} = {math.log(self.base):.6f}"
        return f"{_NORMALISE}, or give np.log1p({power} * {TARGET_SUM / self.total:.6g})"


def unit_deviation(values: sparse.csr_matrix, base: float | None) -> float:
    """Measure how far a cell's values are from whole multiples of its smallest one.

    Parameters
    ----------
    values
        [cells x genes], float64; cells of one gene or none do not count.
    base
        Take base ** value - 1 in place of the values; `None`: the values themselves.

    Returns
    -------
    Mean distance from whole numbers of a cell's multiples from 1.5 to 20.5, median over cells: about 0 if they are
    counts times a number, 0.25 if they are anything; 1 where cells have less than three of them, or all less than 20.
    """
    data = values.data if base is None else np.expm1(values.data * math.log(base))
    positive = np.where(data > 0, data, np.inf)
    entries = np.diff(values.indptr)
    if not entries.any():
        return 1.0
    rows = np.repeat(np.arange(len(entries)), entries)
    least = np.full(len(entries), np.inf)
    least[entries > 0] = np.minimum.reduceat(positive, values.indptr[:-1][entries > 0])
    multiples = data / least[rows]
    used = (multiples > 1.5) & (multiples < _LARGEST_MULTIPLE)
    distance = np.abs(multiples - np.rint(multiples)) * used
    count = np.bincount(rows, weights=used, minlength=len(entries))
    told = count >= _MIN_MULTIPLES
    if count[told].sum() < _MIN_MULTIPLES_OF_ALL:
        return 1.0
    return float(np.median(np.bincount(rows, weights=distance, minlength=len(entries))[told] / count[told]))


def power_sums(values: sparse.csr_matrix, base: float) -> np.ndarray:
    """Sum base ** value - 1 over the genes of each cell, float64 [cells]."""
    rows = np.repeat(np.arange(values.shape[0]), np.diff(values.indptr))
    return np.bincount(rows, weights=np.expm1(values.data * math.log(base)), minlength=values.shape[0])


def find_scale(values: sparse.csr_matrix) -> LogScale | None:
    """Find total and base of log1p values [cells x genes] that have all genes of the total; `None` if there is none.

    The base is the one that the cells' sums are constant under, or, of a single cell, that its values are multiples of
    the smallest under.
    """
    some = values[:_ROWS_LOOKED_AT].astype(np.float64)
    some = some[np.diff(some.indptr) > 0]
    if not some.shape[0]:
        return None
    sums = {base: power_sums(some, base) for base in BASES}
    spreads = {base: float(np.ptp(each) / np.median(each)) for base, each in sums.items()}
    constant = [base for base in BASES if spreads[base] < _SPREAD]
    if len(constant) > 1:
        constant.sort(key=lambda base: unit_deviation(some, base))
        if some.shape[0] == 1 and unit_deviation(some, constant[0]) > _MULTIPLES:
            return None
    return LogScale(float(np.median(sums[constant[0]])), constant[0]) if constant else None


@dataclass(frozen=True)
class LogScaleCheck:
    """Check of log1p values that are given to a model of counts.

    Attributes
    ----------
    present, genes
        How many of the genes that a cell's total is taken over the file has, and how many there are; `None` where that
        is not known, and those present are the panel's.
    missing_share
        Share of the total that the missing ones carry in training cells; `None` if it is not known.
    """

    present: int
    genes: int | None
    missing_share: float | None

    @property
    def complete(self) -> bool:
        """Tell whether the file has all genes of the total."""
        return self.present == self.genes

    def check(self, sums: np.ndarray, values: sparse.csr_matrix, whole: np.ndarray, cell_names: Names) -> None:
        """Raise `ExpressionError` for values of another total or base.

        Parameters
        ----------
        sums
            Sum of expm1 over the genes of the total that the file has, float64 [cells].
        values
            Values of these genes, [cells x genes].
        whole
            Sum of expm1 over all genes of the file, float64 [cells].
        cell_names
            Names of the cells, for messages.
        """
        low = TARGET_SUM * (1 - TOLERANCE) if self.complete else 0.0
        wrong = (sums > TARGET_SUM * (1 + TOLERANCE)) | (sums < low)
        if wrong.any():
            self._raise(int(np.flatnonzero(wrong)[0]), sums, values, whole, cell_names)
        if self.complete or not len(sums):
            return
        found = self._find_other_total(sums) or self._find_other_base(values)
        if found is not None:
            raise ExpressionError(
                f"expression was declared as log1p, but the values are {found}, first in cell {str(cell_names[0])!r}; "
                f"this model needs {LogScale(TARGET_SUM, math.e).describe()}: {_NORMALISE}, before genes are left out"
            )

    def _over(self) -> str:
        if self.genes is None:
            return f"the {self.present} panel genes in the file"
        if self.complete:
            return f"the {self.genes} genes that a cell's total is taken over"
        return f"the {self.present} genes in the file of the {self.genes} that a cell's total is taken over"

    def _raise(
        self, first: int, sums: np.ndarray, values: sparse.csr_matrix, whole: np.ndarray, cell_names: Names
    ) -> None:
        name = str(cell_names[first])
        if self.complete and sums[first] == 0:
            raise ExpressionError(
                f"cell {name!r} has no expression at all; an empty cell can't be used: remove it "
                "(scanpy.pp.filter_cells(adata, min_counts=1))"
            )
        needed = "10,000" if self.complete else "at most 10,000"
        raise ExpressionError(
            f"expression was declared as log1p, but expm1 of it sums to {_number(sums[first])} in cell {name!r}, over "
            f"{self._over()}, and this model needs {needed}: {self._explain(sums, values, whole)}"
        )

    def _explain(self, sums: np.ndarray, values: sparse.csr_matrix, whole: np.ndarray) -> str:
        """Return what the values are, and the remedy."""
        some = values[:_ROWS_LOOKED_AT].astype(np.float64)
        raised = np.expm1(some.data)
        if len(raised) and np.abs(raised - np.rint(raised)).max() < _MULTIPLES and raised.max() > 1:
            return f"the values are log1p of counts that were not scaled to a total; {_NORMALISE}, or give the counts"
        if not np.allclose(whole, sums, rtol=TOLERANCE) and np.allclose(whole, TARGET_SUM, rtol=TOLERANCE):
            return (
                "the values are for a total of 10,000 over all genes of the file; leave out the genes that the model "
                "does not know before normalising, or give raw counts"
            )
        scale = find_scale(values)
        if scale is not None:
            return f"the values are {scale.describe()}; {scale.remedy()}, or give raw counts"
        base = self._find_other_base(values)
        return (
            f"{f'the values are {base}' if base else 'no total is the same in all cells'} (sums from "
            f"{_number(sums.min())} to {_number(sums.max())}); {_NORMALISE}, or give raw counts"
        )

    def _find_other_total(self, sums: np.ndarray) -> str | None:
        """Describe the total of a file that lacks genes: where sums are the same in all cells, and unlike the share."""
        share = self.missing_share
        if share is None or len(sums) < _MIN_ROWS or share >= 1:
            return None
        middle = float(np.median(sums))
        if not middle or np.ptp(sums) > _SPREAD * middle:
            return None
        if share > TOLERANCE * 5 and abs(middle / TARGET_SUM - 1) < TOLERANCE:
            return (
                f"for a total of 10,000 over {self._over()}, which carry {1 - share:.0%} of it in training cells: they "
                "were normalised after genes were left out"
            )
        missing = 1 - middle / TARGET_SUM
        far = missing / (1 - missing) > _ODDS * share / (1 - share)
        if far and middle < TARGET_SUM * (1 - share) * (1 - 5 * TOLERANCE):
            return LogScale(middle / (1 - share), math.e).describe()
        return None

    @staticmethod
    def _find_other_base(values: sparse.csr_matrix) -> str | None:
        """Describe the base of values that are multiples of one number in each cell, where it is not e."""
        some = values[:_ROWS_LOOKED_AT].astype(np.float64)
        deviations = {base: unit_deviation(some, base) for base in BASES}
        base = min(BASES, key=deviations.__getitem__)
        if base == math.e or deviations[base] > _MULTIPLES or deviations[math.e] < 3 * _MULTIPLES:
            return None
        return f"logarithms of base {base:g}"


def _number(value: float) -> str:
    """Format a sum: 123,456 or 1.23."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


class SumWatch:
    """Warn once if sums of expm1 over the panel lie outside those of the training cells.

    Parameters
    ----------
    panel_sums
        See `causcell.preprocessing.Preprocessing`.
    cells
        Number of cells of the file.
    present
        Share of the panel's genes that the file has.
    reason
        What such sums tell, and the remedy; ``{times}`` is how many times the training cells' they are.
    """

    def __init__(self, panel_sums: np.ndarray, cells: int, present: float, reason: str) -> None:
        quantiles = dict(zip(SUM_QUANTILES, panel_sums.tolist(), strict=True))
        self._low, self._middle, self._high = quantiles[0.001] * present, quantiles[0.5], quantiles[0.999]
        self._wanted, self._reason = min(cells, _ROWS_LOOKED_AT), reason
        self._seen: list[np.ndarray] = []
        self._told = False

    def see(self, sums: np.ndarray) -> None:
        """Take the sums of further cells, float64 [cells], and judge them by their median when there are enough."""
        if self._told:
            return
        self._seen.append(sums)
        count = sum(map(len, self._seen))
        if count < self._wanted:
            return
        median = float(np.median(np.concatenate(self._seen)))
        self._seen = []
        if self._low / _WIDENED <= median <= self._high * _WIDENED:
            return
        self._told = True
        times = _number(median / self._middle) if self._middle else "many"
        low, middle, high = map(_number, (self._low, self._middle, self._high))
        reason = self._reason.replace("{times}", times)
        warn(
            f"expm1 of the panel's expression sums to {_number(median)} in the median of {count} cells, and to {low} "
            f"to {high} (median {middle}) in the cells that the model was trained on: {reason}"
        )
