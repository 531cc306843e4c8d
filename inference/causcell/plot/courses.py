"""Figure of cells' course over the numbers, or ordered labels, that a concept was set to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell._internal.choices import suggest
from causcell._internal.figures import distinct_colours, plain_text
from causcell.errors import ConfigurationError, DataError, format_list

if TYPE_CHECKING:
    import anndata
    from matplotlib.axes import Axes


def value_course(
    results: anndata.AnnData, concept: str, genes: str | Sequence[str], *, cells: int = 0, ax: Axes | None = None
) -> Axes:
    """Draw the mean expression of genes over the values that a concept was set to, as by ``grid=["dose=0:10:0.5"]``.

    Parameters
    ----------
    results
        Counterfactual rows of a grid over a concept whose column of ``obs`` holds numbers, or ordered labels (an
        ordered categorical column); factual rows and those of other concepts alone are left out.
    concept
        Name of the concept.
    genes
        Names of genes, a line each.
    cells
        Draw the courses of so many single cells, the first ones, as thin lines too.
    ax
        Axes to draw on; a new figure's, if not given.

    Returns
    -------
    The axes, with the concept's numbers along x, in the data's units, or its labels at even steps, and what ``X`` holds
    along y.

    Raises
    ------
    ConfigurationError
        The concept has neither numbers nor ordered labels, was not set to two of them, or there is no such gene.
    DataError
        A value that is not finite, or a row that lacks the value that it was set to.

    Examples
    --------
    >>> import anndata, matplotlib, numpy as np, pandas as pd
    >>> matplotlib.use("agg")
    >>> obs = pd.DataFrame({"dose": [0.0, 1.0], "source_cell": "a"}, index=["a|dose=0", "a|dose=1"])
    >>> obs["intervention"] = ["dose=0", "dose=1"]
    >>> course = anndata.AnnData(np.float32([[0.0], [2.0]]), obs=obs, var=pd.DataFrame(index=["ISG15"]))
    >>> value_course(course, "dose", "ISG15").lines[0].get_ydata().tolist()
    [0.0, 2.0]
    """
    import matplotlib.pyplot as plt

    names = [genes] if isinstance(genes, str) else list(genes)
    chosen, numbers, labels = _find_rows(results, concept)
    values = _take_genes(results, chosen, names)
    grid, place = np.unique(numbers, return_inverse=True)
    if ax is None:
        ax = plt.subplots(figsize=(5.5, 4.0), layout="constrained")[1]
    sources = results.obs["source_cell"].astype(str).to_numpy()[chosen]
    shown = list(dict.fromkeys(sources.tolist()))[:cells]
    for gene, (name, colour) in enumerate(zip(names, distinct_colours(len(names)), strict=True)):
        mean = np.bincount(place, values[:, gene]) / np.bincount(place)
        ax.plot(grid, mean, color=colour, marker="o", markersize=3, label=plain_text(name), zorder=3)
        for cell in shown:
            rows = np.flatnonzero(sources == cell)
            rows = rows[numbers[rows].argsort(kind="stable")]
            ax.plot(numbers[rows], values[rows, gene], color=colour, alpha=0.3, linewidth=0.6, zorder=1)
    if labels is not None:
        ax.set_xticks(grid, [plain_text(labels[int(rank)]) for rank in grid], rotation=30, ha="right")
    ax.set_xlabel(f"do({plain_text(concept)})")
    ax.set_ylabel("mean over cells of X")
    ax.legend(fontsize=7, frameon=False)
    return ax


def _take_genes(results: anndata.AnnData, rows: np.ndarray, names: list[str]) -> np.ndarray:
    """Take genes by name, float64 [rows x genes]."""
    unknown = [name for name in names if name not in results.var_names]
    if unknown or not names:
        raise ConfigurationError(
            f"there is no gene {format_list(unknown)}; {suggest(unknown[0], results.var_names) if unknown else ''}name "
            "genes of the results' panel"
        )
    values = results.X[rows][:, results.var_names.get_indexer(names)]
    values = np.asarray(values.toarray() if hasattr(values, "toarray") else values, dtype=np.float64)
    if not np.isfinite(values).all():
        raise DataError("the results hold values that are not finite; generate them again")
    return values


def _find_rows(results: anndata.AnnData, concept: str) -> tuple[np.ndarray, np.ndarray, list[str] | None]:
    """Return the rows whose intervention sets a concept, the numbers or ranks it is set to, and the ranks' labels."""
    column = results.obs.get(concept)
    labels = None
    if column is not None and getattr(column.dtype, "ordered", False):
        labels = [str(label) for label in column.cat.categories]
        column = column.cat.codes.where(column.notna())
    elif column is None or column.dtype.kind not in "fiu":
        drawn = [name for name in results.obs if _can_be_drawn(results.obs[name].dtype)]
        raise ConfigurationError(
            f"obs[{concept!r}] holds neither numbers nor ordered labels; name a continuous or an ordinal concept "
            f"(columns of such are {format_list(drawn) or 'none'})"
        )
    titles = results.obs["intervention"].astype(str)
    set_here = titles.map({title: f";{title}".find(f";{concept}=") >= 0 for title in titles.unique()}).to_numpy(
        dtype=bool
    )
    rows = np.flatnonzero(set_here)
    numbers = column.to_numpy(dtype=np.float64)[rows]
    if not np.isfinite(numbers).all():
        raise DataError(f"obs[{concept!r}] lacks the value in rows that set it; generate the results again")
    if len(np.unique(numbers)) < 2:
        grid = f"{concept}=0:10:1" if labels is None else concept
        raise ConfigurationError(
            f"the results set {concept!r} to {len(np.unique(numbers))} values, and a course takes two; generate a grid "
            f"(grid=[{grid!r}])"
        )
    return rows, numbers, labels


def _can_be_drawn(dtype: Any) -> bool:
    return dtype.kind == "f" or bool(getattr(dtype, "ordered", False))
