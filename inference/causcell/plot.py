"""Figures of counterfactual results. Each takes an ``ax`` and returns it; matplotlib comes with ``causcell[plot]``.

The effect of an intervention is the difference of mean expression (log scale) between its rows and the factual rows of
the same cells; an atlas of effects (``store="effects"``) holds the differences already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from causcell._internal.choices import suggest
from causcell._internal.figures import distinct_colours, plain_text
from causcell.errors import ConfigurationError, DataError, format_list
from causcell.plot_courses import value_course as value_course

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

_UNLABELLED = "(unlabelled)"

_MOST_NUMBERS = 40
"""Distinct numbers of a column that figures take for labels, at most."""


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
        Column of ``obs`` by whose labels the intervention's rows are grouped, such as ``cell_type_factual``; all cells
        together, if not given.

    Returns
    -------
    Mean change of log-scale expression, float64 [labels x G]. Each label's rows are compared with the factual rows of
    the same cells (``obs["source_cell"]``), whatever labels these carry. Labels come in the order of the column's
    categories, a label without a cell is left out, and cells without a label are the last row, ``(unlabelled)``.

    Raises
    ------
    ConfigurationError
        No such intervention or column, no expression, or no factual rows of the same cells to compare with.
    DataError
        A value that is not finite.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> obs = pd.DataFrame({"intervention": ["factual", "stim=IFN"] * 2}, index=list("abcd"))
    >>> obs["source_cell"] = ["cell 1", "cell 1", "cell 2", "cell 2"]
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
    _require_expression(atlas)
    chosen = there == intervention
    labels, order = (np.full(len(there), "all cells"), ["all cells"]) if by is None else _labels(atlas, by)
    differences = atlas.uns.get("causcell", {}).get("store") == "effects"
    weights = None if differences else _FactualRows(atlas, there == "factual")
    means = {}
    for label in order:
        rows = np.flatnonzero(chosen & (labels == label))
        if len(rows):
            means[label] = _mean(atlas, rows) - (0.0 if weights is None else weights.mean(atlas, rows))
    effects = pd.DataFrame.from_dict(means, orient="index", columns=atlas.var_names)
    if not (finite := np.isfinite(effects.to_numpy()).all(axis=0)).all():
        genes = format_list(atlas.var_names[~finite], 4)
        raise DataError(f"the atlas holds values that are not finite (genes {genes}); generate it again")
    return effects


class _FactualRows:
    """Factual rows of an atlas, found by the cells that other rows came from."""

    def __init__(self, atlas: anndata.AnnData, factual: np.ndarray) -> None:
        if not factual.any():
            raise ConfigurationError(
                "the atlas has no factual rows to compare with; generate them beside the intervention "
                "(do=[{}, {...}]), or generate effects (store='effects')"
            )
        if "source_cell" not in atlas.obs:
            raise ConfigurationError("obs has no column 'source_cell', which tells the factual rows of the same cells")
        self._cells, self._names = atlas.obs["source_cell"].factorize()
        self._rows = np.flatnonzero(factual)
        self._counts = np.bincount(self._cells[self._rows], minlength=len(self._names))

    def mean(self, atlas: anndata.AnnData, rows: np.ndarray) -> np.ndarray:
        """Average the factual expression of the cells of ``rows``, each as often as it is there, float64 [G]."""
        counts = np.bincount(self._cells[rows], minlength=len(self._names))
        if (alone := (counts > 0) & (self._counts == 0)).any():
            raise ConfigurationError(
                f"the atlas has no factual rows of {alone.sum()} cells to compare with, such as "
                f"{format_list(self._names[alone], 3)}; keep all rows of a cell"
            )
        weights = counts[self._cells[self._rows]] / self._counts[self._cells[self._rows]]
        base, weights = self._rows[weights > 0], weights[weights > 0]
        if (weights == weights[0]).all():
            return _mean(atlas, base)
        mean: np.ndarray = np.asarray(weights @ atlas.X[base]).ravel() / weights.sum()
        return mean


def _mean(atlas: anndata.AnnData, rows: np.ndarray) -> np.ndarray:
    return np.asarray(atlas.X[rows].mean(axis=0, dtype=np.float64)).ravel()


def _labels(results: anndata.AnnData, column: str) -> tuple[np.ndarray, list[str]]:
    """Return the label of each row as text, and all labels in their order."""
    import pandas as pd

    if column not in results.obs:
        raise ConfigurationError(
            f"obs has no column {column!r}; {suggest(column, results.obs.columns)}its columns are "
            f"{format_list(results.obs.columns, 40)}"
        )
    values = results.obs[column]
    if values.dtype.kind == "f" and values.nunique() > _MOST_NUMBERS:
        raise ConfigurationError(
            f"obs[{column!r}] holds {values.nunique()} distinct numbers, and each would be a label; cut it into bins "
            "(pandas.cut), or draw a course over numbers that were set (causcell.plot.value_course)"
        )
    order = values.cat.categories if isinstance(values.dtype, pd.CategoricalDtype) else _sorted(values)
    labels = np.where(values.isna(), _UNLABELLED, values.astype(str))
    return labels, [*map(str, order), *([_UNLABELLED] if values.isna().any() else [])]


def _sorted(values: pd.Series) -> list[object]:
    """Return the different values, numbers by size; values of several types come one type after another."""
    return sorted(values.dropna().unique().tolist(), key=lambda value: (type(value).__name__, value))


_LEGEND_ROWS = 20


def _legend_size(labels: Sequence[str]) -> tuple[float, float]:
    """Return about the width and height of a legend, in inches."""
    columns = -(-len(labels) // _LEGEND_ROWS)
    return columns * (0.5 + 0.062 * max(map(len, labels))), 0.5 + 0.16 * min(len(labels), _LEGEND_ROWS)


def _draw_legend(ax: Axes, handles: Sequence[Artist], labels: Sequence[str], title: str | None) -> None:
    """Draw a legend on the right of the axes, in columns; labels are set last, for matplotlib leaves some out."""
    legend = ax.legend(
        handles,
        list(map(str, range(len(labels)))),
        title=None if title is None else plain_text(title),
        title_fontsize=8,
        fontsize=7,
        frameon=False,
        ncols=-(-len(labels) // _LEGEND_ROWS),
        loc="center left",
        bbox_to_anchor=(1, 0.5),
    )
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_text(plain_text(label))


def effect_heatmap(
    atlas: anndata.AnnData,
    intervention: str | None = None,
    *,
    by: str,
    genes: int = 20,
    ax: Axes | None = None,
) -> Axes:
    r"""Draw a heat map of an intervention's effect: the genes that change most, for each label of a column.

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
    >>> obs["source_cell"] = obs["type"]
    >>> expression = np.float32([[0.0, 1.0], [2.0, 1.0], [0.0, 2.0], [1.0, 2.0]])
    >>> atlas = anndata.AnnData(expression, obs=obs, var=pd.DataFrame(index=["ISG15", "CD3E"]))
    >>> ax = effect_heatmap(atlas, by="type")
    >>> ax.get_title()
    'effect of do(stim=IFN),\nby type'
    >>> matplotlib.pyplot.close(ax.figure)
    """
    import matplotlib.pyplot as plt

    effects = intervention_effects(atlas, intervention, by=by)
    largest = (-effects.abs().max().to_numpy()).argsort(kind="stable")[:genes]
    means = effects.mean().to_numpy()
    shown = effects.iloc[:, sorted(largest, key=lambda gene: -means[gene])]
    rows, columns = list(map(plain_text, shown.index)), list(map(plain_text, shown.columns))
    if ax is None:
        width, height = 1.5 + 0.3 * len(columns), 1.2 + 0.35 * len(rows)
        size = (width + 0.07 * max(map(len, rows)), height + 0.075 * max(map(len, columns)))
        ax = plt.subplots(figsize=size, layout="constrained")[1]
    limit = float(np.abs(shown.to_numpy()).max()) or 1.0
    image = ax.imshow(shown, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", origin="upper")
    ax.set_xticks(range(len(columns)), columns, rotation=90, fontsize=8)
    ax.set_yticks(range(len(rows)), rows, fontsize=8)
    ax.set_title(f"effect of {_title(atlas, intervention)},\nby {plain_text(by)}", fontsize=10)
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

    overall = intervention_effects(atlas, intervention).iloc[0].to_numpy()
    effects = None if by is None else intervention_effects(atlas, intervention, by=by)
    largest = (-np.abs(overall)).argsort(kind="stable")[:genes]
    order = largest[overall[largest].argsort(kind="stable")]
    shown, names = overall[order], [plain_text(name) for name in atlas.var_names[order]]
    if ax is None:
        width, height = (0.0, 0.0) if effects is None else _legend_size(list(effects.index))
        size = (5.5 + width + 0.07 * max(map(len, names)), max(1.2 + 0.24 * len(shown), height))
        ax = plt.subplots(figsize=size, layout="constrained")[1]
    places = np.arange(len(shown))
    ax.barh(places, shown, color=np.where(shown > 0, "#d6604d", "#4393c3"), height=0.7, zorder=1)
    if effects is not None:
        dots = [
            ax.scatter(effect[order], places, s=18, color=[colour], edgecolors="white", linewidths=0.4, zorder=2)
            for colour, effect in zip(distinct_colours(len(effects)), effects.to_numpy(), strict=True)
        ]
        _draw_legend(ax, dots, list(effects.index), by)
    ax.axvline(0, color="0.3", linewidth=0.8)
    ax.set_yticks(places, names, fontsize=8)
    ax.set_xlabel("mean change, log scale")
    ax.set_title(f"genes most changed by {_title(atlas, intervention)}", fontsize=10)
    return ax


def _title(atlas: anndata.AnnData, intervention: str | None) -> str:
    named = [name for name in dict.fromkeys(atlas.obs["intervention"].astype(str)) if name != "factual"]
    return f"do({plain_text(intervention or named[0])})"


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

    x, y = (_expression(results) for results in _same_cells(factual, counterfactual))
    centre = x.mean(axis=0)
    components = np.linalg.svd(x - centre, full_matrices=False)[2][:2].T
    a, b = (x - centre) @ components, (y - centre) @ components
    own, labels = (np.full(len(a), "cells"), ["cells"]) if color is None else _labels(factual, color)
    after, others = (own, []) if color is None else _labels(counterfactual, color)
    labels = [label for label in dict.fromkeys([*labels, *others]) if label in own or label in after]
    if ax is None:
        width, height = _legend_size(labels)
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
    _draw_legend(ax, handles, labels, color)
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


def _require_expression(results: anndata.AnnData) -> None:
    if results.X is None:
        raise ConfigurationError("the results hold no expression; generate or materialize it first")
    if results.uns.get("causcell", {}).get("store") == "counts" and results.X.dtype.kind == "i":
        raise ConfigurationError("the results hold counts; take log1p of counts per 10,000 first (obs['library_size'])")


def _expression(results: anndata.AnnData) -> np.ndarray:
    """Return expression as a dense array; raises where there is none or a value is not finite."""
    _require_expression(results)
    values = results.X.toarray() if hasattr(results.X, "toarray") else np.asarray(results.X)
    if not np.isfinite(values).all():
        raise DataError("the results hold values that are not finite; generate them again")
    return values
