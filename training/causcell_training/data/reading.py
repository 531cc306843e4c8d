"""Panel expression of cells: all of them in slices, or a sample for statistics."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from causcell._internal.batching import batches
from causcell.cells.collection import Cells
from causcell.cells.panel import PanelReader
from causcell.preprocessing import Preprocessing, Scale

_READ_ROWS = 1024

_ROWS_FOR_STATISTICS = 20_000  # gene dispersions and principal components settle long before


def make_unit_preprocessing(panel: list[str], scale: Scale, normalisation_genes: list[str]) -> Preprocessing:
    """Make a preprocessing that normalises and does not standardise: mean 0 and deviation 1 for every panel gene."""
    unit = np.ones(len(panel), dtype=np.float32)
    return Preprocessing(tuple(panel), scale, tuple(normalisation_genes), 0 * unit, unit)


def read_panel(cells: Cells, preprocessing: Preprocessing, rows: np.ndarray | None = None) -> sparse.csr_matrix:
    """Read panel expression in slices.

    Parameters
    ----------
    cells
        Opened cells.
    preprocessing
        Panel of G genes, scale and normalisation genes.
    rows
        Rows to read, int64 [n]; all cells where none are given.

    Returns
    -------
    csr_matrix
        Expression on the log scale, float32 [n x G].

    Raises
    ------
    ExpressionError
        Values are not of the declared scale.
    """
    reader = PanelReader(preprocessing, cells.genes)
    wanted = np.arange(len(cells)) if rows is None else rows
    blocks = []
    for part in batches(len(wanted), _READ_ROWS):
        chosen = wanted[part]
        blocks.append(sparse.csr_matrix(reader.read(cells.values(chosen), cells.names[chosen])))
    return sparse.vstack(blocks, format="csr")


def sample_rows(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sample as many rows (int64 [n]) as statistics need, ascending; all of them where there are no more."""
    if len(rows) <= _ROWS_FOR_STATISTICS:
        return rows
    return np.sort(rng.choice(rows, _ROWS_FOR_STATISTICS, replace=False))
