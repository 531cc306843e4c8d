"""Columns of annotations that travel into results: which can, in what form, and how those of several files agree.

A form is a pandas dtype. What ``.h5ad`` and ``.zarr`` have a form for can travel: labels (`CategoricalDtype`; of text,
numbers, or True and False), text (``object``; with missing values ``string``), whole numbers and True and False (with
missing values ``Int64`` and their like, ``boolean``), and floating-point numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

_LARGEST_NUMBER = 8
"""Bytes of the largest type of numbers that the formats have."""


@dataclass(frozen=True)
class Uncarried:
    """A column that can't travel: the reason ends a sentence that begins with its name."""

    reason: str


Form = Any
"""A pandas or numpy dtype."""


def missing_text() -> Form:
    """Return the form of text with missing values."""
    import pandas as pd

    return pd.StringDtype("python")


def find_form(values: pd.Series) -> Form | Uncarried:
    """Find the form in which a column travels, from all of its values.

    Examples
    --------
    >>> import pandas as pd
    >>> find_form(pd.Series(["a", None, "b"], dtype=object)), find_form(pd.Series([1.5, 2.0], dtype="Float64"))
    (string[python], dtype('float64'))
    >>> find_form(pd.Series(pd.date_range("2026", periods=2))).reason
    'holds datetime64: turn it into text (.astype(str)), numbers or labels'
    """
    import pandas as pd
    from pandas.api import types

    dtype: Any = values.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return _form_of_labels(dtype)
    if isinstance(dtype, pd.SparseDtype):
        dtype = dtype.subtype
    plain = dtype if isinstance(dtype, np.dtype) else getattr(dtype, "numpy_dtype", np.dtype(object))
    if types.is_bool_dtype(dtype):
        return np.dtype(bool) if isinstance(dtype, np.dtype) else pd.BooleanDtype()
    if types.is_integer_dtype(dtype):
        return plain.newbyteorder("=") if isinstance(dtype, np.dtype) else _nullable(plain)
    if types.is_float_dtype(dtype) and plain.itemsize <= _LARGEST_NUMBER and plain.kind == "f":
        return plain.newbyteorder("=")
    if plain == np.dtype(object) and not types.is_datetime64_any_dtype(dtype):
        kind = types.infer_dtype(values, skipna=True)
        if kind == "boolean":
            return pd.BooleanDtype()
        if kind in ("string", "empty"):
            return missing_text() if values.isna().any() else np.dtype(object)
        return Uncarried(f"holds objects ({kind}): turn it into text (.astype(str)), numbers or labels")
    name = str(dtype).partition("[")[0]
    return Uncarried(f"holds {name}: turn it into text (.astype(str)), numbers or labels")


def _form_of_labels(dtype: pd.CategoricalDtype) -> Form | Uncarried:
    import pandas as pd
    from pandas.api import types

    labels = dtype.categories if len(dtype.categories) else pd.Index([], dtype=object)
    kind = types.infer_dtype(labels, skipna=False)
    if kind in ("string", "empty"):
        return pd.CategoricalDtype(pd.Index(labels, dtype=object), ordered=dtype.ordered)
    if isinstance(labels.dtype, np.dtype) and labels.dtype.kind in "biuf":
        return pd.CategoricalDtype(labels, ordered=dtype.ordered)
    return Uncarried(f"has labels that are {kind}: make them text or numbers")


def _nullable(dtype: np.dtype[Any]) -> Form:
    import pandas as pd

    name = dtype.name
    return pd.api.types.pandas_dtype(name.replace("uint", "UInt") if name[0] == "u" else name.replace("int", "Int"))


def join_forms(forms: Mapping[str, Form | None]) -> Form | Uncarried:
    """Find the form of a column that several files have.

    Labels are joined in the order of the files, and stay ordered where no two files contradict each other; labels and
    text become text; numbers take a type that holds those of all. Where a file lacks the column, it is missing.

    Parameters
    ----------
    forms
        Form by the file's key; `None` where the file lacks the column.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> join_forms({"a": pd.CategoricalDtype(["x"]), "b": pd.CategoricalDtype(["y", "x"])}).categories.tolist()
    ['x', 'y']
    >>> join_forms({"a": np.dtype("int32"), "b": None})
    Int32Dtype()
    >>> join_forms({"a": np.dtype(object), "b": np.dtype("int32")}).reason
    "holds text in 'a' and numbers in 'b'"
    """
    import pandas as pd

    there = {key: form for key, form in forms.items() if form is not None}
    partly = len(there) < len(forms)
    kinds = {key: _kind(form) for key, form in there.items()}
    if set(kinds.values()) == {"labels"}:
        labels = {key: _kind(form.categories) for key, form in there.items() if len(form.categories)}
        if len(set(labels.values())) <= 1:
            return _join_labels([form for form in there.values() if len(form.categories) or not labels])
        kinds = {key: f"labels that are {kind}" for key, kind in labels.items()}
    elif set(kinds.values()) <= {"labels", "text"} and all(_has_text(form) for form in there.values()):
        missing = partly or any(form != np.dtype(object) for form in there.values())
        return missing_text() if missing else np.dtype(object)
    elif set(kinds.values()) == {"True and False"}:
        plain = all(isinstance(form, np.dtype) for form in there.values())
        return np.dtype(bool) if plain and not partly else pd.BooleanDtype()
    elif set(kinds.values()) == {"numbers"}:
        number = np.result_type(*(_number(form) for form in there.values()))
        nullable = partly or not all(isinstance(form, np.dtype) for form in there.values())
        return _nullable(number) if nullable and number.kind in "iu" else number
    first, other = next((a, b) for a in kinds for b in kinds if kinds[a] != kinds[b])
    return Uncarried(f"holds {kinds[first]} in {first!r} and {kinds[other]} in {other!r}")


def _number(form: Form) -> np.dtype[Any]:
    return np.dtype(form if isinstance(form, np.dtype) else form.numpy_dtype)


def _kind(form: Any) -> str:
    import pandas as pd
    from pandas.api import types

    dtype = getattr(form, "dtype", form)
    if isinstance(dtype, pd.CategoricalDtype):
        return "labels"
    if types.is_bool_dtype(dtype):
        return "True and False"
    return "numbers" if types.is_numeric_dtype(dtype) else "text"


def _has_text(form: Form) -> bool:
    import pandas as pd

    return _kind(form.categories if isinstance(form, pd.CategoricalDtype) else form) == "text"


def _join_labels(forms: list[pd.CategoricalDtype]) -> pd.CategoricalDtype:
    import pandas as pd

    joined = forms[0].categories
    for form in forms[1:]:
        joined = joined.append(form.categories[~form.categories.isin(joined)])
    ordered = all(form.ordered and (np.diff(joined.get_indexer(form.categories)) > 0).all() for form in forms)
    return pd.CategoricalDtype(joined, ordered=ordered)


def take_form(values: pd.Series, form: Form) -> pd.Series:
    """Return a column in a form that `find_form` or `join_forms` found for it."""
    import pandas as pd

    if isinstance(form, pd.CategoricalDtype):
        held: Any = values.array
        return pd.Series(held.set_categories(form.categories, ordered=form.ordered), index=values.index)
    if form == np.dtype(object) or isinstance(form, pd.StringDtype):
        texts = pd.array(values.astype(object).to_numpy(), dtype=missing_text())
        return pd.Series(texts if isinstance(form, pd.StringDtype) else texts.astype(object), index=values.index)
    if isinstance(form, np.dtype):
        held = values.to_numpy(form, na_value=np.nan) if form.kind == "f" else values.to_numpy(form)
        return pd.Series(held, index=values.index)
    return values.astype(form)


def join_tables(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Put tables of several files below each other: a column that one lacks is missing there, labels are joined.

    Examples
    --------
    >>> import pandas as pd
    >>> a, b = (pd.DataFrame({"sample": pd.Categorical([name])}) for name in ("s2", "s1"))
    >>> join_tables([a, b])["sample"].cat.categories.tolist()
    ['s2', 's1']
    """
    import pandas as pd

    joined = pd.concat(tables)
    for name in joined:
        forms = [find_form(table[name]) for table in tables if name in table and _kind(table[name].dtype) == "labels"]
        if len(forms) == sum(name in table for table in tables):
            form = join_forms({str(place): form for place, form in enumerate(forms)})
            if isinstance(form, pd.CategoricalDtype):
                joined[name] = joined[name].astype(form)
    return joined


def missing_column(form: Form, count: int) -> pd.Series:
    """Return a column of missing values; only for a form that has them, as `join_forms` gives."""
    import pandas as pd

    return pd.Series([np.nan if isinstance(form, np.dtype) else pd.NA] * count, dtype=form)


def describe_form(form: Form) -> str:
    """Describe a form as plans do; of labels the first digits of their digest stand for themselves.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> describe_form(pd.CategoricalDtype(["d1", "d2"])), describe_form(np.dtype("float32"))
    ('2 labels 2a7a8dc7d3e2', 'float32')
    """
    import pandas as pd

    if isinstance(form, pd.CategoricalDtype):
        kind = "ordered labels" if form.ordered else "labels"
        return f"{len(form.categories)} {kind} {digest_texts(form.categories)[:12]}"
    if isinstance(form, pd.StringDtype):
        return "text or missing"
    return "text" if form == np.dtype(object) else str(form)


def digest_texts(values: Any) -> str:
    """Return the SHA-256 of values by what they are as text, in hexadecimal digits."""
    return hashlib.sha256("\0".join(map(repr, values.tolist())).encode()).hexdigest()
