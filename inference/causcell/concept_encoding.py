"""Columns of ``obs`` encoded as codes of labels and as values."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell._internal.choices import suggest
from causcell._internal.labels import find_label, label_column, number_text, require_column
from causcell.concept_values import JOIN, ConceptValue, split_members
from causcell.errors import ConceptError, UnknownLabelError, format_list

if TYPE_CHECKING:
    import pandas as pd

_TABLE = 2**20
"""Combinations of labels up to which a table has a place for each."""

_UNLABELLED = -1  # `causcell.concepts.UNLABELLED`, whose module imports this one


def encode_column(
    obs: pd.DataFrame, name: str, labels: Sequence[str], value: ConceptValue | None
) -> tuple[np.ndarray, np.ndarray]:
    """Encode a column of a concept.

    Parameters
    ----------
    obs
        Annotations of cells, with the column.
    name
        Name of the column and the concept.
    labels, value
        The concept's labels and the encoding of its values; `None` for plain labels.

    Returns
    -------
    codes
        Codes of labels, int32 [n]; -1 where a cell has no label, or a value that is none of the labels.
    values
        float32 [n x width], NaN where a cell is not labelled.

    Raises
    ------
    ConceptError
        What stands in the column is not of the concept's kind.
    UnknownLabelError
        A label, or a member of a set, that the concept does not have.
    """
    if value is not None and _is_numeric(value):
        return encode_numbers(number_column(obs, name, value.kind), value)
    texts = _read_texts(obs, name, value)
    codes = _codes(texts, name, labels, value)
    if value is None:
        return codes, np.where(codes[:, None] < 0, np.float32(np.nan), np.eye(len(labels), dtype=np.float32)[codes])
    values = np.full((len(codes), value.width), np.nan, dtype=np.float32)
    values[codes >= 0] = value.of_labels(labels, name)[codes[codes >= 0]]
    other = (codes < 0) & texts.notna().to_numpy()
    for text in texts[other].unique():
        values[other & (texts == text).to_numpy()] = value.parse(text, labels, name)
    return codes, values


def encode_codes(obs: pd.DataFrame, name: str, labels: Sequence[str], value: ConceptValue | None) -> np.ndarray:
    """Encode a column's labels alone: the codes of `encode_column`, int32 [n]."""
    if value is not None:
        return encode_column(obs, name, labels, value)[0]
    with contextlib.suppress(ConceptError):  # of which all cells are counted below
        return _codes_by_category(obs, name, labels)
    return _codes(label_column(obs, name), name, labels, None)


def _codes_by_category(obs: pd.DataFrame, name: str, labels: Sequence[str]) -> np.ndarray:
    """Encode the labels of a categorical column, int32 [n], each category that is there once; others as ever."""
    import pandas as pd

    column = obs.get(name)
    if not isinstance(column, pd.Series) or not isinstance(column.dtype, pd.CategoricalDtype):
        return _codes(label_column(obs, name), name, labels, None)
    places = column.cat.codes.to_numpy()
    there = np.flatnonzero(np.bincount(places + 1, minlength=1)[1:]) if len(places) else places
    known = {label: code for code, label in enumerate(labels)}
    texts = column.dtype.categories.tolist()
    codes = [known.get(text, _UNLABELLED) for text in texts]
    table = np.array([*codes, _UNLABELLED], dtype=np.int32)  # -1, missing, takes the last
    if all(type(texts[place]) is str and table[place] != _UNLABELLED for place in there):  # labels as they are
        return np.asarray(table[places])
    distinct = pd.DataFrame({name: pd.Categorical.from_codes(there, dtype=column.dtype)})
    table[there] = _codes(label_column(distinct, name), name, labels, None)
    return np.asarray(table[places])


def _is_numeric(value: ConceptValue) -> bool:
    return value.kind == "continuous" or (value.kind == "ordinal" and not value.ranks)


def _read_texts(obs: pd.DataFrame, name: str, value: ConceptValue | None) -> pd.Series:
    if value is not None and value.kind == "set":
        return set_column(obs, name, value.control)
    return label_column(obs, name)


def _codes(texts: pd.Series, name: str, labels: Sequence[str], value: ConceptValue | None) -> np.ndarray:
    """Return the codes, int32 [n], of texts; -1 for a missing one, and for one that is a value and no label."""
    import pandas as pd

    plain = pd.Index(texts.to_numpy(dtype=object), dtype=object)  # whatever strings the user's pandas prefers
    codes: np.ndarray = pd.Index(labels, dtype=object).get_indexer(plain).astype(np.int32)
    other = (codes < 0) & texts.notna().to_numpy()
    if value is not None and value.kind in ("set", "ordinal"):
        return codes
    if other.any():
        known = labels if value is None else value.known
        found = _codes_by_number(texts[other], name, known)
        codes[other] = np.where(found < len(labels), found, -1)
    return codes


def _codes_by_number(texts: pd.Series, name: str, labels: Sequence[str]) -> np.ndarray:
    """Return the codes, int64, of texts that are no label but the same number as one: "35.0" for the label "35".

    Raises
    ------
    UnknownLabelError
        A text is no such number.
    """
    found: dict[str, int] = {}
    strange: list[str] = []
    for text in texts.unique():
        try:
            found[text] = find_label(text, labels, name)
        except UnknownLabelError:
            strange.append(text)
    if strange:
        hint = next(filter(None, (suggest(text, labels) for text in sorted(strange))), "")
        raise UnknownLabelError(
            f"obs[{name!r}] has labels that the model was not trained on: {format_list(sorted(strange))} in "
            f"{int(texts.isin(strange).sum())} cells; {hint}it knows {format_list(labels, 40)}. Set them to "
            "NaN to treat those cells as unlabelled"
        )
    return np.asarray(texts.map(found), dtype=np.int64)


def encode_numbers(numbers: np.ndarray, value: ConceptValue) -> tuple[np.ndarray, np.ndarray]:
    """Encode numbers, float64 [n] in the data's units, NaN for none.

    Returns
    -------
    codes
        int32 [n]: for continuous concepts the bin's, the first's or the last's for a number beyond all; for ordinal
        ones that of the label that is the same number, else -1.
    values
        The numbers standardised, float32 [n x 1].
    """
    known = np.isfinite(numbers)
    if value.kind == "continuous":
        codes = np.searchsorted(np.array(value.bounds), numbers, side="right")
    else:
        own = np.array(value.numbers)
        order = np.argsort(own)
        place = order[np.searchsorted(own[order], np.where(known, numbers, own[0])).clip(max=len(own) - 1)]
        codes = np.where(own[place] == numbers, place, -1)
    return np.where(known, codes, -1).astype(np.int32), value.standardise(numbers[:, None])


def number_column(obs: pd.DataFrame, name: str, kind: str) -> np.ndarray:
    """Read a column of numbers, float64 [n], NaN for a missing value; numbers written as text are numbers.

    Raises
    ------
    UnknownConceptError
        There is no such column.
    ConceptError
        The column holds something else: text, truth values, infinite numbers.
    """
    import pandas as pd

    require_column(obs.columns, name)
    column = obs[name]
    if isinstance(column, pd.Series) and pd.api.types.is_numeric_dtype(column.dtype) and column.dtype != bool:
        numbers: np.ndarray = column.to_numpy(dtype=np.float64, na_value=np.nan)
        infinite = np.isinf(numbers)
        if infinite.any():
            raise ConceptError(
                f"obs[{name!r}] holds infinite numbers ({numbers[infinite][0]:g} in {int(infinite.sum())} cells), "
                f"which no {kind} concept has; set them to NaN to treat their cells as unlabelled"
            )
        return numbers
    texts = label_column(obs, name)
    distinct = texts.dropna().unique()
    read = {text: number_text(text) for text in distinct}
    strange = sorted(text for text, number in read.items() if number is None)
    if strange:
        raise ConceptError(
            f"obs[{name!r}] holds {format_list(strange, 4)}, which are no numbers: a concept of kind {kind} has "
            "numbers. Make it numeric (pandas.to_numeric), set what is unknown to NaN, or "
            + ("make it an ordered categorical" if kind == "ordinal" else f"take {name}:ordinal or {name}:labels")
        )
    by_text = {text: float(number) for text, number in read.items() if number is not None}
    return np.asarray(texts.map(by_text), dtype=np.float64)


def set_column(obs: pd.DataFrame, name: str, control: str | None) -> pd.Series:
    """Read a column of sets as text: members sorted and joined, the control label for none, `None` for missing.

    Raises
    ------
    UnknownConceptError
        There is no such column.
    ConceptError
        A value is no set.
    """
    import pandas as pd

    require_column(obs.columns, name)
    column = obs[name]
    is_list = (
        isinstance(column, pd.Series)
        and column.dtype == object
        and column.map(lambda each: isinstance(each, list | tuple | set | frozenset)).any()
    )
    texts = column if is_list else label_column(obs, name)
    canonical: dict[Any, str] = {}

    def canon(given: Any) -> str | None:
        key = tuple(given) if isinstance(given, list | set) else given
        if not isinstance(key, tuple | frozenset) and pd.isna(key):
            return None
        if key not in canonical:
            canonical[key] = JOIN.join(split_members(given, control, name)) or str(control)
        return canonical[key]

    return pd.Series([canon(each) for each in texts], index=obs.index, dtype=object)


def unseen_combinations(codes: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Find combinations of labels that were never seen together.

    Parameters
    ----------
    codes
        Codes of labels, int [n x m]; -1 (unlabelled) matches any label.
    seen
        Codes of the combinations that were seen, int [s x m]; there -1 (unlabelled) matches nothing else.

    Returns
    -------
    bool [n], true for rows that match no row of ``seen``.

    Examples
    --------
    >>> import numpy as np
    >>> unseen_combinations(np.array([[0, 1], [1, 1], [1, -1]]), seen=np.array([[0, 1], [1, 0]]))
    array([False,  True, False])
    """
    distinct, inverse = distinct_rows(codes)
    joined, places = distinct_rows(np.concatenate([seen, distinct]))
    known = np.zeros(len(joined), dtype=bool)
    known[places[: len(seen)]] = True
    unseen = ~known[places[len(seen) :]]
    for i in np.flatnonzero(unseen & (distinct == _UNLABELLED).any(axis=1)):
        labelled = distinct[i] != _UNLABELLED
        unseen[i] = not (seen[:, labelled] == distinct[i, labelled]).all(axis=1).any()
    return np.asarray(unseen[inverse])


def distinct_rows(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the distinct rows of codes of labels, without sorting rows: each is a number with a digit a concept.

    Parameters
    ----------
    codes
        Codes of labels, int [n x m], -1 or more.

    Returns
    -------
    distinct
        The distinct rows, ascending, int [k x m].
    inverse
        Place of each row among them, int64 [n].

    Examples
    --------
    >>> import numpy as np
    >>> distinct_rows(np.array([[2, 0], [-1, 5], [2, 0]]))
    (array([[-1,  5],
           [ 2,  0]]), array([1, 0, 1]))
    """
    if not codes.size:
        return codes[:1], np.zeros(len(codes), dtype=np.int64)
    least = codes.min(axis=0)
    sizes = [int(size) for size in codes.max(axis=0).astype(np.int64) - least + 1]
    if math.prod(sizes) >= 2**63:
        distinct, places = np.unique(codes, axis=0, return_inverse=True)
        return distinct, places.ravel()
    numbers = np.zeros(len(codes), dtype=np.int64)
    for column, size, low in zip(codes.T, sizes, least.tolist(), strict=True):
        numbers *= size
        numbers += column
        numbers -= low
    if math.prod(sizes) <= _TABLE:
        present = np.zeros(math.prod(sizes), dtype=bool)
        present[numbers] = True
        found = np.flatnonzero(present)
        inverse = (np.cumsum(present) - 1)[numbers]
    else:
        found, inverse = np.unique(numbers, return_inverse=True)
    return np.stack(np.unravel_index(found, sizes), axis=1).astype(codes.dtype) + least, inverse
