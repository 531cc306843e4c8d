"""Results of consecutive cells, block by block."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_READ_AHEAD = 2
"""Batches that are read before they are needed."""


@dataclass(frozen=True)
class Block:
    """Results for consecutive cells; rows are (cell, intervention, draw), the last fastest.

    Attributes
    ----------
    cells
        Which cells.
    arrays
        What the store keeps, [rows x columns], by place in an AnnData; see `causcell.counterfactual.outputs`.
        Float32; expression itself is of the request's type.
    labels
        Codes after the intervention, int32 [rows x m].
    unmatched
        Rows whose reference cell does not carry the parents' labels, bool [rows].
    """

    cells: slice
    arrays: dict[str, np.ndarray]
    labels: np.ndarray
    unmatched: np.ndarray


@dataclass(frozen=True)
class _Batch:
    """Consecutive cells, their names, and their expression padded to the batch size."""

    rows: slice
    names: np.ndarray
    expression: np.ndarray

    @property
    def count(self) -> int:
        return self.rows.stop - self.rows.start
