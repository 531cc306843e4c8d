"""Evaluate a condition of ``where`` on the rows of ``obs``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell._internal.choices import suggest
from causcell.cells.where_tree import (
    INDEX,
    MIRRORED,
    SIGNS,
    Column,
    Compare,
    Condition,
    Joined,
    Literal,
    Member,
    Missing,
    Not,
    no_question,
    unusable,
)
from causcell.errors import format_list

if TYPE_CHECKING:
    import pandas as pd


class Evaluation:
    """Evaluate a condition on the rows of ``obs``."""

    def __init__(self, text: str, obs: pd.DataFrame) -> None:
        self._text, self._obs = text, obs

    def rows(self, condition: Condition) -> np.ndarray:
        """Say which rows meet a condition, bool [n]."""
        match condition:
            case Joined(join, parts):
                found = self.rows(parts[0])
                for part in parts[1:]:
                    found = join(found, self.rows(part))
                return found
            case Not(part):
                return ~self.rows(part)
            case Missing(column):
                return np.asarray(self._values(column).isna(), dtype=bool)
            case Member(column, items):
                return self._member(column, items)
            case Compare(left, sign, right):
                return self._compare(left, sign, right)  # type: ignore[arg-type]
            case _:
                return self._flags(condition)

    def _values(self, column: Column) -> pd.Series:
        if column.name not in self._obs.columns and column.name == INDEX:
            return self._obs.index.to_series()
        return self._obs[column.name]

    def _flags(self, column: Column) -> np.ndarray:
        values = self._values(column)
        if _kind(values) != "bool":
            raise no_question(self._text, f"column {column.name!r} holds {_describe(values)}")
        return self._where_present(values, lambda present: present.astype(bool), missing=False)

    def _where_present(self, values: pd.Series, ask: Callable[[pd.Series], Any], *, missing: bool) -> np.ndarray:
        """Ask of the values that are there; for the others the answer is given."""
        there = ~np.asarray(values.isna(), dtype=bool)
        answer = np.full(len(values), missing)
        try:
            answer[there] = np.asarray(ask(values[there]), dtype=bool)
        except (TypeError, ValueError, OverflowError) as error:
            raise unusable(self._text, str(error)[:300]) from error
        return answer

    def _member(self, column: Column, items: tuple[Literal, ...]) -> np.ndarray:
        values = self._values(column)
        for item in items:
            self._check_kind(column, values, item)
        return self._where_present(values, lambda present: _plain(present).isin(list(items)), missing=False)

    def _compare(self, left: Column, sign: str, right: Column | Literal) -> np.ndarray:
        values, ask, missing = self._values(left), SIGNS[sign], sign == "!="
        if not isinstance(right, Column):
            self._check_kind(left, values, right)
            if sign in MIRRORED and _is_ordered(values):
                right = self._place(left, values, right)
                return self._where_present(values, lambda present: ask(present.cat.codes, right), missing=missing)
            self._check_order(left, values, sign)
            return self._where_present(values, lambda present: ask(_plain(present), right), missing=missing)
        others = self._values(right)
        kinds = _kind(values), _kind(others)
        if "any" not in kinds and kinds[0] != kinds[1] and set(kinds) != {"bool", "number"}:
            raise unusable(
                self._text,
                f"column {left.name!r} holds {_describe(values)} and column {right.name!r} {_describe(others)}",
            )
        for column, each in ((left, values), (right, others)):
            self._check_order(column, each, sign)
        there = ~np.asarray(values.isna() | others.isna(), dtype=bool)
        plain = _plain(others).to_numpy(dtype=object)
        answer = np.full(len(values), missing)
        try:
            answer[there] = np.asarray(ask(_plain(values).to_numpy(dtype=object)[there], plain[there]), dtype=bool)
        except (TypeError, ValueError) as error:
            raise unusable(self._text, str(error)[:300]) from error
        return answer

    def _check_kind(self, column: Column, values: pd.Series, literal: Literal) -> None:
        kind = _kind(values)
        given = "bool" if isinstance(literal, bool) else "text" if isinstance(literal, str) else "number"
        if kind in (given, "any", "mixed", "other") or (kind == "bool" and given == "number" and literal in (0, 1)):
            return
        remedy = {"text": f"; write {str(literal)!r}", "number": "; write a number", "bool": "; write True or False"}
        raise unusable(
            self._text,
            f"column {column.name!r} holds {_describe(values)} and is compared with {literal!r}{remedy[kind]}",
        )

    def _check_order(self, column: Column, values: pd.Series, sign: str) -> None:
        if sign in MIRRORED and _is_categorical(values) and _kind(values) not in ("number", "any"):
            raise unusable(
                self._text, f"the labels of column {column.name!r} have no order; compare them by ==, != or in"
            )

    def _place(self, column: Column, values: pd.Series, literal: Literal) -> int:
        labels = values.cat.categories
        if literal not in labels:
            raise unusable(
                self._text,
                f"{literal!r} is none of the ordered labels of column {column.name!r}; {suggest(literal, labels)}they "
                f"are {format_list(labels)}",
            )
        return int(labels.get_loc(literal))


def _is_categorical(values: pd.Series) -> bool:
    import pandas as pd

    return isinstance(values.dtype, pd.CategoricalDtype)


def _is_ordered(values: pd.Series) -> bool:
    return _is_categorical(values) and bool(values.cat.ordered)


def _plain(values: pd.Series) -> pd.Series:
    """Return labels as values of their own type, and everything else as it is."""
    return values.astype(values.cat.categories.dtype) if _is_categorical(values) else values


def _kind(values: pd.Series) -> str:
    """Return ``text``, ``number`` or ``bool``; ``mixed``, ``other`` (dates), or ``any`` where nothing is there."""
    from pandas.api import types

    held: Any = values.cat.categories if _is_categorical(values) else values
    if types.is_bool_dtype(held.dtype):
        return "bool"
    if types.is_numeric_dtype(held.dtype):
        return "number"
    found = types.infer_dtype(held, skipna=True)
    names = {"string": "text", "empty": "any", "boolean": "bool", "mixed": "mixed", "mixed-integer": "mixed"}
    numbers = ("integer", "floating", "mixed-integer-float", "decimal")
    return names.get(found, "number" if found in numbers else "other")


def _describe(values: pd.Series) -> str:
    kinds = {"text": "text", "number": "numbers", "bool": "True and False", "any": "missing values alone"}
    return kinds.get(_kind(values), "values of several types")
