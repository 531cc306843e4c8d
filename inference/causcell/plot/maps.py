"""Figure of real cells beside their counterfactuals, on one map."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell._internal.figures import plain_text
from causcell.errors import ConfigurationError, RuntimeUnavailableError, format_list
from causcell.plot.shared import dense_expression, draw_legend, label_colours, read_labels

if TYPE_CHECKING:
    import anndata
    from matplotlib.axes import Axes

_COMPONENTS = 30
"""Principal components of the real cells that the map is made from."""

_TOTAL = 10_000


def umap_pair(
    cells: anndata.AnnData,
    counterfactual: anndata.AnnData,
    *,
    factual: anndata.AnnData | None = None,
    color: str | None = None,
    most: int = 1_300,
    seed: int = 0,
    axes: Sequence[Axes] | None = None,
) -> tuple[Axes, ...]:
    """Draw real cells beside counterfactual ones on one UMAP: where they were, and where they would be.

    All are projected on the principal components of the real cells, and one map is made of all (McInnes, Healy and
    Melville 2018): places in the panels mean the same. Distances on such a map are no measure of an effect.

    Parameters
    ----------
    cells
        Real cells with the panel's genes, or factual results; whole numbers are taken for counts, and scaled.
    counterfactual
        Results of `causcell.Generator.counterfactual`: samples, as means lie inside the cloud of cells.
    factual
        Results of `causcell.Generator.reconstruct`, for a panel between the two: the cells as the model makes them.
    color
        Column of ``obs`` of all that colours cells, such as ``cell_type``; a counterfactual cell has the colour that
        it had before (``<color>_factual``), so that one sees where it went. scanpy's stored colours are taken.
    most
        Cells of each kind at most, evenly spaced. With more than 4,096 in all, UMAP takes a minute longer: it compiles
        another search for neighbours.
    seed
        Seed of the map.
    axes
        Axes to draw on, one a panel; a new figure's, if not given.

    Returns
    -------
    The axes, one a panel.

    Raises
    ------
    ConfigurationError
        The cells lack genes of the results, fewer than two cells, or no such column.
    DataError
        A value that is not finite.
    RuntimeUnavailableError
        umap-learn is not installed; it comes with ``causcell[evaluate]``.
    """
    import matplotlib.pyplot as plt

    _require_genes(cells, counterfactual)
    shown = [_spaced(each, most) for each in (cells, factual, counterfactual) if each is not None]
    genes = list(counterfactual.var_names)
    values = [_log_expression(shown[0], genes), *(dense_expression(each[:, genes]) for each in shown[1:])]
    places = place_on_umap(values, seed)
    if axes is None:
        size = (3.9 * len(shown) + 1.6, 3.9)
        axes = plt.subplots(1, len(shown), figsize=size, sharex=True, sharey=True, layout="constrained")[1]
    for ax in axes[1:]:
        _dots(ax, places[0], "0.88")
    if color is None:
        for ax, own in zip(axes, places, strict=True):
            _dots(ax, own, "#0072B2" if ax is axes[0] else "#D55E00")
    else:
        _draw_labels(axes, places, shown, color)
    words = ["real cells", *(["cells as the model makes them"] if factual is not None else []), "counterfactual cells"]
    for ax, word, own in zip(axes, words, places, strict=True):
        ax.set_title(f"{len(own):,} {word}", fontsize=10)
        ax.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
        ax.spines[["top", "right"]].set_visible(False)
    axes[-1].set_title(f"{axes[-1].get_title()}, {_interventions(counterfactual)}", fontsize=10)
    return tuple(axes)


def _draw_labels(
    axes: Sequence[Axes], places: Sequence[np.ndarray], shown: Sequence[anndata.AnnData], color: str
) -> None:
    """Draw each panel's cells by their labels before the intervention, with one legend."""
    from matplotlib.lines import Line2D

    kept = f"{color}_factual"
    labelled = [read_labels(each, kept if each is not shown[0] and kept in each.obs else color) for each in shown]
    labels = list(dict.fromkeys(itertools.chain(*(names for _, names in labelled))))
    labels = [name for name in labels if any(name in own for own, _ in labelled)]
    colours = label_colours(shown[0], color, labels)
    for label in labels:
        for ax, own, (of_cells, _) in zip(axes, places, labelled, strict=True):
            _dots(ax, own[of_cells == label], colours[label])
    dots = [Line2D([], [], color=colours[each], marker="o", markersize=5, linestyle="none") for each in labels]
    draw_legend(axes[-1], dots, labels, color)


def _dots(ax: Axes, places: np.ndarray, colour: Any) -> None:
    ax.scatter(places[:, 0], places[:, 1], s=6, color=[colour], linewidths=0, rasterized=True)


def _require_genes(cells: anndata.AnnData, counterfactual: anndata.AnnData) -> None:
    lacking = counterfactual.var_names.difference(cells.var_names, sort=False)
    if len(lacking):
        raise ConfigurationError(
            f"the real cells lack {len(lacking)} of the results' {counterfactual.n_vars} genes: "
            f"{format_list(lacking, 3)}; give cells with all genes of the panel, or factual results"
        )
    if min(cells.n_obs, counterfactual.n_obs) < 2:
        raise ConfigurationError(
            f"{cells.n_obs} real and {counterfactual.n_obs} counterfactual cells make no map; take at least two of both"
        )


def _spaced(cells: anndata.AnnData, most: int) -> anndata.AnnData:
    if cells.n_obs <= most:
        return cells
    return cells[np.linspace(0, cells.n_obs - 1, most).astype(int)]


def _log_expression(cells: anndata.AnnData, genes: list[str]) -> np.ndarray:
    """Return the genes' expression on the log scale, float32 [N x G]."""
    values = dense_expression(cells[:, genes])
    if (values == np.round(values)).all() and values.max() > 1:
        totals = np.asarray(cells.X.sum(axis=1), dtype=np.float64).reshape(-1, 1)
        values = np.log1p(values * (_TOTAL / np.maximum(totals, 1)))
    return values.astype(np.float32)


def place_on_umap(values: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """Place several groups of cells on one UMAP.

    Parameters
    ----------
    values
        Expression of each group, log scale, [N x G]; the principal components are those of the first.
    seed
        Seed of the map.

    Returns
    -------
    Places of each group, float32 [N x 2].

    Raises
    ------
    RuntimeUnavailableError
        umap-learn is not installed.
    """
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it could do more with tensorflow
            from sklearn.utils.extmath import randomized_svd
            from umap import UMAP
    except ModuleNotFoundError as error:
        raise RuntimeUnavailableError(
            "this figure needs the package 'umap-learn'; install causcell[evaluate]"
        ) from error
    centre = values[0].mean(axis=0)
    shown = min(_COMPONENTS, *values[0].shape)
    axes = randomized_svd(values[0] - centre, shown, random_state=seed)[2].T
    points = np.concatenate([(each - centre) @ axes for each in values])
    neighbours = min(15, len(points) - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a seed costs it its threads
        umap = UMAP(n_neighbors=neighbours, min_dist=0.3, random_state=seed, init="pca")
        placed = umap.fit_transform(points)
    return np.split(placed, np.cumsum([len(each) for each in values])[:-1])


def _interventions(results: anndata.AnnData) -> str:
    if "intervention" not in results.obs:
        return "as given"
    named: Any = [f"do({plain_text(name)})" for name in dict.fromkeys(results.obs["intervention"].astype(str))]
    return ", ".join(named[:3]) + (" ..." if len(named) > 3 else "")
