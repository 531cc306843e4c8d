"""Panel expression of cells: all of them in slices, or a sample for statistics."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import sparse

from causcell._internal.batching import batches, choose_at_most
from causcell.cells.names import NamesInMessages
from causcell.cells.panel import PanelReader
from causcell.cells.table import CellTable
from causcell.cells.totals import read_totals
from causcell.cells.values import check_values, round_to_counts
from causcell.preprocessing import Matrix, Preprocessing, Scale

_READ_ROWS = 1024

_ROWS_FOR_STATISTICS = 20_000  # gene dispersions and principal components settle long before


def make_unit_preprocessing(panel: list[str], scale: Scale, normalisation_genes: list[str]) -> Preprocessing:
    """Make a preprocessing that normalises and does not standardise: mean 0 and deviation 1 for every panel gene."""
    unit = np.ones(len(panel), dtype=np.float32)
    return Preprocessing(tuple(panel), scale, tuple(normalisation_genes), 0 * unit, unit)


class GeneShares:
    """Shares of genes in the totals of cells, as slices of the cells are read.

    Parameters
    ----------
    counting
        Which rows count, bool [n].
    """

    def __init__(self, counting: np.ndarray) -> None:
        self._counting = counting
        self._sums: np.ndarray | float = 0.0

    def add(self, rows: np.ndarray, reader: PanelReader, values: Matrix) -> None:
        """Add rows of counts [rows x file genes]."""
        counting = self._counting[rows]
        if counting.any():
            self._sums = self._sums + reader.sum_shares(values[counting])

    @property
    def mean(self) -> np.ndarray:
        """Mean share of each gene of the file, float32."""
        return np.asarray(self._sums / np.count_nonzero(self._counting), dtype=np.float32)


def read_panel(
    cells: CellTable,
    preprocessing: Preprocessing,
    rows: np.ndarray | None = None,
    *,
    totals: str | None = None,
    round_counts: bool = False,
) -> sparse.csr_matrix:
    """Read panel expression in slices.

    Parameters
    ----------
    cells
        Opened cells.
    preprocessing
        Panel of G genes, scale and normalisation genes.
    rows
        Rows to read, int64 [n]; all cells where none are given.
    totals, round_counts
        See `TrainConfig`.

    Returns
    -------
    csr_matrix
        Expression on the log scale, float32 [n x G].

    Raises
    ------
    ExpressionError
        Values are not of the declared scale.
    DataError
        Totals can't be used; see `causcell.cells.totals.read_totals`.
    """
    wanted = np.arange(len(cells)) if rows is None else rows
    slices = read_slices(cells, preprocessing, wanted, totals=totals, round_counts=round_counts)
    return sparse.vstack(list(slices), format="csr")


def read_slices(
    cells: CellTable,
    preprocessing: Preprocessing,
    rows: np.ndarray,
    *,
    totals: str | None = None,
    round_counts: bool = False,
    shares: GeneShares | None = None,
) -> Iterator[sparse.csr_matrix]:
    """Read panel expression slice by slice, in the order of ``rows``; arguments and errors as for `read_panel`.

    ``shares`` sees every slice, once it has been taken; for counts whose totals are over the file's genes.
    """
    reader = PanelReader(preprocessing, cells.genes, totals=totals, round_counts=round_counts)
    all_totals = None if totals is None else read_totals(cells, totals)
    for part in batches(len(rows), _READ_ROWS):
        chosen = rows[part]
        values = cells.values(chosen)
        of_column = None if all_totals is None else all_totals[chosen]
        yield reader.read_sparse(values, NamesInMessages(cells, chosen), of_column)
        if shares is not None:
            shares.add(chosen, reader, values)


def read_counts(cells: CellTable, rows: np.ndarray, *, round_counts: bool = False) -> sparse.csr_matrix:
    """Read the raw counts of some rows (int64 [n]) and all genes of the file, float32 CSR [n x file genes].

    Raises
    ------
    ExpressionError
        Values are no counts.
    """
    blocks = []
    for part in batches(len(rows), _READ_ROWS):
        values = cells.values(rows[part])
        check_values(values, "counts", NamesInMessages(cells, rows[part]), round_counts=round_counts)
        blocks.append(sparse.csr_matrix(round_to_counts(values) if round_counts else values, dtype=np.float32))
    return sparse.vstack(blocks, format="csr")


def sample_rows(rows: np.ndarray, rng: np.random.Generator, most: int = _ROWS_FOR_STATISTICS) -> np.ndarray:
    """Sample at most so many rows (int64 [n]), ascending: by default as many as statistics need."""
    return choose_at_most(rows, most, rng)
