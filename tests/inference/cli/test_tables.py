"""Tables in plain text: aligned, whole, and without colour or a box."""

import re

import pytest

from causcell.cli.tables import format_table

ROWS = [["fast", "5", "1,000"], ["accurate", "100", "7"], ["", "", ""]]


def test_columns_are_aligned_and_nothing_is_cut():
    lines = format_table(["preset", "steps", "cells/s"], ROWS)
    assert lines == [
        "preset    steps  cells/s",
        "fast          5    1,000",
        "accurate    100        7",
        "",
    ]


@pytest.mark.parametrize("width", [200, 5000])
def test_a_long_line_is_neither_wrapped_nor_cut(width, monkeypatch):
    """However narrow the terminal is."""
    monkeypatch.setenv("COLUMNS", "20")
    header, line = format_table(["name", "value"], [["x" * width, "[red]1[/red]"]])
    assert line == f"{'x' * width}  [red]1[/red]"
    assert header.startswith("name ")


def test_left_columns_may_be_several():
    lines = format_table(["a", "b", "c"], [["1", "long", "3"]], left=2)
    assert lines[0].index("b") == lines[1].index("long")


def test_no_colour_or_box(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = "\n".join(format_table(["preset", "steps"], [row[:2] for row in ROWS]))
    assert not re.search(r"\x1b|[│┃─━]", text)


def test_a_table_without_rows_is_its_header():
    assert format_table(["preset", "steps"], []) == ["preset  steps"]
