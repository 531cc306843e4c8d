"""Effects of an intervention by gene and label: numbers, a heat map, the genes that change most."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from causcell._internal.choices import suggest
from causcell._internal.figures import distinct_colours, plain_text
from causcell.errors import ConfigurationError, DataError, format_list
from causcell.plot.shared import draw_legend, legend_size, read_labels, require_expression

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
    require_expression(atlas)
    chosen = there == intervention
    labels, order = (np.full(len(there), "all cells"), ["all cells"]) if by is None else read_labels(atlas, by)
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
        width, height = (0.0, 0.0) if effects is None else legend_size(list(effects.index))
        size = (5.5 + width + 0.07 * max(map(len, names)), max(1.2 + 0.24 * len(shown), height))
        ax = plt.subplots(figsize=size, layout="constrained")[1]
    places = np.arange(len(shown))
    ax.barh(places, shown, color=np.where(shown > 0, "#d6604d", "#4393c3"), height=0.7, zorder=1)
    if effects is not None:
        dots = [
            ax.scatter(effect[order], places, s=18, color=[colour], edgecolors="white", linewidths=0.4, zorder=2)
            for colour, effect in zip(distinct_colours(len(effects)), effects.to_numpy(), strict=True)
        ]
        draw_legend(ax, dots, list(effects.index), by)
    ax.axvline(0, color="0.3", linewidth=0.8)
    ax.set_yticks(places, names, fontsize=8)
    ax.set_xlabel("mean change, log scale")
    ax.set_title(f"genes most changed by {_title(atlas, intervention)}", fontsize=10)
    return ax


def _title(atlas: anndata.AnnData, intervention: str | None) -> str:
    named = [name for name in dict.fromkeys(atlas.obs["intervention"].astype(str)) if name != "factual"]
    return f"do({plain_text(intervention or named[0])})"
