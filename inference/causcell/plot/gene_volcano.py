"""Figure of every gene's effect against how sure it is."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell._internal.figures import plain_text
from causcell._internal.svg import place_labels
from causcell.errors import ConfigurationError, format_list

if TYPE_CHECKING:
    import anndata
    import pandas as pd
    from matplotlib.axes import Axes

_UP, _DOWN, _KNOWN = "#D55E00", "#0072B2", "#000000"
_MOST = 300.0
"""-log10 of the smallest p-value that is told apart from 0."""


def volcano(
    effects: pd.DataFrame | anndata.AnnData,
    group: str | None = None,
    *,
    known: Collection[str] = (),
    names: int = 10,
    ax: Axes | None = None,
) -> Axes:
    """Draw each gene's effect against the p-value of its test, with the genes that were called in colour.

    Parameters
    ----------
    effects
        A trial of `causcell.Generator.trial`, or its table (`causcell.get.effects_df`).
    group
        The label (or the cell) whose genes are drawn; the only one, if not given.
    known
        Genes to mark, such as those that the literature names for this intervention.
    names
        Number of genes to name beside the known ones: half of them raised and half lowered, those furthest out.
    ax
        Axes to draw on; a new figure's, if not given.

    Returns
    -------
    The axes, with the effect (natural log scale) along x and -log10 of the adjusted p-value along y, cut at 300.

    Raises
    ------
    ConfigurationError
        There are several groups and none was named, or not the one that was, or the table is of another form.
    """
    import matplotlib.pyplot as plt

    table = _choose(_as_table(effects), group)
    x = table["effect"].to_numpy(float)
    y = np.minimum(-np.log10(np.maximum(table["pvals_adj"].to_numpy(float), 10**-_MOST)), _MOST)
    called, genes = table["changed"].to_numpy(bool), table["names"].astype(str).to_numpy()
    marked = np.isin(genes, list(known))
    if ax is None:
        ax = plt.subplots(figsize=(6, 5), layout="constrained")[1]
    for chosen, colour, text in (
        (~called, "0.75", "not called"),
        (called & (x > 0), _UP, "raised"),
        (called & (x < 0), _DOWN, "lowered"),
    ):
        ax.scatter(x[chosen], y[chosen], s=12, color=colour, linewidths=0, label=f"{text} ({chosen.sum():,})")
    if marked.any():
        ax.scatter(x[marked], y[marked], s=42, facecolors="none", edgecolors=_KNOWN, label=f"known ({marked.sum():,})")
    outer = np.where(called, x * y, 0)
    chosen = (_rank(outer) < names - names // 2) | (_rank(-outer) < names // 2)
    named = np.flatnonzero(marked | chosen)
    ax.axvline(0, color="0.6", linewidth=0.7, zorder=0)
    ax.set(xlabel="effect: mean change, natural log", ylabel="-log10 adjusted p-value")
    ax.margins(x=0.12, y=0.08)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_title(f"{len(genes):,} genes" + (f", {plain_text(group)}" if group else ""), fontsize=10)
    ax.legend(frameon=False, fontsize=8, loc="best")
    _name_genes(ax, x, y, genes, named)
    return ax


def _as_table(effects: pd.DataFrame | anndata.AnnData) -> pd.DataFrame:
    if hasattr(effects, "obs"):
        from causcell.get import effects_df

        return effects_df(effects)
    lacking = {"names", "effect", "pvals_adj", "changed"} - set(effects.columns)
    if lacking:
        raise ConfigurationError(
            f"the table has no column {format_list(sorted(lacking))}; give causcell.get.effects_df"
        )
    return effects


def _choose(table: pd.DataFrame, group: str | None) -> pd.DataFrame:
    if "group" not in table:
        return table
    there = list(dict.fromkeys(table["group"].astype(str)))
    if group is None and len(there) == 1:
        group = there[0]
    if group not in there:
        raise ConfigurationError(f"the table has no group {group!r}; name one of {format_list(there)}")
    return table[table["group"].astype(str) == group]


def _rank(values: np.ndarray) -> np.ndarray:
    """Rank values from the largest, 0, with those that are not positive last."""
    ranks = np.empty(len(values), dtype=int)
    ranks[np.argsort(-values, kind="stable")] = np.arange(len(values))
    return np.where(values > 0, ranks, len(values))


def _name_genes(ax: Axes, x: np.ndarray, y: np.ndarray, genes: np.ndarray, named: np.ndarray) -> None:
    """Write names beside their dots where there is room, from the top down: none covers another or a named dot."""
    from matplotlib.patheffects import withStroke

    figure: Any = ax.figure
    figure.draw_without_rendering()  # where the axes stand, a layout settles when it is drawn
    point = 72 / figure.dpi
    order = sorted(named, key=lambda each: -y[each])
    places = ax.transData.transform(np.column_stack([x[order], y[order]])) * [point, -point]
    corner = ax.get_window_extent().extents * point
    box = (corner[0], -corner[3], corner[2] + 30, -corner[1])
    points = [(str(genes[gene]), float(px), float(py)) for gene, (px, py) in zip(order, places, strict=True)]
    for label in place_labels(points, box, height=7, radius=3.5):
        gene = points.index((label.text, *label.point))
        dx, dy = label.x - label.point[0], label.point[1] - (label.y - 0.3 * 7)
        ax.annotate(
            plain_text(label.text),
            (x[order[gene]], y[order[gene]]),
            xytext=(dx, dy),
            textcoords="offset points",
            fontsize=7,
            ha={"start": "left", "middle": "center", "end": "right"}[label.anchor],
            va="center",
            path_effects=[withStroke(linewidth=1.6, foreground="white")],
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "0.5"} if abs(dy) > 5 else None,
        )
