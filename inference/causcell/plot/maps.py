"""Figure of real cells beside their counterfactuals, on one map."""

from __future__ import annotations

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
    color: str | None = None,
    most: int = 3_000,
    seed: int = 0,
    axes: tuple[Axes, Axes] | None = None,
) -> tuple[Axes, Axes]:
    """Draw real cells beside counterfactual ones on one UMAP: where they were, and where they would be.

    Both are projected on the principal components of the real cells, and one map is made of both (McInnes, Healy and
    Melville 2018), so that places in the two panels mean the same. Distances on such a map are no measure of an effect.

    Parameters
    ----------
    cells
        Real cells with the panel's genes, or factual results. Whole numbers are counts, and are taken as log1p of
        counts per 10,000 over all genes.
    counterfactual
        Results of `causcell.Generator.counterfactual`, as samples: means lie inside the cloud of cells.
    color
        Column of ``obs`` of both that colours cells, such as ``cell_type``; a counterfactual cell has the colour that
        it had before (``<color>_factual``), so that one sees where it went. scanpy's stored colours are taken.
    most
        Cells of each kind at most, evenly spaced.
    seed
        Seed of the map.
    axes
        Two axes to draw on; a new figure's, if not given.

    Returns
    -------
    Both axes.

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
    from matplotlib.lines import Line2D

    _require_genes(cells, counterfactual)
    cells, counterfactual = (_spaced(each, most) for each in (cells, counterfactual))
    real, other = _log_expression(cells, list(counterfactual.var_names)), dense_expression(counterfactual)
    places = _map(real, other, seed)
    before, after = places[: len(real)], places[len(real) :]
    if axes is None:
        axes = plt.subplots(1, 2, figsize=(10.5, 4.6), sharex=True, sharey=True, layout="constrained")[1]
    left, right = axes
    _dots(right, before, "0.88")
    if color is None:
        _dots(left, before, "#0072B2")
        _dots(right, after, "#D55E00")
    else:
        own, labels = read_labels(cells, color)
        kept = f"{color}_factual" if f"{color}_factual" in counterfactual.obs else color
        theirs, others = read_labels(counterfactual, kept)
        labels = [label for label in dict.fromkeys([*labels, *others]) if label in own or label in theirs]
        colours = label_colours(cells, color, labels)
        for label in labels:
            _dots(left, before[own == label], colours[label])
            _dots(right, after[theirs == label], colours[label])
        dots = [Line2D([], [], color=colours[each], marker="o", markersize=5, linestyle="none") for each in labels]
        draw_legend(right, dots, labels, color)
    left.set_title(f"{len(real):,} real cells", fontsize=10)
    right.set_title(f"{len(other):,} counterfactual cells, {_interventions(counterfactual)}", fontsize=10)
    for ax in axes:
        ax.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
        ax.spines[["top", "right"]].set_visible(False)
    return left, right


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


def _map(real: np.ndarray, other: np.ndarray, seed: int) -> np.ndarray:
    """Place real and other cells on one map, float32 [N x 2]."""
    try:
        from umap import UMAP
    except ModuleNotFoundError as error:
        raise RuntimeUnavailableError(
            "this figure needs the package 'umap-learn'; install causcell[evaluate]"
        ) from error
    import warnings

    centre = real.mean(axis=0)
    axes = np.linalg.svd(real - centre, full_matrices=False)[2][:_COMPONENTS].T
    points = np.concatenate([(real - centre) @ axes, (other - centre) @ axes])
    neighbours = min(15, len(points) - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a seed costs it its threads
        placed: np.ndarray = UMAP(n_neighbors=neighbours, min_dist=0.3, random_state=seed, init="pca").fit_transform(
            points
        )
    return placed


def _interventions(results: anndata.AnnData) -> str:
    if "intervention" not in results.obs:
        return "as given"
    named: Any = [f"do({plain_text(name)})" for name in dict.fromkeys(results.obs["intervention"].astype(str))]
    return ", ".join(named[:3]) + (" ..." if len(named) > 3 else "")
