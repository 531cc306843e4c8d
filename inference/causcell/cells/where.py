"""The small language of ``where``: which cells are taken, by their columns of ``obs``. No part of it runs code.

::

    either      all, several joined by "or" or "|"
    all         one, several joined by "and" or "&"
    one         not ONE, ~ONE, (EITHER), COMPARISON, MEMBER, or a COLUMN that says yes or no
    comparison  VALUE == VALUE; also !=, <, <=, >, >=, and several in a row
    member      VALUE in [LITERAL, ...], VALUE not in [...], COLUMN.isin([...]), COLUMN.isna(), COLUMN.notna()
    value       COLUMN, or a LITERAL: 'text', "text", a number, True, False
    column      a name, `a name of any kind`, or index: the cells' names

It is a part of what pandas' ``query`` takes, and means the same, but for two things. A text is not compared with a
number: that is an error, where pandas finds no cell. A missing value is unequal to everything and in no list, whatever
the type of the column: each comparison with it says no, but for ``!=`` and ``not in``.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import numpy as np

from causcell._internal.choices import suggest
from causcell.errors import ConceptError, ConfigurationError, format_list

if TYPE_CHECKING:
    import pandas as pd

LONGEST = 10**6
"""Characters of a condition at most."""

DEEPEST = 50
"""Parentheses and negations inside each other at most."""

INDEX = "index"
"""Name of the cells' names, where no column is called so."""

_TOKENS = re.compile(
    r"""\s*(?:
    (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?!\w))
    |(?P<text>'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")
    |`(?P<quoted>[^`]*)`
    |(?P<name>[^\W\d]\w*)
    |(?P<sign>==|!=|<=|>=|[<>()\[\],&|~.+-])
    )""",
    re.VERBOSE,
)
_END = re.compile(r"\s*\Z")
_LONGEST_NUMBER = 300
_WORDS = ("and", "or", "not", "in", "True", "False")
_SIGNS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}

Literal: TypeAlias = "str | int | float | bool"


@dataclass(frozen=True)
class _Column:
    name: str


@dataclass(frozen=True)
class _Compare:
    left: _Column | Literal
    sign: str
    right: _Column | Literal


@dataclass(frozen=True)
class _Member:
    column: _Column
    items: tuple[Literal, ...]


@dataclass(frozen=True)
class _Missing:
    column: _Column


@dataclass(frozen=True)
class _Not:
    part: _Condition


@dataclass(frozen=True)
class _Joined:
    join: Callable[[Any, Any], Any]
    parts: tuple[_Condition, ...]


_Condition: TypeAlias = "_Column | _Compare | _Member | _Missing | _Not | _Joined"


class Where:
    """A condition on cells.

    Parameters
    ----------
    text
        The condition; the module tells its form.
    columns
        Columns of ``obs``.

    Attributes
    ----------
    text
        As given.
    columns
        Those of the columns that it reads; `INDEX` stands for the cells' names.

    Raises
    ------
    ConceptError
        It can't be read, or names a column that there is not.
    ConfigurationError
        It does not say yes or no for each cell.

    Examples
    --------
    >>> import pandas as pd
    >>> obs = pd.DataFrame({"stim": ["ctrl", "IFN", None], "dose": [0.0, 2.0, 3.0]})
    >>> Where("stim == 'IFN' or dose >= 3", obs.columns).evaluate(obs)
    array([False,  True,  True])
    """

    def __init__(self, text: str, columns: Iterable[str]) -> None:
        parser = _Parser(text, list(map(str, columns)))
        self.text = text
        self._condition = parser.parse()
        self.columns: frozenset[str] = frozenset(parser.named)

    def evaluate(self, obs: pd.DataFrame) -> np.ndarray:
        """Say which rows are taken, bool [n].

        Parameters
        ----------
        obs
            At least the columns that the condition reads.

        Raises
        ------
        ConceptError
            A comparison that makes no sense for a column.
        ConfigurationError
            A column alone that does not say yes or no.
        """
        return _Evaluation(self.text, obs).rows(self._condition)


def _unusable(text: str, why: str) -> ConceptError:
    shown = text if len(text) <= 300 else f"{text[:300]}..."
    return ConceptError(f"where={shown!r} can't be evaluated: {why}")


def _no_question(text: str, why: str) -> ConfigurationError:
    return ConfigurationError(f"where={text!r} does not say yes or no for each cell: {why}")


# -- reading -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Token:
    kind: str
    value: Any


class _Parser:
    """Read a condition, from left to right."""

    def __init__(self, text: str, known: list[str]) -> None:
        self._text, self._known = text, known
        self.named: set[str] = set()
        if not isinstance(text, str):
            raise ConceptError(f"where={text!r} is no text, such as \"cell_type == 'B cells'\"")
        if len(text) > LONGEST:
            raise ConceptError(
                f"where= has {len(text)} characters; give up to {LONGEST}, or a column that says which cells"
            )
        self._tokens = self._split()
        self._at = self._depth = 0

    def parse(self) -> _Condition:
        condition = self._either()
        if self._tokens[self._at].kind != "end":
            self._fail("and, or or the end is expected")
        return condition

    def _refuse(self, why: str) -> NoReturn:
        why = why.rstrip("; ")
        raise _unusable(
            self._text,
            f"{why}{'' if why.endswith('?') else ';'} a condition is made of columns, literals, comparisons, in, and, "
            f"or and not, such as 'cell_type == \"B cells\"'; the columns are {format_list(self._known, 40)}",
        )

    def _fail(self, why: str) -> NoReturn:
        token = self._tokens[self._at]
        found = "the end" if token.kind == "end" else repr(str(token.value)[:40])
        self._refuse(f"{why}, and {found} is there")

    def _split(self) -> list[_Token]:
        tokens, place, text = [], 0, self._text
        while not _END.match(text, place):
            match = _TOKENS.match(text, place)
            if match is None:
                strange = text[place:].lstrip()[:20]
                self._refuse(
                    "= sets nothing here, compare by ==" if strange[0] == "=" else f"{strange!r} can't be read"
                )
            kind = str(match.lastgroup)
            tokens.append(self._token(kind, match[kind]))
            place = match.end()
        return [*tokens, _Token("end", "")]

    def _token(self, kind: str, text: str) -> _Token:
        if kind == "name":
            return _Token("word" if text in _WORDS else "column", text)
        if kind == "quoted":
            return _Token("column", text)
        if kind == "sign":
            return _Token(kind, text)
        if kind == "number" and len(text) > _LONGEST_NUMBER:
            self._refuse(f"{text[:20]}... is a number of {len(text)} digits")
        if kind == "number":
            return _Token("literal", int(text) if text.isdecimal() else float(text))
        return _Token("literal", re.sub(r"\\(.)", self._unescape, text[1:-1]))

    def _unescape(self, match: re.Match[str]) -> str:
        plain = {"n": "\n", "t": "\t", "r": "\r"}.get(match[1], match[1])
        if plain.isalnum():
            self._refuse(f"{match[0]!r} in a text is not known; write the character itself")
        return plain

    def _is_next(self, *values: str, ahead: int = 0) -> bool:
        token = self._tokens[min(self._at + ahead, len(self._tokens) - 1)]
        return token.kind in ("word", "sign") and token.value in values

    def _take(self, *values: str) -> bool:
        if self._is_next(*values):
            self._at += 1
            return True
        return False

    def _expect(self, value: str) -> None:
        if not self._take(value):
            self._fail(f"{value} is expected")

    def _either(self) -> _Condition:
        return self._join(self._all, ("or", "|"), np.logical_or)

    def _all(self) -> _Condition:
        return self._join(self._one, ("and", "&"), np.logical_and)

    def _join(
        self, part: Callable[[], _Condition], words: tuple[str, ...], join: Callable[[Any, Any], Any]
    ) -> _Condition:
        parts = [part()]
        while self._take(*words):
            parts.append(part())
        return parts[0] if len(parts) == 1 else _Joined(join, tuple(parts))

    def _one(self) -> _Condition:
        self._depth += 1
        if self._depth > DEEPEST:
            self._refuse(f"it is nested more than {DEEPEST} deep")
        try:
            if self._take("not", "~"):
                return _Not(self._one())
            if not self._take("("):
                return self._question(self._value())
            inner = self._either()
            self._expect(")")
            return self._question(inner) if isinstance(inner, _Column) else inner
        finally:
            self._depth -= 1

    def _question(self, value: _Column | Literal | _Member | _Missing | _Not) -> _Condition:
        """Read what is asked of a value: comparisons, a list, or nothing."""
        if isinstance(value, _Member | _Missing | _Not):
            return value
        parts: list[_Condition] = []
        while True:
            token = self._tokens[self._at]
            if token.kind == "sign" and token.value in _SIGNS:
                self._at += 1
                if token.value in ("==", "!=") and self._is_next("["):
                    parts.append(self._member(value, self._list(), token.value == "!="))
                    break
                other = self._value()
                if isinstance(other, _Member | _Missing | _Not):
                    self._fail("a value is expected before that")
                parts.append(self._comparison(value, token.value, other))
                value = other
            elif self._is_next("in") or (self._is_next("not") and self._is_next("in", ahead=1)):
                negated = self._take("not")
                self._expect("in")
                parts.append(self._member(value, self._list(), negated))
                break
            else:
                break
        if parts:
            return parts[0] if len(parts) == 1 else _Joined(np.logical_and, tuple(parts))
        if isinstance(value, _Column):
            return value
        raise _no_question(self._text, f"{value!r} alone is no condition")

    def _comparison(self, left: _Column | Literal, sign: str, right: _Column | Literal) -> _Compare:
        if isinstance(left, _Column):
            return _Compare(left, sign, right)
        if isinstance(right, _Column):
            return _Compare(right, _MIRRORED.get(sign, sign), left)
        raise _no_question(self._text, f"{left!r} {sign} {right!r} names no column")

    def _member(self, value: _Column | Literal, items: tuple[Literal, ...], negated: bool) -> _Condition:
        if not isinstance(value, _Column):
            raise _no_question(self._text, f"{value!r} is no column")
        return _Not(_Member(value, items)) if negated else _Member(value, items)

    def _value(self) -> _Column | Literal | _Member | _Missing | _Not:
        token = self._tokens[self._at]
        if token.kind != "column":
            return self._literal()
        self._at += 1
        if token.value not in self._known and token.value != INDEX:
            hint = suggest(token.value, self._known)
            if token.value in ("None", "nan", "NaN", "NA", "null"):
                hint = "a missing value is found by COLUMN.isna()"
            self._refuse(f"there is no column {token.value[:100]!r}; {hint}")
        self.named.add(token.value)
        column = _Column(token.value)
        return self._method(column) if self._take(".") else column

    def _method(self, column: _Column) -> _Member | _Missing | _Not:
        name = self._tokens[self._at].value
        if name not in ("isna", "isnull", "notna", "notnull", "isin"):
            self._fail("of a column isna(), notna() or isin([...]) is expected")
        self._at += 1
        self._expect("(")
        if name == "isin":
            found: _Member | _Missing | _Not = _Member(column, self._list())
        else:
            found = _Missing(column) if name.startswith("is") else _Not(_Missing(column))
        self._expect(")")
        return found

    def _list(self) -> tuple[Literal, ...]:
        end = "]" if self._take("[") else ")" if self._take("(") else None
        if end is None:
            self._fail("a list, such as ['a', 'b'], is expected")
        items: list[Literal] = []
        while not self._take(end):
            items.append(self._literal())
            if not self._take(","):
                self._expect(end)
                break
        return tuple(items)

    def _literal(self) -> Literal:
        sign = -1 if self._take("-") else 1 if self._take("+") else 0
        token = self._tokens[self._at]
        if token.kind == "literal" and not (sign and isinstance(token.value, str)):
            self._at += 1
            value: Literal = sign * token.value if sign else token.value
            return value
        if sign or token.kind != "word" or token.value not in ("True", "False"):
            self._fail("a column, text or number is expected")
        self._at += 1
        return bool(token.value == "True")


# -- evaluating --------------------------------------------------------------------------------------------------------


class _Evaluation:
    """Evaluate a condition on the rows of ``obs``."""

    def __init__(self, text: str, obs: pd.DataFrame) -> None:
        self._text, self._obs = text, obs

    def rows(self, condition: _Condition) -> np.ndarray:
        """Say which rows meet a condition, bool [n]."""
        match condition:
            case _Joined(join, parts):
                found = self.rows(parts[0])
                for part in parts[1:]:
                    found = join(found, self.rows(part))
                return found
            case _Not(part):
                return ~self.rows(part)
            case _Missing(column):
                return np.asarray(self._values(column).isna(), dtype=bool)
            case _Member(column, items):
                return self._member(column, items)
            case _Compare(left, sign, right):
                return self._compare(left, sign, right)  # type: ignore[arg-type]
            case _:
                return self._flags(condition)

    def _values(self, column: _Column) -> pd.Series:
        if column.name not in self._obs.columns and column.name == INDEX:
            return self._obs.index.to_series()
        return self._obs[column.name]

    def _flags(self, column: _Column) -> np.ndarray:
        values = self._values(column)
        if _kind(values) != "bool":
            raise _no_question(self._text, f"column {column.name!r} holds {_describe(values)}")
        return self._where_present(values, lambda present: present.astype(bool), missing=False)

    def _where_present(self, values: pd.Series, ask: Callable[[pd.Series], Any], *, missing: bool) -> np.ndarray:
        """Ask of the values that are there; for the others the answer is given."""
        there = ~np.asarray(values.isna(), dtype=bool)
        answer = np.full(len(values), missing)
        try:
            answer[there] = np.asarray(ask(values[there]), dtype=bool)
        except (TypeError, ValueError, OverflowError) as error:
            raise _unusable(self._text, str(error)[:300]) from error
        return answer

    def _member(self, column: _Column, items: tuple[Literal, ...]) -> np.ndarray:
        values = self._values(column)
        for item in items:
            self._check_kind(column, values, item)
        return self._where_present(values, lambda present: _plain(present).isin(list(items)), missing=False)

    def _compare(self, left: _Column, sign: str, right: _Column | Literal) -> np.ndarray:
        values, ask, missing = self._values(left), _SIGNS[sign], sign == "!="
        if not isinstance(right, _Column):
            self._check_kind(left, values, right)
            if sign in _MIRRORED and _is_ordered(values):
                right = self._place(left, values, right)
                return self._where_present(values, lambda present: ask(present.cat.codes, right), missing=missing)
            self._check_order(left, values, sign)
            return self._where_present(values, lambda present: ask(_plain(present), right), missing=missing)
        others = self._values(right)
        kinds = _kind(values), _kind(others)
        if "any" not in kinds and kinds[0] != kinds[1] and set(kinds) != {"bool", "number"}:
            raise _unusable(
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
            raise _unusable(self._text, str(error)[:300]) from error
        return answer

    def _check_kind(self, column: _Column, values: pd.Series, literal: Literal) -> None:
        kind = _kind(values)
        given = "bool" if isinstance(literal, bool) else "text" if isinstance(literal, str) else "number"
        if kind in (given, "any", "mixed", "other") or (kind == "bool" and given == "number" and literal in (0, 1)):
            return
        remedy = {"text": f"; write {str(literal)!r}", "number": "; write a number", "bool": "; write True or False"}
        raise _unusable(
            self._text,
            f"column {column.name!r} holds {_describe(values)} and is compared with {literal!r}{remedy[kind]}",
        )

    def _check_order(self, column: _Column, values: pd.Series, sign: str) -> None:
        if sign in _MIRRORED and _is_categorical(values) and _kind(values) not in ("number", "any"):
            raise _unusable(
                self._text, f"the labels of column {column.name!r} have no order; compare them by ==, != or in"
            )

    def _place(self, column: _Column, values: pd.Series, literal: Literal) -> int:
        labels = values.cat.categories
        if literal not in labels:
            raise _unusable(
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
