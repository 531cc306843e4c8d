"""Check that there is something to learn in the expression of training cells."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from causcell.errors import DataError, GenePanelError, format_list


def require_variation(expression: sparse.csr_matrix, panel: list[str]) -> None:
    """Check that training cells differ in the panel's genes.

    Parameters
    ----------
    expression
        Panel expression of the training cells, float32 CSR [n x G].
    panel
        Names of the G panel genes.

    Raises
    ------
    GenePanelError
        The panel has one gene, or no training cell expresses any of its genes.
    DataError
        All training cells have the same expression.
    """
    if len(panel) < 2:
        raise GenePanelError(
            f"there is one gene, {panel[0]!r}, to train on; give data with two or more genes (thousands are usual)"
        )
    if not expression.count_nonzero():
        raise GenePanelError(
            f"none of the {expression.shape[0]} training cells expresses any of the {len(panel)} panel genes "
            f"({format_list(panel, 4)}); name genes that the cells express, or take the most variable ones (genes=2000)"
        )
    largest, least = (np.asarray(each.todense()).ravel() for each in (expression.max(axis=0), expression.min(axis=0)))
    if (largest == least).all():
        raise DataError(
            f"all {expression.shape[0]} training cells have the same expression in each of the {len(panel)} panel "
            "genes: there is nothing to learn; check which values the file holds (expression=, layer=)"
        )
