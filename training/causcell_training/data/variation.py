"""Statistics of the training cells' expression, gathered as they are read: moments, and whether anything varies.

Sums run over the cells one after the other, whatever blocks they come in.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from causcell.errors import DataError, GenePanelError, format_list
from causcell.preprocessing import DEVIATION_FLOOR, SUM_QUANTILES


class PanelStatistics:
    """Statistics of the training cells' panel expression; memory is 8 bytes a cell and 16 a gene.

    Parameters
    ----------
    cells
        Number of training cells.
    panel
        Names of the G panel genes.
    """

    def __init__(self, cells: int, panel: list[str]) -> None:
        self._cells, self._panel = cells, panel
        # the mean by single precision, the square by double: as earlier versions', so that a seed gives their weights
        self._mean, self._square = np.zeros(len(panel), dtype=np.float32), np.zeros(len(panel))
        self._sums: list[np.ndarray] = []
        self._first: np.ndarray | None = None
        self._expressed = self._varied = False

    def add(self, expression: sparse.csr_matrix) -> None:
        """Add training cells, float32 CSR [rows x G]."""
        if not expression.shape[0]:
            return
        share = 1.0 / self._cells
        np.add.at(self._mean, expression.indices, expression.data * share)  # in the order of cells
        np.add.at(self._square, expression.indices, expression.data.astype(np.float64) ** 2 * share)
        self._sums.append(np.asarray(expression.expm1().sum(axis=1, dtype=np.float64)).ravel())
        self._expressed = self._expressed or bool(expression.count_nonzero())
        if not self._varied:
            block = expression.toarray()
            self._first = block[0] if self._first is None else self._first
            self._varied = bool((block != self._first).any())

    @property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and floored standard deviation of each gene, float32 [G]."""
        deviation = np.sqrt(np.maximum(self._square - self._mean.astype(np.float64) ** 2, 0))
        return self._mean, np.maximum(deviation, DEVIATION_FLOOR).astype(np.float32)

    @property
    def panel_sums(self) -> np.ndarray:
        """Quantiles over cells of the sum of expm1, float64; see `causcell.preprocessing.Preprocessing.panel_sums`."""
        return np.asarray(np.quantile(np.concatenate(self._sums), SUM_QUANTILES))

    def require_variation(self) -> None:
        """Check that training cells differ in the panel's genes.

        Raises
        ------
        GenePanelError
            The panel has one gene, or no training cell expresses any of its genes.
        DataError
            All training cells have the same expression.
        """
        panel = self._panel
        if len(panel) < 2:
            raise GenePanelError(
                f"there is one gene, {panel[0]!r}, to train on; give data with two or more genes (thousands are usual)"
            )
        if not self._expressed:
            raise GenePanelError(
                f"none of the {self._cells} training cells expresses any of the {len(panel)} panel genes "
                f"({format_list(panel, 4)}); name genes that the cells express, or take the most variable ones "
                "(genes=2000)"
            )
        if not self._varied:
            raise DataError(
                f"all {self._cells} training cells have the same expression in each of the {len(panel)} panel "
                "genes: there is nothing to learn; check which values the file holds (expression=, layer=)"
            )
