"""What a training shows of its progress: one line in a terminal, a line a validation elsewhere."""

import io
from pathlib import Path

import anndata
import pytest
from short_runs import tiny_config

from causcell_training import fit
from causcell_training.loop.progress import TrainingProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_each_validation_has_a_line(cells: anndata.AnnData, tmp_path: Path) -> None:
    out = io.StringIO()
    fit(cells, tmp_path / "run", config=tiny_config(), progress=True, callbacks=[TrainingProgress(out)])
    lines = out.getvalue().splitlines()
    assert [line.partition(",")[0] for line in lines] == [f"epoch {epoch} of at most 6" for epoch in (2, 4, 6)]
    assert all("held-out " in line and "(best " in line for line in lines)
    assert "at most " in lines[0] and lines[0].endswith(" left")
    assert not lines[-1].endswith("left")


def test_in_a_terminal_one_line_is_drawn_anew(cells: anndata.AnnData, tmp_path: Path) -> None:
    out = Terminal()
    fit(cells, tmp_path / "run", config=tiny_config(), progress=True, callbacks=[TrainingProgress(out)])
    shown = out.getvalue()
    assert shown.count("\n") <= 1
    assert "epoch 6 of at most 6, held-out " in shown.split("\r")[-1]


def test_it_is_silent_where_it_was_disabled(cells: anndata.AnnData, tmp_path: Path) -> None:
    out = io.StringIO()
    bar = TrainingProgress(out)
    bar.disable()
    fit(cells, tmp_path / "run", config=tiny_config(), progress=True, callbacks=[bar])
    assert out.getvalue() == ""


@pytest.mark.parametrize(("most", "expected"), [(-1, "epoch 3"), (3, "epoch 3 of at most 3")])
def test_what_nobody_knows_is_left_out(most: int, expected: str) -> None:
    assert TrainingProgress().describe(3, most) == expected
