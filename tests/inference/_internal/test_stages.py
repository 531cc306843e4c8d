"""Lines that tell how far a long piece of work is."""

import io
import sys
import warnings
from types import SimpleNamespace

import pytest

from causcell._internal import stages
from causcell._internal.stages import at_intervals, progress_bar, show_stages


def test_short_steps_are_told_at_intervals_the_first_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now, told = [100.0], []
    monkeypatch.setattr(stages.time, "monotonic", lambda: now[0])
    tell = at_intervals(told.append, seconds=3)
    for step in range(8):
        tell(f"step {step}")
        now[0] += 1
    assert told == ["step 0", "step 3", "step 6"]


def test_nothing_is_told_to_nobody() -> None:
    at_intervals(None)("a step")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _tell(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    with show_stages(True) as report:
        for stage in ("writing and verifying scm", "judging concepts"):
            report(stage)
    return stream.getvalue()


def test_stages_are_drawn_on_one_line_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = _tell(monkeypatch, Terminal())
    assert shown.count("\n") == 1
    assert "writing and verifying scm, 00:" in shown
    assert "judging concepts, 00:" in shown.rstrip().split("\r")[-1]


def test_stages_have_a_line_each_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _tell(monkeypatch, io.StringIO()) == "writing and verifying scm\njudging concepts\n"


def test_stages_are_told_to_whoever_asks_and_to_nobody_else(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[str] = []
    for progress in (told.append, False):
        with show_stages(progress) as report:
            report("reading")
    assert told == ["reading"]
    assert capsys.readouterr() == ("", "")


def test_a_notebook_without_widgets_is_not_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar without ipywidgets is a line of text, which does as well."""
    import tqdm.notebook

    kernel = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: kernel))
    monkeypatch.setattr(tqdm.notebook, "IProgress", None)
    for name in ("tqdm.auto", "tqdm.autonotebook"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        progress_bar(disable=True).close()
    assert not caught
