"""Figures of results. Each takes an ``ax`` and returns it; matplotlib comes with ``causcell[plot]``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import anndata
    from matplotlib.axes import Axes


def counterfactual_embedding(
    factual: anndata.AnnData,
    counterfactual: anndata.AnnData,
    *,
    color: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Factual and counterfactual cells in one plane: the first two principal components of the factual cells.

    Parameters
    ----------
    factual, counterfactual
        Results for the same cells and panel, in the same order; a thin line joins each cell to its counterfactual.
    color
        Column of ``obs`` that colours the cells.
    """
    import matplotlib.pyplot as plt

    ax = ax or plt.subplots(figsize=(6, 5))[1]
    x, y = np.asarray(factual.X), np.asarray(counterfactual.X)
    centre = x.mean(axis=0)
    components = np.linalg.svd(x - centre, full_matrices=False)[2][:2].T
    a, b = (x - centre) @ components, (y - centre) @ components
    ax.plot(np.stack([a[:, 0], b[:, 0]]), np.stack([a[:, 1], b[:, 1]]), color="0.8", linewidth=0.3, zorder=1)
    groups = counterfactual.obs[color].astype(str) if color else np.full(len(a), "cells")
    for i, group in enumerate(np.unique(groups)):
        members = np.asarray(groups == group)
        shade = f"C{i % 10}"
        ax.scatter(a[members, 0], a[members, 1], s=9, color=shade, marker="o", label=group, zorder=2)
        ax.scatter(b[members, 0], b[members, 1], s=9, color=shade, marker="x", linewidths=0.8, zorder=3)
    ax.set(xlabel="PC 1 of the factual cells", ylabel="PC 2")
    ax.set_title("factual (dots) and counterfactual (crosses)", fontsize=10)
    ax.legend(fontsize=7, frameon=False, markerscale=1.5, loc="center left", bbox_to_anchor=(1, 0.5))
    return ax
