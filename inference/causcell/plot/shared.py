"""What figures share: labels and expression of results, and legends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell._internal.choices import suggest
from causcell._internal.figures import plain_text, safe_colours
from causcell.errors import ConfigurationError, DataError, format_list

if TYPE_CHECKING:
    import anndata
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

_UNLABELLED = "(unlabelled)"

_MOST_NUMBERS = 40
"""Distinct numbers of a column that figures take for labels, at most."""


def read_labels(results: anndata.AnnData, column: str) -> tuple[np.ndarray, list[str]]:
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


def require_expression(results: anndata.AnnData) -> None:
    """Raise where results hold no log expression."""
    if results.X is None:
        raise ConfigurationError("the results hold no expression; generate or materialize it first")
    if results.uns.get("causcell", {}).get("store") == "counts" and results.X.dtype.kind == "i":
        raise ConfigurationError("the results hold counts; take log1p of counts per 10,000 first (obs['library_size'])")


def dense_expression(results: anndata.AnnData) -> np.ndarray:
    """Return expression as a dense array; raises where there is none or a value is not finite."""
    require_expression(results)
    values = results.X.toarray() if hasattr(results.X, "toarray") else np.asarray(results.X)
    if not np.isfinite(values).all():
        raise DataError("the results hold values that are not finite; generate them again")
    return values


_LEGEND_ROWS = 20


def legend_size(labels: Sequence[str]) -> tuple[float, float]:
    """Return about the width and height of a legend, in inches."""
    columns = -(-len(labels) // _LEGEND_ROWS)
    return columns * (0.5 + 0.062 * max(map(len, labels))), 0.5 + 0.16 * min(len(labels), _LEGEND_ROWS)


def draw_legend(ax: Axes, handles: Sequence[Artist], labels: Sequence[str], title: str | None) -> None:
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


def label_colours(results: anndata.AnnData, column: str, labels: Sequence[str]) -> dict[str, Any]:
    """Return a colour for each label: those that scanpy stored (``uns["<column>_colors"]``), else safe ones."""
    found: dict[str, Any] = dict(stored_colours(results, column))
    others = [label for label in labels if label not in found and label != _UNLABELLED]
    return found | dict(zip(others, safe_colours(len(others)), strict=True)) | {_UNLABELLED: "0.7"}


def stored_colours(cells: anndata.AnnData, column: str) -> dict[str, str]:
    """Return the colour of each label that scanpy stored, ``#rrggbb``; nothing where they do not fit the labels.

    Parameters
    ----------
    cells
        Cells with ``obs[column]`` and ``uns["<column>_colors"]``; a value that is no colour is left out.
    column
        Column of ``obs``.

    Examples
    --------
    >>> import anndata, pandas as pd
    >>> cells = anndata.AnnData(obs=pd.DataFrame({"kind": pd.Categorical(["T", "B"])}, index=["1", "2"]))
    >>> cells.uns["kind_colors"] = ["#1f77b4", "tomato"]
    >>> stored_colours(cells, "kind")
    {'B': '#1f77b4', 'T': '#ff6347'}
    """
    stored = cells.uns.get(f"{column}_colors")
    categories = getattr(cells.obs[column], "cat", None) if column in cells.obs else None
    if stored is None or categories is None or len(stored) != len(categories.categories):
        return {}
    from matplotlib.colors import is_color_like, to_hex

    pairs = zip(map(str, categories.categories), map(str, stored), strict=True)
    return {label: to_hex(colour) for label, colour in pairs if is_color_like(colour)}
