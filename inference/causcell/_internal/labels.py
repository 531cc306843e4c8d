"""Columns of ``obs`` that hold labels, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from causcell.errors import ConceptError, UnknownConceptError, format_list

if TYPE_CHECKING:
    import pandas as pd

_MOST_LABELS = 1000


def label_column(obs: pd.DataFrame, name: str) -> pd.Series:
    """Read a column of labels as strings.

    Returns
    -------
    Labels, strings, with `None` for a missing value; whole numbers read the same however they are stored.

    Raises
    ------
    UnknownConceptError
        There is no such column.
    ConceptError
        The column holds continuous or infinite numbers.
    """
    import pandas as pd

    if name not in obs:
        raise UnknownConceptError(
            f"obs has no column {name!r} for a concept; its columns are {format_list(obs.columns, 40)}"
        )
    column = obs[name]
    values = column.cat.categories.to_series() if isinstance(column.dtype, pd.CategoricalDtype) else column.dropna()
    if pd.api.types.is_float_dtype(values.dtype):
        odd = values[~(np.isfinite(values) & (values == values.round()))]
        if len(odd):
            raise ConceptError(
                f"obs[{name!r}] holds continuous or infinite numbers (such as {odd.iloc[0]:g}); a concept has labels: "
                "cut it into bins first (pandas.cut)"
            )
        column = column.astype("Int64")  # 3.0 and 3 are one label
    return column.astype("string").astype(object).where(column.notna(), None)


def read_labels(obs: pd.DataFrame, name: str) -> tuple[tuple[str, ...], bool]:
    """Find the labels that cells carry in a column.

    Returns
    -------
    The labels in order, and whether the column is an ordered categorical one. Its order is kept; other labels are
    sorted, by value where all are whole numbers, else by text.

    Raises
    ------
    UnknownConceptError
        There is no such column.
    ConceptError
        The column holds continuous or infinite numbers, or too many labels.
    """
    import pandas as pd

    present = set(label_column(obs, name).dropna().unique())
    if len(present) > _MOST_LABELS:
        raise ConceptError(
            f"obs[{name!r}] has {len(present)} distinct labels in {len(obs)} cells, more than {_MOST_LABELS}; "
            "is it an identifier? Name a column of labels, or cut it into bins (pandas.cut)"
        )
    dtype = obs[name].dtype
    ordered = isinstance(dtype, pd.CategoricalDtype) and bool(dtype.ordered)
    if not ordered:
        return tuple(_sort(present)), False
    categories = pd.DataFrame({name: pd.Categorical(dtype.categories, dtype=dtype)})
    names = label_column(categories, name).tolist()  # the same text as the labels of cells
    return tuple(label for label in names if label in present), True


def _sort(labels: set[str]) -> list[str]:
    if all(label.removeprefix("-").isdecimal() for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))  # "1" and "01" are one value, but two labels
    return sorted(labels)
