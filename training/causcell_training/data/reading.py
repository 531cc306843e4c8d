"""Panel expression of cells, read in slices."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from causcell._internal.batching import batches
from causcell.cells.collection import Cells
from causcell.cells.panel import PanelReader
from causcell.preprocessing import Preprocessing, Scale

_READ_ROWS = 1024


def unit_preprocessing(panel: list[str], scale: Scale, normalisation_genes: list[str]) -> Preprocessing:
    unit = np.ones(len(panel), dtype=np.float32)
    return Preprocessing(tuple(panel), scale, tuple(normalisation_genes), 0 * unit, unit)


def read_panel(cells: Cells, preprocessing: Preprocessing, rows: np.ndarray | None = None) -> sparse.csr_matrix:
    """Panel expression of some or all cells, read in slices, float32 CSR."""
    reader = PanelReader(preprocessing, cells.genes)
    wanted = np.arange(len(cells)) if rows is None else rows
    blocks = []
    for part in batches(len(wanted), _READ_ROWS):
        chosen = wanted[part]
        blocks.append(sparse.csr_matrix(reader.read(cells.values(chosen), cells.names[chosen])))
    return sparse.vstack(blocks, format="csr")
