"""Tables of genes in the form of ``scanpy.get.rank_genes_groups_df``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causcell._internal.choices import suggest
from causcell.errors import ConfigurationError, format_list

if TYPE_CHECKING:
    import pandas as pd

_ABSENT = 1e-9
"""What scanpy adds to both means before it divides them."""


def log2_fold_change(mean: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return log2 fold changes as ``scanpy.tl.rank_genes_groups`` computes them from means of log values.

    Parameters
    ----------
    mean, reference
        Means over cells of expression, natural logarithm of 1 + x, [G].

    Returns
    -------
    float64 [G]: log2 of (expm1(mean) + 1e-9) / (expm1(reference) + 1e-9).

    Examples
    --------
    >>> log2_fold_change(np.log1p(np.array([8.0, 0.0])), np.log1p(np.array([2.0, 0.0]))).round(6).tolist()
    [2.0, 0.0]
    """
    above, below = (np.expm1(np.asarray(each, dtype=np.float64)) + _ABSENT for each in (mean, reference))
    return np.asarray(np.log2(above / below))


def gene_table(
    groups: Mapping[str, Mapping[str, np.ndarray]],
    var: pd.DataFrame,
    *,
    pval_cutoff: float | None = None,
    log2fc_min: float | None = None,
    log2fc_max: float | None = None,
    gene_symbols: str | None = None,
) -> pd.DataFrame:
    """Put statistics of genes into one table, the highest score of each group first.

    Parameters
    ----------
    groups
        By group its columns, each [G]: ``scores``, ``logfoldchanges``, ``pvals_adj`` and others.
    var
        The genes, [G rows].
    pval_cutoff, log2fc_min, log2fc_max
        Keep genes with a smaller adjusted p-value, a larger and a smaller log2 fold change.
    gene_symbols
        Column of ``var`` to add.

    Returns
    -------
    DataFrame with the columns ``group`` (where there are several), ``names``, those given, and ``gene_symbols``.

    Raises
    ------
    ConfigurationError
        No such column of ``var``.
    """
    import pandas as pd

    if gene_symbols is not None and gene_symbols not in var:
        raise ConfigurationError(
            f"gene_symbols={gene_symbols!r} is no column of var; {suggest(gene_symbols, var.columns)}its columns are "
            f"{format_list(var.columns, 40)}"
        )
    tables = []
    for group, columns in groups.items():
        table = pd.DataFrame({"group": group, "names": var.index.to_numpy(), **columns})
        order = np.lexsort((-columns["logfoldchanges"], -columns["scores"]))
        tables.append(table.iloc[order])
    whole = pd.concat(tables, ignore_index=True)
    whole["group"] = pd.Categorical(whole["group"], categories=list(groups))
    if pval_cutoff is not None:
        whole = whole[whole["pvals_adj"] < pval_cutoff]
    if log2fc_min is not None:
        whole = whole[whole["logfoldchanges"] > log2fc_min]
    if log2fc_max is not None:
        whole = whole[whole["logfoldchanges"] < log2fc_max]
    if gene_symbols is not None:
        whole = whole.join(var[gene_symbols], on="names")
    return (whole if len(groups) > 1 else whole.drop(columns="group")).reset_index(drop=True)
