"""The protocol of cells that are read as those of one file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from causcell.preprocessing import Matrix

if TYPE_CHECKING:
    import pandas as pd


class CellTable(Protocol):
    """Cells of one file, or of several that are joined: names, annotations and values of genes.

    Attributes
    ----------
    raw
        Whether genes and values are those of ``adata.raw``.
    """

    raw: bool

    def __len__(self) -> int:
        """Count the cells."""
        ...

    @property
    def genes(self) -> list[str]:
        """Names of the genes."""
        ...

    @property
    def columns(self) -> list[str]:
        """Names of the columns of ``obs``."""
        ...

    @property
    def names(self) -> np.ndarray:
        """Names of all cells, str objects [n]."""
        ...

    def read_names(self, rows: slice) -> np.ndarray:
        """Return the names of consecutive cells, str objects [rows]."""
        ...

    def read_obs(self, columns: Sequence[str]) -> pd.DataFrame:
        """Return some columns of ``obs`` that there are, without the cells' names, [n x columns]."""
        ...

    def column(self, name: str) -> pd.Series:
        """Return a column of ``obs`` that there is, [n]."""
        ...

    def gene_column(self, name: str) -> np.ndarray | None:
        """Return a column of ``var``, [genes]; `None` if there is none."""
        ...

    def values(self, rows: slice | np.ndarray) -> Matrix:
        """Return the values of some cells, in the order asked for, [rows x genes]."""
        ...
