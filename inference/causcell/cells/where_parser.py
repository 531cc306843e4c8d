"""Read the text of a condition of ``where``, from left to right; `causcell.cells.where` has the language."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

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
from causcell.errors import ConceptError, format_list

LONGEST = 10**6
"""Characters of a condition at most."""

DEEPEST = 50
"""Parentheses and negations inside each other at most."""

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


@dataclass(frozen=True)
class _Token:
    kind: str
    value: Any


class Parser:
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

    def parse(self) -> Condition:
        """Return the condition; raises `ConceptError` or `ConfigurationError`."""
        condition = self._either()
        if self._tokens[self._at].kind != "end":
            self._fail("and, or or the end is expected")
        return condition

    def _refuse(self, why: str) -> NoReturn:
        why = why.rstrip("; ")
        raise unusable(
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

    def _either(self) -> Condition:
        return self._join(self._all, ("or", "|"), np.logical_or)

    def _all(self) -> Condition:
        return self._join(self._one, ("and", "&"), np.logical_and)

    def _join(
        self, part: Callable[[], Condition], words: tuple[str, ...], join: Callable[[Any, Any], Any]
    ) -> Condition:
        parts = [part()]
        while self._take(*words):
            parts.append(part())
        return parts[0] if len(parts) == 1 else Joined(join, tuple(parts))

    def _one(self) -> Condition:
        self._depth += 1
        if self._depth > DEEPEST:
            self._refuse(f"it is nested more than {DEEPEST} deep")
        try:
            if self._take("not", "~"):
                return Not(self._one())
            if not self._take("("):
                return self._question(self._value())
            inner = self._either()
            self._expect(")")
            return self._question(inner) if isinstance(inner, Column) else inner
        finally:
            self._depth -= 1

    def _question(self, value: Column | Literal | Member | Missing | Not) -> Condition:
        """Read what is asked of a value: comparisons, a list, or nothing."""
        if isinstance(value, Member | Missing | Not):
            return value
        parts: list[Condition] = []
        while True:
            token = self._tokens[self._at]
            if token.kind == "sign" and token.value in SIGNS:
                self._at += 1
                if token.value in ("==", "!=") and self._is_next("["):
                    parts.append(self._member(value, self._list(), token.value == "!="))
                    break
                other = self._value()
                if isinstance(other, Member | Missing | Not):
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
            return parts[0] if len(parts) == 1 else Joined(np.logical_and, tuple(parts))
        if isinstance(value, Column):
            return value
        raise no_question(self._text, f"{value!r} alone is no condition")

    def _comparison(self, left: Column | Literal, sign: str, right: Column | Literal) -> Compare:
        if isinstance(left, Column):
            return Compare(left, sign, right)
        if isinstance(right, Column):
            return Compare(right, MIRRORED.get(sign, sign), left)
        raise no_question(self._text, f"{left!r} {sign} {right!r} names no column")

    def _member(self, value: Column | Literal, items: tuple[Literal, ...], negated: bool) -> Condition:
        if not isinstance(value, Column):
            raise no_question(self._text, f"{value!r} is no column")
        return Not(Member(value, items)) if negated else Member(value, items)

    def _value(self) -> Column | Literal | Member | Missing | Not:
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
        column = Column(token.value)
        return self._method(column) if self._take(".") else column

    def _method(self, column: Column) -> Member | Missing | Not:
        name = self._tokens[self._at].value
        if name not in ("isna", "isnull", "notna", "notnull", "isin"):
            self._fail("of a column isna(), notna() or isin([...]) is expected")
        self._at += 1
        self._expect("(")
        if name == "isin":
            found: Member | Missing | Not = Member(column, self._list())
        else:
            found = Missing(column) if name.startswith("is") else Not(Missing(column))
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
