"""Sizes and times are read and written as people do."""

import pytest

from causcell._internal.units import format_duration, format_size, parse_size
from causcell.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64MB", 64 * 10**6),
        ("64 MB", 64 * 10**6),
        ("64mb", 64 * 10**6),
        ("1GB", 10**9),
        ("2kB", 2000),
        ("512KiB", 512 * 1024),
        ("1MiB", 1024**2),
        ("1Mi", 1024**2),
        ("100", 100),
        (100, 100),
        ("1.5MB", 1_500_000),
    ],
)
def test_sizes_are_read(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "many", "64XB", "-1MB", "0", 0, -5, "nan", "inf", "1e400"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ConfigurationError, match="is not one; write it as 64MB, 1GB or 512KiB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (427_843_211, "428 MB"),
        (2.5e9, "2.5 GB"),
        (3e15, "3e+03 TB"),
    ],
)
def test_sizes_are_written_in_decimal_units(size, text):
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (7169, "119 min"),
        (7170, "2 h 0 min"),
        (7500, "2 h 5 min"),
    ],
)
def test_times_are_written_by_their_size(seconds, text):
    assert format_duration(seconds) == text
