"""The form of effects: an AnnData that says what each of its matrices is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from causcell._internal.significance import false_discovery_rate
from causcell.opened_model import OpenedModel

if TYPE_CHECKING:
    import anndata
    import pandas as pd

TEST_ERROR = (
    "root of the sampling variance and of the mean square of the model's measured error at the smallest effect that "
    "counts; where the latter is not known (intervals are NaN), of the former alone"
)
"""What ``layers["test_error"]`` of effects is."""

_TESTS = {
    "p_value": "two-sided p-value of an effect of at most the smallest that counts, by test_error",
    "q_value": "p_value after Benjamini-Hochberg over the genes of a row",
    "changed": "whether q_value is below the false discovery rate",
}


def make_result(
    generator: OpenedModel,
    obs: pd.DataFrame,
    arrays: dict[str, np.ndarray],
    p: np.ndarray,
    contents: dict[str, str],
    facts: dict[str, Any],
    fdr: float,
    var: pd.DataFrame,
) -> anndata.AnnData:
    """Put effects into an AnnData, each row of p-values a family of its own.

    Parameters
    ----------
    generator
        The model.
    obs
        One row a label, or a cell.
    arrays
        ``X`` and layers by name, [n x G]; they are kept as float32.
    p
        P-values, float64 [n x G].
    contents
        What each of ``arrays`` is, for ``uns``.
    facts
        Further entries of ``uns["causcell"]``.
    fdr
        False discovery rate at which a gene counts as changed.
    var
        Columns of ``var`` of the cells' source, with the panel's genes as index.
    """
    import anndata

    q = np.stack([false_discovery_rate(each) for each in p])
    layers = {name: each.astype(np.float32) for name, each in arrays.items()}
    return anndata.AnnData(
        X=layers.pop("X"),
        obs=obs,
        var=var,
        layers=layers | {"p_value": p, "q_value": q, "changed": q < fdr},
        uns={
            "causcell": generator.model.provenance()
            | facts
            | {"expression": "log1p", "estimate": "mean", "X": contents["X"]}
            | {"layers": {name: text for name, text in (contents | _TESTS).items() if name != "X"}}
        },
    )
