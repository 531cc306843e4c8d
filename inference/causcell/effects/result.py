"""The form of effects: an AnnData that says what each of its matrices is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from causcell._internal.significance import false_discovery_rate
from causcell.opened_model import OpenedModel
from causcell.preprocessing import TARGET_SUM, Preprocessing

if TYPE_CHECKING:
    import anndata
    import pandas as pd

_TESTS = {
    "p_value": "two-sided p-value of an effect of at most the smallest that counts, the model taken for right",
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
    """
    import anndata
    import pandas as pd

    q = np.stack([false_discovery_rate(each) for each in p])
    layers = {name: each.astype(np.float32) for name, each in arrays.items()}
    return anndata.AnnData(
        X=layers.pop("X"),
        obs=obs,
        var=pd.DataFrame(index=pd.Index(generator.preprocessing.genes, dtype=object)),
        layers=layers | {"p_value": p, "q_value": q, "changed": q < fdr},
        uns={
            "causcell": generator.model.provenance()
            | facts
            | {"expression": "log1p", "estimate": "mean", "X": contents["X"]}
            | {"layers": {name: text for name, text in (contents | _TESTS).items() if name != "X"}}
        },
    )


def describe_scale(preprocessing: Preprocessing) -> str:
    """Say in words what a value of expression is.

    Examples
    --------
    >>> empty = np.zeros(1, dtype=np.float32)
    >>> describe_scale(Preprocessing(("CD3E",), "counts", ("CD3E",), empty, empty))
    'natural logarithm of 1 + counts per 10,000'
    """
    if preprocessing.scale == "counts":
        return f"natural logarithm of 1 + counts per {TARGET_SUM:,.0f}"
    return "log1p values, on the scale of the cells that the model was trained on"
