"""Tables in plain text: aligned, whole, and with what users name as it is."""

import re

import pytest

from causcell.cli.tables import format_measures, format_table
from causcell.evaluation.table import Table


def test_columns_are_aligned_and_nothing_is_cut_short_or_styled() -> None:
    long = "a row whose name is longer than any terminal is wide " * 5 + "[bold]"
    lines = format_table(["", "steps", "cells/s"], [["fast", "5", "1,200"], [long, "100", ""], ["ü [red]:x:", "", "7"]])
    width = len(long)
    assert lines == [
        f"{'':{width}}  steps  cells/s",
        f"{'fast':{width}}      5    1,200",
        f"{long}    100",
        f"{'ü [red]:x:':{width}}               7",
    ]


def test_every_column_may_stand_on_the_right_or_on_the_left() -> None:
    assert format_table(["a", "bb"], [["ccc", "d"]], left=0) == ["  a  bb", "ccc   d"]
    assert format_table(["a", "bb"], [["ccc", "d"]], left=2) == ["a    bb", "ccc  d"]
    assert format_table(["a", "bb"], []) == ["a  bb"]


def test_measures_show_the_spread_of_repetitions() -> None:
    rows = {"model": {"MSE": (1.0, 3.0)}, "mean": {"MSE": (0.5,), "PCC": (0.25,)}}
    lines = format_measures(Table("Errors", "Error.", "Much.", rows))
    assert lines == [
        "                 MSE    PCC",
        "model  2.000 ± 1.000",
        "mean           0.500  0.250",
    ]


@pytest.mark.parametrize("width", [200, 5000])
def test_a_long_line_is_neither_wrapped_nor_cut(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However narrow the terminal is."""
    monkeypatch.setenv("COLUMNS", "20")
    header, line = format_table(["name", "value"], [["x" * width, "[red]1[/red]"]])
    assert line == f"{'x' * width}  [red]1[/red]"
    assert header.startswith("name ")


def test_there_is_no_colour_and_no_box(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the terminal asks for: output goes to files too."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = "\n".join(format_table(["preset", "steps"], [["fast", "5"]]))
    assert not re.search(r"\x1b|[│┃─━]", text)


def test_an_empty_row_is_an_empty_line() -> None:
    assert format_table(["preset", "steps"], [["fast", "5"], ["", ""]])[-1] == ""
