"""Columns of ``obs`` that hold labels, as text; and the label that a value means."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell._internal.choices import suggest
from causcell.errors import ConceptError, UnknownConceptError, UnknownLabelError, format_list

if TYPE_CHECKING:
    import pandas as pd

MOST_LABELS = 1000
"""Labels that a concept may have; more are an identifier or a measurement."""

_NUMBER = re.compile(r"[+-]?(0|[1-9]\d{0,300})(\.\d{1,300})?([eE][+-]?\d{1,3})?", re.ASCII)
"""Text that is a number; 01 is not: leading zeros make it an identifier."""

_SORTED_BY_VALUE = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d{1,3})?")

_INT64 = 2.0**63


def label_text(value: Any) -> str:
    """Return the label of a value: text as it is, a number by the shortest form that is one for all ways to store it.

    Examples
    --------
    >>> import numpy as np
    >>> [label_text(value) for value in ("IFN ", True, 35, 35.0, 0.1, np.float32(0.1), float(np.float32(0.1)))]
    ['IFN ', 'True', '35', '35', '0.1', '0.1', '0.1']
    """
    if not isinstance(value, float | np.floating):
        return str(value)
    number = float(value)
    if not np.isfinite(number):
        return str(number)
    if number == np.floor(number) and abs(number) < _INT64:
        return str(int(number))
    if isinstance(value, np.float16 | np.float32):
        return str(value)
    text = repr(number)
    with np.errstate(over="ignore"):
        narrow = np.float32(number)
    if len(text) > len(str(narrow)) and float(narrow) == number:  # was float32 once: 0.10000000149011612
        return str(narrow)
    return text


def number_text(value: Any) -> str | None:
    """Return `label_text` of the number that a value or a text is; `None` for what is no number.

    Examples
    --------
    >>> number_text("35.0"), number_text(np.float64(35)), number_text("01"), number_text(True)
    ('35', '35', None, None)
    """
    if isinstance(value, bool | np.bool_):
        return None
    text = value.strip() if isinstance(value, str) else label_text(value)
    if not _NUMBER.fullmatch(text):
        return None
    try:
        return str(int(text))
    except ValueError:
        number = float(text)
        return label_text(number) if np.isfinite(number) else None


def find_label(value: Any, labels: Sequence[str], concept: str) -> int:
    """Find the label that a value means: its own text, or else the one label that is the same number.

    Returns
    -------
    Place among ``labels``.

    Raises
    ------
    UnknownLabelError
        No label is meant, or more than one.

    Examples
    --------
    >>> find_label(35.0, ("9", "35"), "age"), find_label("35.0", ("9", "35"), "age")
    (1, 1)
    """
    if isinstance(value, str) and value in labels:
        return labels.index(value)
    own = {str(value), label_text(value)} & set(labels)
    number = number_text(value)
    equal = [label for label in labels if number is not None and number_text(label) == number]
    meant = sorted(own) or equal
    if len(meant) == 1:
        return labels.index(meant[0])
    if meant:
        raise UnknownLabelError(
            f"{value!r} is the number of several labels of concept {concept!r}: {format_list(meant)}; give the text of "
            "one of them"
        )
    raise UnknownLabelError(
        f"concept {concept!r} has no label {str(value)!r}; {suggest(value, labels)}its labels are "
        f"{format_list(labels, 40)}"
    )


def require_column(columns: Iterable[str], name: str) -> None:
    """Raise `UnknownConceptError` if a concept is no column of ``obs``."""
    known = list(columns)
    if name not in known:
        raise UnknownConceptError(
            f"obs has no column {name!r} for a concept; {suggest(name, known)}its columns are {format_list(known, 40)}"
        )


def label_column(obs: pd.DataFrame, name: str) -> pd.Series:
    """Read a column of labels as strings.

    Returns
    -------
    Labels, strings, with `None` for a missing value; a number reads the same however it is stored, see `label_text`.

    Raises
    ------
    UnknownConceptError
        There is no such column.
    ConceptError
        The column holds infinite numbers, or what is neither text, number nor another plain value.
    """
    import pandas as pd

    require_column(obs.columns, name)
    column = obs[name]
    if isinstance(column, pd.DataFrame):
        raise ConceptError(f"obs has {column.shape[1]} columns {name!r}; a concept is one: rename or drop the others")
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, values = column.cat.codes.to_numpy(), column.cat.categories
    else:
        codes, values = _distinct(column, name)
    labels = np.array([*_texts(values, name), None], dtype=object)  # code -1, a missing value, takes the last
    return pd.Series(labels[codes], index=column.index, dtype=object)


def _distinct(column: pd.Series, name: str) -> tuple[np.ndarray, Any]:
    """Return codes of values (-1: missing) and the distinct values; 1, 1.0 and True of mixed columns stay apart."""
    import pandas as pd

    try:
        if pd.api.types.is_object_dtype(column.dtype) and pd.api.types.infer_dtype(column, skipna=True) != "string":
            pairs = zip(column.to_numpy(), column.isna().to_numpy(), strict=True)
            codes, typed = pd.factorize(
                pd.Series([None if missing else (type(each), each) for each, missing in pairs], dtype=object)
            )
            return codes, [value for _, value in typed]
        codes, values = pd.factorize(column)
        return np.asarray(codes), values
    except TypeError as error:  # lists and mappings
        raise ConceptError(
            f"obs[{name!r}] holds what is no label ({error}); a concept's labels are text or numbers"
        ) from error


def _texts(values: Any, name: str) -> list[str]:
    """Return the text of each distinct value; raises `ConceptError` for an infinite number."""
    import pandas as pd

    dtype = getattr(values, "dtype", np.dtype(object))
    if pd.api.types.is_float_dtype(dtype):
        values = np.asarray(values, dtype=getattr(dtype, "numpy_dtype", dtype))  # float32 stays float32
    elif not pd.api.types.is_object_dtype(dtype):
        return [str(text) for text in pd.Series(values).astype("string")]
    infinite = [value for value in values if isinstance(value, float | np.floating) and np.isinf(value)]
    if infinite:
        raise ConceptError(
            f"obs[{name!r}] holds infinite numbers ({infinite[0]:g}), which are no labels; set them to NaN to treat "
            "their cells as unlabelled, or cut the column into bins (pandas.cut)"
        )
    return [label_text(value) for value in values]


def read_labels(obs: pd.DataFrame, name: str) -> tuple[tuple[str, ...], bool]:
    """Find the labels that cells carry in a column.

    Returns
    -------
    The labels in order, and whether the column is an ordered categorical one. Its order is kept; other labels are
    sorted, by value where all are numbers, else by text.

    Raises
    ------
    UnknownConceptError
        There is no such column.
    ConceptError
        The column holds infinite numbers, or too many labels.
    """
    import pandas as pd

    present = set(label_column(obs, name).dropna().unique())
    if len(present) > MOST_LABELS:
        numbers = all(number_text(label) is not None for label in present)
        remedy = "cut it into bins (pandas.cut)" if numbers else "is it an identifier? Name a column of labels"
        raise ConceptError(
            f"obs[{name!r}] has {len(present)} distinct {'numbers' if numbers else 'labels'} in {len(obs)} cells, more "
            f"than the {MOST_LABELS} labels that a concept may have; {remedy}"
        )
    dtype = obs[name].dtype
    ordered = isinstance(dtype, pd.CategoricalDtype) and bool(dtype.ordered)
    if not ordered:
        return tuple(_sort(present)), False
    names = _texts(dtype.categories, name)
    return tuple(label for label in dict.fromkeys(names) if label in present), True


def _sort(labels: set[str]) -> list[str]:
    if all(_SORTED_BY_VALUE.fullmatch(label) for label in labels):
        return sorted(labels, key=lambda label: (Decimal(label), label))  # "1" and "01" are one value, but two labels
    return sorted(labels)
