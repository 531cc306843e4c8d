"""Figures of counterfactual results. Each takes an ``ax`` and returns it; matplotlib comes with ``causcell[plot]``.

The effect of an intervention is the difference of mean expression (log scale) between its rows and the factual rows of
the same cells; an atlas of effects (``store="effects"``) holds the differences already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from causcell._internal.choices import suggest
from causcell.errors import ConfigurationError, format_list

if TYPE_CHECKING:
    import anndata
    import pandas as pd
    from matplotlib.axes import Axes


def intervention_effects(
    atlas: anndata.AnnData, intervention: str | None = None, *, by: str | None = None
) -> pd.DataFrame:
    """Compute the mean effect of an intervention on every gene, for each label of a column of ``obs``.

    Parameters
    ----------
    atlas
        Results with factual rows and those of the intervention for the same cells (``do=[{}, {...}]``), or an atlas of
        effects.
    intervention
        As in ``obs["intervention"]``; the only one but the factual, if not given.
    by
        Column of ``obs`` by whose labels cells are grouped, such as ``cell_type_factual``; all cells together, if not
        given.

    Returns
    -------
    Mean change of log-scale expression, float64 [labels x G]; labels without a cell are left out.

    Raises
    ------
    ConfigurationError
        No such intervention or column, or no factual rows to compare with.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> obs = pd.DataFrame({"intervention": ["factual", "stim=IFN"] * 2}, index=list("abcd"))
    >>> expression = np.float32([[0.0, 1.0], [2.0, 1.0], [0.0, 2.0], [1.0, 2.0]])
    >>> atlas = anndata.AnnData(expression, obs=obs, var=pd.DataFrame(index=["ISG15", "CD3E"]))
    >>> intervention_effects(atlas)
               ISG15  CD3E
    all cells    1.5   0.0
    """
    import pandas as pd

    there = atlas.obs["intervention"].astype(str).to_numpy()
    named = [name for name in dict.fromkeys(there) if name != "factual"]
    if intervention is None and len(named) == 1:
        intervention = named[0]
    if intervention not in named:
        raise ConfigurationError(
            f"intervention {intervention!r} is not in the atlas; {suggest(intervention, named)}name one of "
            f"{format_list(named)}"
        )
    if by is not None and by not in atlas.obs:
        raise ConfigurationError(
            f"obs has no column {by!r}; {suggest(by, atlas.obs.columns)}its columns are "
            f"{format_list(atlas.obs.columns, 40)}"
        )
    groups = np.full(len(there), "all cells") if by is None else atlas.obs[by].astype(str).to_numpy()
    effects = atlas.uns.get("causcell", {}).get("store") == "effects"
    if not effects and "factual" not in there:
        raise ConfigurationError(
            "the atlas has no factual rows to compare with; generate them beside the intervention "
            "(do=[{}, {...}]), or generate effects (store='effects')"
        )
    means = {}
    for group in dict.fromkeys(sorted(groups)):
        rows = (there == intervention) & (groups == group)
        base = (there == "factual") & (groups == group)
        if rows.any() and (effects or base.any()):
            means[group] = _mean(atlas, rows) - (0.0 if effects else _mean(atlas, base))
    return pd.DataFrame.from_dict(means, orient="index", columns=atlas.var_names)


def _mean(atlas: anndata.AnnData, rows: np.ndarray) -> np.ndarray:
    return np.asarray(atlas.X[np.flatnonzero(rows)].mean(axis=0, dtype=np.float64)).ravel()


def effect_heatmap(
    atlas: anndata.AnnData,
    intervention: str | None = None,
    *,
    by: str,
    genes: int = 20,
    ax: Axes | None = None,
) -> Axes:
    """Draw a heat map of an intervention's effect: the genes that change most, for each label of a column.

    Parameters
    ----------
    atlas, intervention, by
        See `intervention_effects`.
    genes
        Number of genes, chosen by their largest change under any label; they are ordered by their mean change.
    ax
        Axes to draw on; a new figure's, if not given.

    Returns
    -------
    The axes, with genes along x, labels along y, and a colour bar.

    Raises
    ------
    ConfigurationError
        See `intervention_effects`.

    Examples
    --------
    >>> import anndata, matplotlib, numpy as np, pandas as pd
    >>> matplotlib.use("agg")
    >>> obs = pd.DataFrame({"intervention": ["factual", "stim=IFN"] * 2, "type": list("BBTT")}, index=list("abcd"))
    >>> expression = np.float32([[0.0, 1.0], [2.0, 1.0], [0.0, 2.0], [1.0, 2.0]])
    >>> atlas = anndata.AnnData(expression, obs=obs, var=pd.DataFrame(index=["ISG15", "CD3E"]))
    >>> ax = effect_heatmap(atlas, by="type")
    >>> ax.get_title()
    'effect of do(stim=IFN), by type'
    >>> matplotlib.pyplot.close(ax.figure)
    """
    import matplotlib.pyplot as plt

    effects = intervention_effects(atlas, intervention, by=by)
    largest = effects.abs().max().nlargest(genes).index
    shown = effects[effects[largest].mean().sort_values(ascending=False).index]
    ax = ax or plt.subplots(figsize=(1.5 + 0.3 * len(largest), 1.6 + 0.35 * len(effects)), layout="constrained")[1]
    limit = float(np.abs(shown.to_numpy()).max()) or 1.0
    image = ax.imshow(shown, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    ax.set_xticks(range(shown.shape[1]), shown.columns, rotation=90, fontsize=8)
    ax.set_yticks(range(len(shown)), shown.index, fontsize=8)
    ax.set_title(f"effect of {_title(atlas, intervention)}, by {by}", fontsize=10)
    ax.figure.colorbar(image, ax=ax, shrink=0.8).set_label("mean change, log scale", fontsize=8)
    return ax


def top_genes(
    atlas: anndata.AnnData,
    intervention: str | None = None,
    *,
    by: str | None = None,
    genes: int = 15,
    ax: Axes | None = None,
) -> Axes:
    """Draw the genes that an intervention changes most: a bar for the mean over cells, with a dot for each label.

    Parameters
    ----------
    atlas, intervention
        See `intervention_effects`.
    by
        Column of ``obs`` whose labels get a dot each; no dots, if not given.
    genes
        Number of genes, chosen by the size of their mean change over all cells.
    ax
        Axes to draw on; a new figure's, if not given.

    Returns
    -------
    The axes, with the change (log scale) along x and genes along y.

    Raises
    ------
    ConfigurationError
        See `intervention_effects`.
    """
    import matplotlib.pyplot as plt

    overall = intervention_effects(atlas, intervention).iloc[0]
    shown = overall[overall.abs().nlargest(genes).index].sort_values()
    ax = ax or plt.subplots(figsize=(5.5, 1.2 + 0.24 * len(shown)), layout="constrained")[1]
    places = np.arange(len(shown))
    ax.barh(places, shown, color=np.where(shown > 0, "#d6604d", "#4393c3"), height=0.7, zorder=1)
    if by is not None:
        for i, (label, effect) in enumerate(intervention_effects(atlas, intervention, by=by).iterrows()):
            dots = effect[shown.index]
            ax.scatter(
                dots, places, s=18, color=f"C{i % 10}", edgecolors="white", linewidths=0.4, label=label, zorder=2
            )
        ax.legend(title=by, title_fontsize=8, fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    ax.axvline(0, color="0.3", linewidth=0.8)
    ax.set_yticks(places, shown.index, fontsize=8)
    ax.set_xlabel("mean change, log scale")
    ax.set_title(f"genes most changed by {_title(atlas, intervention)}", fontsize=10)
    return ax


def _title(atlas: anndata.AnnData, intervention: str | None) -> str:
    named = [name for name in dict.fromkeys(atlas.obs["intervention"].astype(str)) if name != "factual"]
    return f"do({intervention or named[0]})"


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
        Column of ``obs`` that colours the cells; one colour for all, if not given.
    ax
        Axes to draw on; a new figure's, if not given.

    Returns
    -------
    The axes.
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
