"""Sizes and times as people write them."""

from __future__ import annotations

import re

from pydantic import ByteSize, TypeAdapter

from causcell.errors import ConfigurationError

_SIZES = TypeAdapter(ByteSize)
_FORM = re.compile(r"\s*\d*\.?\d+\s*[A-Za-z]*\s*")
"""A number and a unit; `ByteSize` passes over what follows them, such as the rest of ``64,000kB``."""


def parse_size(text: str | int) -> int:
    """Return the bytes of ``64MB``, ``1GB``, ``512KiB`` or a plain number.

    Raises
    ------
    ConfigurationError
        The text is no size, or one below a byte.

    Examples
    --------
    >>> parse_size("64MB"), parse_size("512KiB"), parse_size(100)
    (64000000, 524288, 100)
    """
    try:
        if not _FORM.fullmatch(str(text)):
            raise ValueError(text)
        size = int(_SIZES.validate_python(f"{text}B" if str(text).lower().endswith("i") else text))
    except (ValueError, OverflowError):  # pydantic's errors are ValueErrors
        size = 0
    if size < 1:
        raise ConfigurationError(f"size {text!r} is not one; write it as 64MB, 1GB or 512KiB")
    return size


def format_size(size: float) -> str:
    """Write a number of bytes in decimal units.

    Examples
    --------
    >>> format_size(427_843_211)
    '428 MB'
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}" if unit != "bytes" else f"{size:.0f} bytes"
        size /= 1000
    return f"{size:.3g} TB"


def format_count(number: int, noun: str) -> str:
    """Write a number of things, in digits grouped by thousands.

    Examples
    --------
    >>> format_count(1, "draw"), format_count(1232, "cell")
    ('1 draw', '1,232 cells')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_duration(seconds: float) -> str:
    """Write a number of seconds as seconds, minutes, or hours and minutes.

    Examples
    --------
    >>> format_duration(7500)
    '2 h 5 min'
    """
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
