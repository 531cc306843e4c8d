"""Text for a terminal: folded at words where it is too long, and whole where it goes to a file."""

import io
import sys

import pytest

from causcell.cli.folding import fold, say

NOTE = "note: the edge donor:cell_type agrees with the labels"
ROW = "  donor  8 labels  D1015 616, D1256 431, D1488 431"
NUMBERS = "  CausCell              0.746 0.17   0.06   0.854"


def test_prose_is_folded_at_words_and_indented() -> None:
    assert fold(NOTE, 30).splitlines() == ["note: the edge donor:cell_type", "  agrees with the labels"]
    assert fold("    at a place of its own", 20).splitlines() == ["    at a place of", "      its own"]


def test_the_last_column_stands_below_itself() -> None:
    assert fold(ROW, 40).splitlines() == [ROW[:40], f"{'':19}D1488 431"]


@pytest.mark.parametrize("line", [NUMBERS, "short", "", "  " + "x" * 60])
def test_other_lines_stay_as_they_are(line: str) -> None:
    assert fold(line, 40) == line


def test_nothing_is_lost_whatever_the_width() -> None:
    for width in range(1, 60):
        assert fold(f"{NOTE}\n{ROW}", width).split() == f"{NOTE} {ROW}".split()


def test_a_file_has_whole_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    say(NOTE)
    say(NOTE, err=True)
    assert capsys.readouterr() == (f"{NOTE}\n", f"{NOTE}\n")


def test_a_terminal_has_lines_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "30")
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    say(NOTE)
    assert screen.getvalue() == f"{fold(NOTE, 30)}\n"
