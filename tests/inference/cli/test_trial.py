"""``causcell trial``: average effects, effects on cells, and what can't be asked for."""

from pathlib import Path

import anndata
import pytest
from commands import run_command


def test_trial_writes_average_effects_and_effects_on_cells(
    made: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["trial", data, "--models", made / "models", "--draws", "2", "--no-progress"]
    assert run_command(*words, "--concept", "stim", "--replicate", "donor", "--out", tmp_path / "average.h5ad") == 0
    out, _ = capsys.readouterr()
    assert "320 cells, 3 independent units (donor)" in out
    assert "ctrl against IFN: " in out
    average = anndata.read_h5ad(tmp_path / "average.h5ad")
    assert list(average.obs_names) == ["IFN", "ctrl"]
    where = ["--where", 'stim == "ctrl"']
    assert run_command(*words, "--do", "stim=IFN", *where, "--out", tmp_path / "cells.h5ad") == 0
    effects = anndata.read_h5ad(tmp_path / "cells.h5ad")
    assert (effects.obs["stim"] == "ctrl").all()
    assert effects.layers["deviation"].shape == effects.shape


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give either --concept"),
        (["--concept", "stim", "--do", "stim=IFN"], "give either --concept"),
        (["--do", "stim=IFN", "--baseline", "ctrl"], "--baseline and --replicate belong to --concept"),
        (["--concept", "dose"], "there is no concept 'dose'"),
    ],
)
def test_trial_names_what_it_can_not_do(
    made: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert run_command("trial", data, "--models", made / "models", "--out", tmp_path / "out.h5ad", *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.h5ad").exists()
