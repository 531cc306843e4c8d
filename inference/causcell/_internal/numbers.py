"""Check of numbers that callers give: whole ones within a range."""

from __future__ import annotations

import math
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


def finite_number(value: float, name: str, low: float, high: float, allowed: str | None = None) -> float:
    """Return a finite number as a ``float``; True and False, texts and NaN are none.

    Parameters
    ----------
    value, name, low, high
        As in `whole_number`.
    allowed
        What is allowed, for the message.

    Raises
    ------
    ConfigurationError
        No number, not finite, or out of range.

    Examples
    --------
    >>> finite_number(0.5, "eta", 0, 1)
    0.5
    >>> finite_number(float("nan"), "eta", 0, 1)
    Traceback (most recent call last):
        ...
    causcell.errors.ConfigurationError: eta=nan: take a number from 0 to 1
    """
    try:
        number = math.nan if isinstance(value, bool | str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not low <= number <= high:
        raise ConfigurationError(f"{name}={_shown(value)}: take {allowed or f'a number from {low:g} to {high:g}'}")
    return number


def _shown(value: object) -> str:
    """Return the text of a value for a message, shortened: Python prints no number of more than 4,300 digits."""
    if isinstance(value, int) and abs(value) >= 10**30:
        return f"a number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
