"""Check of numbers that callers give: whole ones within a range."""

from __future__ import annotations

import operator
from typing import SupportsIndex

from causcell.errors import ConfigurationError

MOST_THREADS = 4096
"""Threads that may be asked for; more than any machine has CPUs are a slip."""


def whole_number(value: SupportsIndex, name: str, low: int, high: int) -> int:
    """Return a whole number as an ``int``, NumPy's too; True and False, texts and fractions are none.

    Parameters
    ----------
    value
        What was given.
    name
        Name of the argument, for the message.
    low, high
        Range, its ends included.

    Raises
    ------
    ConfigurationError
        No whole number, or one out of range.

    Examples
    --------
    >>> whole_number(8, "threads", 1, 4096)
    8
    >>> whole_number(0, "threads", 1, 4096)
    Traceback (most recent call last):
        ...
    causcell.errors.ConfigurationError: threads=0: take at least 1 (at most 4096)
    >>> whole_number(2.5, "threads", 1, 4096)
    Traceback (most recent call last):
        ...
    causcell.errors.ConfigurationError: threads=2.5: take a whole number from 1 to 4096
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise ConfigurationError(f"{name}={_shown(value)}: take a whole number from {low} to {high}")
    if number < low:
        raise ConfigurationError(f"{name}={_shown(number)}: take at least {low} (at most {high})")
    if number > high:
        raise ConfigurationError(f"{name}={_shown(number)}: take at most {high} (at least {low})")
    return number


def _shown(value: object) -> str:
    """Return the text of a value for a message, shortened: Python prints no number of more than 4,300 digits."""
    if isinstance(value, int) and abs(value) >= 10**30:
        return f"a number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
