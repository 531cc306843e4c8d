"""The panel of a model, read from the rows of one file: genes matched by name, values checked, the log scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from causcell.errors import ConfigurationError, ExpressionError, GenePanelError, format_list
from causcell.preprocessing import TARGET_SUM, Matrix, Names, Preprocessing, Scale

_LARGEST_LOG1P = 20.0  # log1p of 5e8, beyond any count of one gene in one cell


def check_gene_names(var_names: Sequence[str]) -> None:
    """Raise `GenePanelError` if a gene name stands twice."""
    names, counts = np.unique(np.asarray(var_names, dtype=object).astype(str), return_counts=True)
    if (counts > 1).any():
        raise GenePanelError(
            f"{int((counts > 1).sum())} gene names are duplicated: {format_list(names[counts > 1])}; genes are "
            "matched by name: make them unique (adata.var_names_make_unique()) or merge them"
        )


def check_values(values: Matrix, scale: Scale, cell_names: Names) -> None:
    """Raise `ExpressionError` unless values [cells x genes] can be what ``scale`` declares."""
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
            "counts, or log1p values (often in adata.raw or a layer)"
        )
    whole = data.dtype.kind in "iu" or bool((data == np.floor(data)).all())
    if scale == "counts" and not whole:
        fraction = data != np.floor(data)
        value = data[fraction].flat[0]
        raise ExpressionError(
            f"expression was declared as counts, but holds {value:.6g} in cell "
            f"{_first_cell(values, fraction, cell_names)!r}; give raw counts (often in adata.raw or a layer), "
            "or declare log1p values (expression='log1p')"
        )
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


def _first_cell(values: Matrix, bad: np.ndarray, cell_names: Names) -> str:
    first = int(np.flatnonzero(bad.ravel())[0])
    if sparse.issparse(values):
        rows = values.tocoo().row
        return str(cell_names[int(rows[first])])
    return str(cell_names[first // values.shape[1]])


class PanelReader:
    """Turn rows of one file into panel expression, genes matched by name.

    Parameters
    ----------
    preprocessing
        Panel, scale and normalisation genes.
    var_names
        The file's genes.
    allow_missing
        Share of panel genes, and of normalisation genes, that may be absent. Absent panel genes are filled with
        the training mean.

    Raises
    ------
    GenePanelError
        Duplicated names, or more genes missing than allowed.
    """

    def __init__(self, preprocessing: Preprocessing, var_names: Sequence[str], *, allow_missing: float = 0.0) -> None:
        if not 0 <= allow_missing < 1:
            raise ConfigurationError(f"allow_missing_genes={allow_missing} is no fraction from 0 to below 1")
        check_gene_names(var_names)
        self._scale = preprocessing.scale
        place = {str(gene): i for i, gene in enumerate(var_names)}
        source = np.array([place.get(gene, -1) for gene in preprocessing.genes])
        self.missing = tuple(np.asarray(preprocessing.genes, dtype=object)[source < 0])
        self._require(self.missing, len(source), "panel genes", allow_missing, place, preprocessing.genes)
        self._panel_column = np.full(len(var_names), -1)  # file column -> panel column
        self._panel_column[source[source >= 0]] = np.flatnonzero(source >= 0)
        self._fill = np.where(source < 0, preprocessing.mean, 0).astype(np.float32)
        self._in_total: np.ndarray | None = None
        if self._scale == "counts":
            absent = [gene for gene in preprocessing.normalisation_genes if gene not in place]
            total = len(preprocessing.normalisation_genes)
            self._require(absent, total, "genes that a cell's total is taken over", allow_missing, place, ())
            columns = [place[gene] for gene in preprocessing.normalisation_genes if gene in place]
            if len(columns) < len(var_names):
                self._in_total = np.zeros(len(var_names), dtype=bool)
                self._in_total[columns] = True

    @staticmethod
    def _require(
        absent: Sequence[str], total: int, what: str, allowed: float, place: dict[str, int], genes: Sequence[str]
    ) -> None:
        if not absent or len(absent) / total <= allowed:  # the quotient, not allowed * total: 0.29 * 100 < 29
            return
        hint = ""
        upper = {name.upper() for name in place}
        if genes and sum(gene.upper() in upper for gene in genes) > total - len(absent):
            hint = " (more match when upper and lower case are ignored: is it another species, or another spelling?)"
        needed = np.ceil(100 * len(absent) / total) / 100
        remedy = f", or allow it with allow_missing_genes={needed:.2f}" if needed < 1 else ""
        raise GenePanelError(
            f"{len(absent)} of {total} {what} are missing: {format_list(absent)}{hint}; give a file that has "
            f"them{remedy}"
        )

    def read(self, values: Matrix, cell_names: Names) -> np.ndarray:
        """Read the panel expression of a file's rows.

        Parameters
        ----------
        values
            The file's values, [B x file genes].
        cell_names
            Names of the rows' cells, for messages.

        Returns
        -------
        Log scale, float32 [B x G].

        Raises
        ------
        ExpressionError
            Values that are not of the declared scale, or a cell without a single count.
        """
        check_values(values, self._scale, cell_names)
        if not sparse.issparse(values):
            return self._read_dense(np.asarray(values), cell_names)
        csr = values.tocsr()
        if not csr.has_canonical_format:
            csr = csr.copy()
            csr.sum_duplicates()
        rows = np.repeat(np.arange(csr.shape[0]), np.diff(csr.indptr))
        data = csr.data.astype(np.float32)
        if self._scale == "counts":
            counted = data if self._in_total is None else data * self._in_total[csr.indices]
            totals = np.bincount(rows, weights=counted, minlength=csr.shape[0])
            factors = _size_factors(totals, cell_names)
            data = np.log1p(data * factors[rows])
        columns = self._panel_column[csr.indices]
        in_panel = columns >= 0
        expression = np.zeros((csr.shape[0], len(self._fill)), dtype=np.float32)
        expression[rows[in_panel], columns[in_panel]] = data[in_panel]
        return self._filled(expression)

    def _read_dense(self, values: np.ndarray, cell_names: Names) -> np.ndarray:
        file_columns = np.flatnonzero(self._panel_column >= 0)
        expression = np.zeros((len(values), len(self._fill)), dtype=np.float32)
        panel = values[:, file_columns].astype(np.float32)
        if self._scale == "counts":
            counted = values if self._in_total is None else values[:, self._in_total]
            panel = np.log1p(panel * _size_factors(counted.sum(axis=1, dtype=np.float64), cell_names)[:, None])
        expression[:, self._panel_column[file_columns]] = panel
        return self._filled(expression)

    def _filled(self, expression: np.ndarray) -> np.ndarray:
        if self.missing:
            expression += self._fill
        return expression


def _size_factors(totals: np.ndarray, cell_names: Names) -> np.ndarray:
    empty = totals <= 0
    if empty.any():
        names = [cell_names[int(i)] for i in np.flatnonzero(empty)]
        raise ExpressionError(
            f"{len(names)} cells have no counts at all: {format_list(names)}; an empty cell has no expression: "
            "remove them (scanpy.pp.filter_cells(adata, min_counts=1))"
        )
    return (TARGET_SUM / totals).astype(np.float32)
