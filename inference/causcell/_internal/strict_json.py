"""JSON from anybody: read strictly and within bounds."""

from __future__ import annotations

import json
from typing import Any

_LONGEST_TEXT = 600


def parse_object(text: str | bytes, *, longest: int, most: int) -> dict[str, Any]:
    """Parse a JSON object: UTF-8, each name once, no NaN or infinity, no half characters.

    Parameters
    ----------
    text
        The JSON.
    longest
        Bytes (or characters) of it at most.
    most
        Values in it at most, counted by what separates them.

    Raises
    ------
    ValueError
        It is none of that.

    Examples
    --------
    >>> parse_object('{"a": 1}', longest=100, most=10)
    {'a': 1}
    >>> parse_object('{"a": 1, "a": 2}', longest=100, most=10)
    Traceback (most recent call last):
        ...
    ValueError: it has 'a' twice
    """
    if len(text) > longest:
        raise ValueError(f"it is longer than {longest:,} bytes")
    decoded = text if isinstance(text, str) else text.decode()
    if sum(map(decoded.count, ",[{")) > most:
        raise ValueError(f"it has more than {most:,} values")
    try:
        fields = json.loads(decoded, object_pairs_hook=_refuse_twice, parse_constant=_refuse_constant)
        if "\\ud" in decoded.lower():
            json.dumps(fields, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(fields, dict):
        raise ValueError("it is no JSON object")
    return fields


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it has {max(names, key=names.count)!r} twice")
    return fields


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it has {name}, which is no number")


def shorten(told: object) -> str:
    """Return a text for a message, which a stranger's file can't make endless.

    Examples
    --------
    >>> shorten("a" * 1000)[-5:], shorten(10**30)
    ('aa...', 'above 2^60')
    """
    if isinstance(told, int):
        return f"{told:.4g}" if told < 2**60 else "above 2^60"
    text = str(told)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."
