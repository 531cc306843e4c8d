"""What a condition of ``where`` is once it is read: a tree of comparisons; and the errors that it can end in."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from causcell.errors import ConceptError, ConfigurationError

INDEX = "index"
"""Name of the cells' names, where no column is called so."""

SIGNS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
"""Comparisons by their signs."""

MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
"""The sign of an order that says the same with the sides exchanged."""

Literal: TypeAlias = "str | int | float | bool"


@dataclass(frozen=True)
class Column:
    """A column of ``obs``, or the cells' names (`INDEX`)."""

    name: str


@dataclass(frozen=True)
class Compare:
    """A column beside a column or literal, by one of the signs ``== != < <= > >=``."""

    left: Column | Literal
    sign: str
    right: Column | Literal


@dataclass(frozen=True)
class Member:
    """A column's value is one of some literals."""

    column: Column
    items: tuple[Literal, ...]


@dataclass(frozen=True)
class Missing:
    """A column's value is missing."""

    column: Column


@dataclass(frozen=True)
class Not:
    """A condition does not hold."""

    part: Condition


@dataclass(frozen=True)
class Joined:
    """Several conditions, joined by ``numpy.logical_and`` or ``numpy.logical_or``."""

    join: Callable[[Any, Any], Any]
    parts: tuple[Condition, ...]


Condition: TypeAlias = "Column | Compare | Member | Missing | Not | Joined"


def unusable(text: str, why: str) -> ConceptError:
    """Make the error of a condition that can't be read, or makes no sense for a column."""
    shown = text if len(text) <= 300 else f"{text[:300]}..."
    return ConceptError(f"where={shown!r} can't be evaluated: {why}")


def no_question(text: str, why: str) -> ConfigurationError:
    """Make the error of a condition that does not say yes or no."""
    return ConfigurationError(f"where={text!r} does not say yes or no for each cell: {why}")
