"""Every setting of a training as a list: its name, default, allowed values and explanation, read from the classes."""

from __future__ import annotations

import inspect
import re
import textwrap
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from causcell_training.config import DescentConfig, ModelConfig, ObjectiveConfig, OptimisationConfig, TrainConfig

SECTIONS = {
    "": "Cells, concepts and genes",
    "model": "Networks: model",
    "objective": "Weights of the objective: objective",
    "optimisation": "Optimiser and stopping: optimisation",
    "descent": "Starting from a finished run: descent",
}
"""Sections of a file of settings, each with its title."""

_CLASSES: dict[str, type[BaseModel]] = {
    "": TrainConfig,
    "model": ModelConfig,
    "objective": ObjectiveConfig,
    "optimisation": OptimisationConfig,
    "descent": DescentConfig,
}
_LIMITS = {"ge": "from {}", "gt": "above {}", "le": "to {}", "lt": "below {}"}


@dataclass(frozen=True)
class Setting:
    """One setting of a training.

    Attributes
    ----------
    section
        Section of the file, empty at its top.
    name
        As ``--set`` takes it: ``objective.adversary``.
    default
        The default, as a file of settings spells it; ``none`` where there is none.
    allowed
        Type, choices and range.
    explanation
        What it does.
    """

    section: str
    name: str
    default: str
    allowed: str
    explanation: str


def describe_settings() -> list[Setting]:
    """Describe every setting, in the order of the file.

    Examples
    --------
    >>> found = {each.name: each for each in describe_settings()}
    >>> found["optimisation.patience"].default, found["optimisation.patience"].allowed
    ('8', 'whole number, from 1 to 1000000000')
    """
    return [
        Setting(
            section,
            f"{section}.{name}" if section else name,
            _spell(field.default),
            _allowed(field),
            _explanations(owner)[name],
        )
        for section, owner in _CLASSES.items()
        for name, field in owner.model_fields.items()
        if name not in _CLASSES
    ]


def format_settings(width: int = 80) -> str:
    """Write the list of settings as text: section by section, each with its explanation below it."""
    lines = []
    for section, title in SECTIONS.items():
        lines += [title, ""]
        for each in describe_settings():
            if each.section == section:
                lines.append(f"  {each.name} = {each.default}  ({each.allowed})")
                text = each.explanation.replace("``", "").replace("`", "")
                lines += [*textwrap.wrap(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6), ""]
    return "\n".join(lines).rstrip()


@cache
def _explanations(owner: type[BaseModel]) -> dict[str, str]:
    """Read the docstring below each field, on one line."""
    found = re.findall(r'^    (\w+): [^\n]*\n    """(.*?)"""', inspect.getsource(owner), re.MULTILINE | re.DOTALL)
    return {name: " ".join(text.split()) for name, text in found}


def _spell(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _allowed(field: FieldInfo) -> str:
    limits = " ".join(
        words.format(_spell(getattr(each, name)))
        for each in field.metadata
        for name, words in _LIMITS.items()
        if getattr(each, name, None) is not None
    )
    return ", ".join(filter(None, (_name_type(field.annotation), limits)))


def _name_type(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " | ".join(map(str, get_args(kind)))
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_name_type(each) for each in get_args(kind) if each is not NoneType)
    if get_origin(kind) is tuple:
        return f"list of {_name_type(get_args(kind)[0])}"
    return {int: "whole number", float: "number", bool: "true | false", str: "text"}[kind]
