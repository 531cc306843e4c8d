"""The panel of a model, read from the rows of one file: genes matched by name, values checked, the log scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from causcell.cells.log_scale import LogScaleCheck, SumWatch
from causcell.cells.names import find_genes, number_genes
from causcell.cells.totals import check_sums
from causcell.cells.values import check_values, round_to_counts
from causcell.errors import ConfigurationError, ExpressionError, GenePanelError, format_list
from causcell.preprocessing import TARGET_SUM, Matrix, Names, Preprocessing, Scale


def check_gene_names(var_names: Sequence[str]) -> None:
    """Raise `GenePanelError` if a gene name stands twice."""
    if len(set(var_names)) == len(var_names):
        return
    names, counts = np.unique(np.asarray(var_names, dtype=object).astype(str), return_counts=True)
    if (counts > 1).any():
        raise GenePanelError(
            f"{int((counts > 1).sum())} gene names are duplicated: {format_list(names[counts > 1])}; genes are "
            "matched by name: make them unique (adata.var_names_make_unique()) or merge them"
        )


@dataclass(frozen=True)
class MissingTotals:
    """Genes of a cell's total that a file lacks.

    Attributes
    ----------
    genes
        Their names.
    count
        Number of all genes that a cell's total is taken over.
    share
        Share of the total that they carry, mean over the training cells; `None` for a model that does not know.
    """

    genes: tuple[str, ...]
    count: int
    share: float | None

    @property
    def judged_share(self) -> float:
        """Share that is compared with what is allowed: of the total where it is known, else of the genes' number."""
        return len(self.genes) / self.count if self.share is None else self.share

    @property
    def factor(self) -> float:
        """Factor of the sum over the other genes."""
        return 1.0 if self.share is None else 1 / (1 - self.share)

    def describe(self) -> str:
        """Return how many are missing, what they carry, and their names."""
        carried = "" if self.share is None else f", which carry {_percent(self.share)} of it in training cells"
        return (
            f"{len(self.genes)} of {self.count} genes that a cell's total is taken over are missing"
            f"{carried}: {format_list(self.genes)}"
        )


class PanelReader:
    """Turn rows of one file into panel expression, genes matched by name.

    Parameters
    ----------
    preprocessing
        Panel, scale and normalisation genes.
    var_names
        The file's genes.
    expression
        Scale of the file's values; that of the training cells, if not given. log1p values for a model of counts are
        checked against the total and the base that it needs.
    allow_missing
        Share of panel genes that may be absent, which are filled with the training mean; and of the total that absent
        normalisation genes may carry (of their number, where the model does not know what they carry), by which totals
        are corrected.
    totals
        Column of ``obs`` that totals are read from, where they are: `read` is then given its values.
    totals_advice
        Such a column, for the message where genes of the total are missing.
    round_counts
        Round counts that are not quite whole, or were corrected.
    watch
        Sees each cell's sum of expm1 over the panel.

    Attributes
    ----------
    missing
        Panel genes that the file lacks.
    missing_totals
        Genes of a cell's total that the file lacks; `None` where totals are not taken over the file's genes.

    Raises
    ------
    GenePanelError
        Duplicated names, or more genes missing than allowed.
    ConfigurationError
        Totals or rounding for log1p values; no totals for a model that was trained with those of a column.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        var_names: Sequence[str],
        *,
        expression: Scale | None = None,
        allow_missing: float = 0.0,
        totals: str | None = None,
        totals_advice: str = "n_counts",
        round_counts: bool = False,
        watch: SumWatch | None = None,
    ) -> None:
        if not 0 <= allow_missing < 1:
            raise ConfigurationError(f"allow_missing_genes={allow_missing} is no fraction from 0 to below 1")
        check_gene_names(var_names)
        self._scale = preprocessing.scale if expression is None else expression
        self._totals, self._round, self._watch = totals, round_counts, watch
        self._check_options(preprocessing)
        place = number_genes(var_names)
        source = find_genes(place, preprocessing.genes)
        self.missing = tuple(np.asarray(preprocessing.genes, dtype=object)[source < 0])
        _require_panel(self.missing, preprocessing.genes, allow_missing, var_names)
        self._panel_column = np.full(len(var_names), -1, dtype=np.int32)  # file column -> panel column
        self._panel_column[source[source >= 0]] = np.flatnonzero(source >= 0)
        self._fill = np.where(source < 0, preprocessing.mean, 0).astype(np.float32)
        self.missing_totals: MissingTotals | None = None
        self._exact = False
        self._in_total: np.ndarray | None = None
        self._log_check: LogScaleCheck | None = None
        if preprocessing.scale == "counts":
            self._place_totals(preprocessing, place, allow_missing, totals_advice)

    def _check_options(self, preprocessing: Preprocessing) -> None:
        """Raise `ConfigurationError` for options that do not go together."""
        if self._scale == "log1p":
            for given, option in ((self._totals, f"totals={self._totals!r}"), (self._round, "round_counts=True")):
                if given:
                    raise ConfigurationError(f"{option} is for counts, and expression='log1p' is read; leave one out")
        elif preprocessing.totals is not None and self._totals is None:
            raise ConfigurationError(
                f"this model was trained with totals from the column {preprocessing.totals!r} of obs, which count "
                f"genes that are not known; give such a column (totals={preprocessing.totals!r}), or log1p values "
                "normalised to 10,000 over all genes (expression='log1p')"
            )

    def _place_totals(
        self, preprocessing: Preprocessing, place: Mapping[str, int], allowed: float, totals_advice: str
    ) -> None:
        """Find the genes of a cell's total among the file's; raises `GenePanelError` if too much is missing."""
        genes = preprocessing.normalisation_genes or preprocessing.genes  # totals of a column count the panel, and more
        places = find_genes(place, genes)
        here = places >= 0
        share = None
        if preprocessing.shares is not None and preprocessing.totals is None:
            share = float(min(preprocessing.shares[~here].sum(dtype=np.float64), 1.0))
        missing = MissingTotals(tuple(np.asarray(genes, dtype=object)[~here]), len(genes), share)
        if self._scale == "counts" and self._totals is None:
            if missing.genes and (missing.judged_share > allowed or missing.judged_share >= 1):
                raise GenePanelError(
                    f"{missing.describe()}; give totals from a column of obs (totals={totals_advice!r}), or a file "
                    f"that has them{_allow(missing.judged_share)}"
                )
            self.missing_totals = missing
        columns = places[here]
        if len(columns) < len(place):
            self._in_total = np.zeros(len(place), dtype=bool)
            self._in_total[columns] = True
        self._exact = share is not None and not missing.genes
        if self._scale == "log1p":
            count = len(genes) if preprocessing.totals is None else None
            self._log_check = LogScaleCheck(len(columns), count, share)

    def library_sizes(self, values: Matrix, totals: np.ndarray | None = None) -> np.ndarray:
        """Return the totals that counts of a file's rows are scaled by, float64 [B].

        Those of the column, where there is one; else sums over the genes of the total, for the share of absent genes
        corrected. `read` has checked the values.
        """
        if totals is not None:
            return totals
        sums = self._sum_totals(round_to_counts(values) if self._round else values)
        return sums * (1.0 if self.missing_totals is None else self.missing_totals.factor)

    def read(self, values: Matrix, cell_names: Names, totals: np.ndarray | None = None) -> np.ndarray:
        """Read the panel expression of a file's rows.

        Parameters
        ----------
        values
            The file's values, [B x file genes].
        cell_names
            Names of the rows' cells, for messages.
        totals
            Totals of the cells, where they are those of a column; float64 [B].

        Returns
        -------
        Log scale, float32 [B x G].

        Raises
        ------
        ExpressionError
            Values that are not of the declared scale, log1p values of another total or base than the model needs, a
            cell without a single count, or a total below the counts that it counts.
        """
        return self._take_panel(*self._check(values, cell_names, totals))

    def read_sparse(self, values: Matrix, cell_names: Names, totals: np.ndarray | None = None) -> sparse.csr_matrix:
        """Read what `read` does as a CSR matrix, which holds no zero: of all genes of a file most are."""
        values, factors = self._check(values, cell_names, totals)
        if self.missing or not sparse.issparse(values):
            return sparse.csr_matrix(self._take_panel(values, factors))
        columns, data, lengths = self._find_in_panel(values, factors)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        found = sparse.csr_matrix((data, columns, starts), shape=(len(lengths), len(self._fill)))
        found.sort_indices()
        found.eliminate_zeros()
        return found

    def _check(self, values: Matrix, cell_names: Names, totals: np.ndarray | None) -> tuple[Matrix, np.ndarray | None]:
        """Check a file's values; return them, and for counts the factor of each row that scales them."""
        check_values(values, self._scale, cell_names, round_counts=self._round)
        if sparse.issparse(values):
            values = values.tocsr()
            if not values.has_canonical_format:
                values = values.copy()
                values.sum_duplicates()
        else:
            values = np.asarray(values)
        if self._scale == "counts":
            return self._check_counts(values, cell_names, totals)
        if self._log_check is not None:
            self._check_log(self._log_check, values, cell_names)
        return values, None

    def _check_counts(self, values: Matrix, cell_names: Names, totals: np.ndarray | None) -> tuple[Matrix, np.ndarray]:
        given = self._sum_totals(values)
        if self._round:
            values = round_to_counts(values)
        sums = self._sum_totals(values) if self._round else given
        if self._totals is not None:
            assert totals is not None, "a reader of totals from a column is given them"
            check_sums(given, totals, self._totals, cell_names, exact=self._exact)
            return values, (TARGET_SUM / totals).astype(np.float32)
        _require_counts(sums, cell_names)
        factor = 1.0 if self.missing_totals is None else self.missing_totals.factor
        return values, (TARGET_SUM / (sums * factor)).astype(np.float32)

    def sum_shares(self, values: Matrix, totals: np.ndarray | None = None) -> np.ndarray:
        """Sum each gene's share of its cell's total over cells of counts [B x file genes], float64 [file genes]."""
        if self._round:
            values = round_to_counts(values)
        inverse = 1 / (self._sum_totals(values) if totals is None else totals)
        return np.asarray(inverse @ values, dtype=np.float64).ravel()

    def _sum_totals(self, values: Matrix) -> np.ndarray:
        """Sum each row over the genes of the total, float64 [B]."""
        if not sparse.issparse(values):
            counted = values if self._in_total is None else values[:, self._in_total]
            return np.asarray(counted.sum(axis=1, dtype=np.float64))
        every = np.ones(values.shape[1])
        return np.asarray(values @ (every if self._in_total is None else self._in_total * every), dtype=np.float64)

    def _check_log(self, check: LogScaleCheck, values: Matrix, cell_names: Names) -> None:
        raised = sparse.csr_matrix(values, dtype=np.float32) if not sparse.issparse(values) else values
        data = np.expm1(raised.data.astype(np.float32, copy=False))
        rows, count = _rows(raised), raised.shape[0]
        whole = np.bincount(rows, weights=data, minlength=count)
        if self._in_total is None:
            check.check(whole, raised, whole, cell_names)
            return
        sums = np.bincount(rows, weights=data * self._in_total[raised.indices], minlength=count)
        check.check(sums, raised[:, self._in_total], whole, cell_names)

    def _take_panel(self, values: Matrix, factors: np.ndarray | None) -> np.ndarray:
        """Take the panel's columns, counts scaled by a factor a row and logged; absent genes are filled."""
        expression = np.zeros((values.shape[0], len(self._fill)), dtype=np.float32)
        if sparse.issparse(values):
            columns, data, lengths = self._find_in_panel(values, factors)
            places = columns.astype(np.int64)
            places += np.repeat(np.arange(0, expression.size, len(self._fill)), lengths)
            expression.reshape(-1)[places] = data
        else:
            file_columns = np.flatnonzero(self._panel_column >= 0)
            panel = values[:, file_columns].astype(np.float32)
            if factors is not None:
                panel = np.log1p(panel * factors[:, None])
            expression[:, self._panel_column[file_columns]] = panel
            if self._watch is not None:
                self._watch.see(np.expm1(panel).sum(axis=1, dtype=np.float64))
        if self.missing:
            expression += self._fill
        return expression

    def _find_in_panel(
        self, values: sparse.csr_matrix, factors: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Find the panel's values, row after row: their columns, themselves on the log scale, each row's number."""
        columns = self._panel_column.take(values.indices)
        inside = (columns >= 0).nonzero()[0]
        lengths = np.diff(inside.searchsorted(values.indptr))
        data = values.data.take(inside).astype(np.float32, copy=False)
        if factors is not None:
            data *= np.repeat(factors, lengths)
            np.log1p(data, out=data)
        if self._watch is not None:
            rows = np.repeat(np.arange(len(lengths)), lengths)
            self._watch.see(np.bincount(rows, weights=np.expm1(data), minlength=len(lengths)))
        return columns.take(inside), data, lengths


def _rows(values: sparse.csr_matrix) -> np.ndarray:
    return np.repeat(np.arange(values.shape[0]), np.diff(values.indptr))


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}" if share >= 0.001 else "less than 0.1%"


def _require_panel(absent: Sequence[str], genes: Sequence[str], allowed: float, var_names: Sequence[str]) -> None:
    """Raise `GenePanelError` if more of a panel's genes are absent than is allowed."""
    total = len(genes)
    if not absent or len(absent) / total <= allowed:  # the quotient, not allowed * total: 0.29 * 100 < 29
        return
    hint = ""
    upper = {name.upper() for name in var_names}
    if sum(gene.upper() in upper for gene in genes) > total - len(absent):
        hint = " (more match when upper and lower case are ignored: is it another species, or another spelling?)"
    raise GenePanelError(
        f"{len(absent)} of {total} panel genes are missing: {format_list(absent)}{hint}; give a file that has "
        f"them{_allow(len(absent) / total)}"
    )


def _allow(share: float) -> str:
    """Return the remedy that allows a share of missing genes; none where no share below 1 does."""
    needed = np.ceil(round(100 * share, 9)) / 100
    return f", or allow it with allow_missing_genes={max(needed, 0.01):.2f}" if needed < 1 else ""


def _require_counts(sums: np.ndarray, cell_names: Names) -> None:
    empty = sums <= 0
    if empty.any():
        names = [cell_names[int(i)] for i in np.flatnonzero(empty)]
        raise ExpressionError(
            f"{len(names)} cells have no counts at all: {format_list(names)}; an empty cell has no expression: "
            "remove them (scanpy.pp.filter_cells(adata, min_counts=1))"
        )
