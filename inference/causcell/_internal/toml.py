"""Read settings from TOML files that people write, and check them against a model of pydantic's."""

from __future__ import annotations

import json
import math
import os
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causcell._internal.choices import suggest
from causcell._internal.reading import read_bounded
from causcell.errors import ConfigurationError, format_list

if TYPE_CHECKING:
    from pydantic import ValidationError

_LARGEST = 2**20
"""Bytes of a file of settings at most."""

_LARGEST_INTEGER = 2**63
"""TOML's integers have 64 bits."""


def read_toml(path: str | os.PathLike[str], name: str) -> dict[str, Any]:
    """Read a file of settings.

    Parameters
    ----------
    path
        The file.
    name
        Name of the argument that the file is given by, for messages.

    Raises
    ------
    ConfigurationError
        The file can't be read, is no TOML, or has a number that is not finite or has more than 64 bits.
    """
    place = f"{name}={os.fspath(path)!r}"
    try:
        content = read_bounded(Path(path), _LARGEST, ConfigurationError)
    except ConfigurationError as error:
        raise ConfigurationError(f"{place} can't be read: {error.__cause__ or error}") from error
    try:
        fields = tomllib.loads(content.decode("utf-8-sig"))
    except RecursionError:
        raise ConfigurationError(f"{place} can't be read: it is nested too deeply") from None
    except ValueError as error:  # bytes that are no text, text that is no TOML, numbers of thousands of digits
        raise ConfigurationError(f"{place} can't be read: {str(error)[:300]}") from error
    _check_numbers(fields, place)
    return fields


def as_json(fields: dict[str, Any]) -> str:
    """Return settings as JSON, for pydantic to check strictly: there a list is a tuple, and a text is no number."""
    return json.dumps(fields, default=lambda value: value.item() if hasattr(value, "item") else str(value))


def explain(error: ValidationError, known: Iterable[str]) -> str:
    """Return the first fault that pydantic found: the setting, what is wrong, and the names that there are."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))[:200]
    names = list(known)
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{place} is not known; {suggest(place, names)}known are {format_list(names)}"
    value = first["input"]
    given = "" if isinstance(value, dict | list) else f" is {repr(value)[:100]}"
    return f"{place}{given}: {first['msg']}; known are {format_list(names)}"


def _check_numbers(value: Any, place: str) -> None:
    if isinstance(value, dict):
        for key, each in value.items():
            _check_numbers(each, f"{place}: {key[:100]}")
    elif isinstance(value, list):
        for each in value:
            _check_numbers(each, place)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigurationError(f"{place} is {value}; take a finite number")
    elif isinstance(value, int) and not -_LARGEST_INTEGER <= value < _LARGEST_INTEGER:
        raise ConfigurationError(f"{place} is a whole number of more than 64 bits; take a smaller one")
