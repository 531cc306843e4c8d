"""Check of a value against those that are known, and the nearest of them for a message."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TypeVar

from causcell.errors import ConceptError, ConfigurationError, format_list

T = TypeVar("T", bound=str)


def check_choice(value: str, known: Iterable[T], name: str) -> T:
    """Return the known value that ``value`` equals.

    Parameters
    ----------
    value
        What was given.
    known
        Allowed values.
    name
        What the value is, for the message: ``mode``, ``store``.

    Raises
    ------
    ConfigurationError
        The value is none of them; the message has the allowed ones, and a near one if there is one.

    Examples
    --------
    >>> check_choice("do", ("do", "exogenous", "isolated"), "mode")
    'do'
    >>> check_choice("isolate", ("do", "exogenous", "isolated"), "mode")
    Traceback (most recent call last):
        ...
    causcell.errors.ConfigurationError: mode 'isolate' is not known; did you mean 'isolated'? known are 'do', \
'exogenous', 'isolated'
    """
    allowed = list(known)
    for each in allowed:
        if value == each:
            return each
    hint = suggest(value, allowed)
    raise ConfigurationError(f"{name} {value!r} is not known; {hint}known are {format_list(allowed)}")


def suggest(value: object, known: Iterable[object]) -> str:
    """Return ``did you mean 'x'? `` for the known value nearest to ``value``, empty where none is near.

    Letters count alike in upper and lower case, and blanks at the ends do not count.

    Examples
    --------
    >>> suggest("Stim ", ["stim", "donor"])
    "did you mean 'stim'? "
    >>> suggest("age", ["stim", "donor"])
    ''
    """
    by_folded = {str(each).strip().casefold(): each for each in known}
    near = difflib.get_close_matches(str(value).strip().casefold(), by_folded, n=1)
    return f"did you mean {str(by_folded[near[0]])!r}? " if near else ""


def as_pairs(texts: Iterable[str] | str, form: str, separator: str) -> list[tuple[str, str]]:
    """Split strings, or one string, such as ``a=b`` or ``a:b`` into pairs, at the first separator.

    Raises
    ------
    ConceptError
        A string is not of the form ``form``.
    """
    pairs = []
    for text in [texts] if isinstance(texts, str) else texts:
        left, _, right = text.partition(separator)
        if not (left and right):
            raise ConceptError(f"{text!r} is not of the form {form.upper()}")
        pairs.append((left, right))
    return pairs
