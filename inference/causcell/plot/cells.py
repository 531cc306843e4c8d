"""Figures of cells beside their counterfactuals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from causcell._internal.figures import distinct_colours
from causcell.errors import ConfigurationError, format_list
from causcell.plot.shared import dense_expression, draw_legend, legend_size, read_labels

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
    """Draw factual and counterfactual cells in the plane of the factual cells' first two principal components.

    Parameters
    ----------
    factual, counterfactual
        Results for the same cells and panel, in the same order; a thin line joins each cell to its counterfactual.
    color
        Column of ``obs`` that colours the cells: a dot by the factual row's label, a cross by the counterfactual row's
        own; one colour for all, if not given.
    ax
        Axes to draw on; a new figure's, if not given.

    Returns
    -------
    The axes.

    Raises
    ------
    ConfigurationError
        Results of other cells or genes, no such column, or less than two cells or genes.
    DataError
        A value that is not finite.
    """
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    x, y = (dense_expression(results) for results in _same_cells(factual, counterfactual))
    centre = x.mean(axis=0)
    components = np.linalg.svd(x - centre, full_matrices=False)[2][:2].T
    a, b = (x - centre) @ components, (y - centre) @ components
    own, labels = (np.full(len(a), "cells"), ["cells"]) if color is None else read_labels(factual, color)
    after, others = (own, []) if color is None else read_labels(counterfactual, color)
    labels = [label for label in dict.fromkeys([*labels, *others]) if label in own or label in after]
    if ax is None:
        width, height = legend_size(labels)
        ax = plt.subplots(figsize=(5.5 + width, max(5.0, height)), layout="constrained")[1]
    ax.plot(np.stack([a[:, 0], b[:, 0]]), np.stack([a[:, 1], b[:, 1]]), color="0.8", linewidth=0.3, zorder=1)
    colours = distinct_colours(len(labels))
    for label, colour in zip(labels, colours, strict=True):
        dots, crosses = a[own == label], b[after == label]
        ax.scatter(dots[:, 0], dots[:, 1], s=9, color=[colour], marker="o", zorder=2)
        ax.scatter(crosses[:, 0], crosses[:, 1], s=9, color=[colour], marker="x", linewidths=0.8, zorder=3)
    ax.set(xlabel="PC 1 of the factual cells", ylabel="PC 2 of the factual cells")
    ax.set_title("factual (dots) and counterfactual (crosses)", fontsize=10)
    handles = [Line2D([], [], color=colour, marker="o", markersize=4, linestyle="none") for colour in colours]
    draw_legend(ax, handles, labels, color)
    return ax


def _same_cells(factual: anndata.AnnData, other: anndata.AnnData) -> tuple[anndata.AnnData, anndata.AnnData]:
    """Return both results, once they are of the same cells and genes."""
    if factual.shape != other.shape or not factual.var_names.equals(other.var_names):
        raise ConfigurationError(
            f"factual results of {factual.n_obs} rows x {factual.n_vars} genes and counterfactual ones of "
            f"{other.n_obs} x {other.n_vars} are not of the same cells and panel; take one row a cell of each"
        )
    if "source_cell" in factual.obs and "source_cell" in other.obs:
        named, others = (each.obs["source_cell"].astype(str).to_numpy() for each in (factual, other))
        differ = np.flatnonzero(named != others)
        if len(differ):
            pair = format_list([str(results.obs["source_cell"].iloc[differ[0]]) for results in (factual, other)])
            raise ConfigurationError(
                f"row {differ[0]} is of two cells, {pair}; take the counterfactual rows in the factual ones' order"
            )
    if min(factual.shape) < 2:
        raise ConfigurationError(
            f"{factual.n_obs} cells x {factual.n_vars} genes have no plane to draw; take at least two of both"
        )
    return factual, other
