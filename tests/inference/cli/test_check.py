"""``causcell check``: a report on labels, concepts and graph; exit status 2 for what training would refuse."""

import json
from pathlib import Path

import anndata
import numpy as np
import pytest
from commands import run_command, says, train_words


@pytest.fixture(scope="module")
def dirty(cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cells of which some labels have blanks, some are text for nothing, and batch is stim."""
    path = tmp_path_factory.mktemp("dirty") / "cells.h5ad"
    adata = cells.copy()
    stim = adata.obs["stim"].astype(str).to_numpy(dtype=object)
    adata.obs["batch"] = np.where(stim == "IFN", "run2", "run1")
    stim[::9] += " "
    adata.obs["stim"] = stim
    cell_type = adata.obs["cell_type"].astype(object)
    cell_type.iloc[::7] = np.nan
    adata.obs["cell_type"] = cell_type.astype(str)
    adata.write_h5ad(path)
    return path


WORDS = ["--concept", "stim", "--concept", "cell_type", "--concept", "batch"]


def test_check_reports_and_changes_nothing(dirty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = dirty.read_bytes()
    assert run_command("check", dirty, *WORDS, "--edge", "stim:cell_type") == 0
    out, err = capsys.readouterr()
    says(out, "320 cells x 60 genes", "'nan' (46 cells) looks like a missing value", "begin or end with blanks", "stim")
    assert err == ""
    assert dirty.read_bytes() == before


def test_check_prints_json(dirty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("check", dirty, *WORDS, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    kinds = {finding["kind"] for finding in report["findings"] if finding["level"] == "warning"}
    assert kinds == {"blanks", "missing_text", "nested"}


def test_check_fails_for_what_training_refuses(dirty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("check", dirty, "--concept", "stin") == 2
    assert "error: obs has no column 'stin' for a concept; did you mean 'stim'?" in capsys.readouterr().out
    assert run_command(*train_words(dirty, tmp_path / "run", concept="stin")) == 2
    assert "did you mean 'stim'?" in capsys.readouterr().err


def test_train_warns_of_what_check_warns_of(
    dirty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("causcell_training.loop.trainer.train_model", stop)
    assert run_command("check", dirty, *WORDS) == 0
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert run_command("train", dirty, "--out", tmp_path / "run", *WORDS) == 130
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")] == warnings
    assert len(warnings) == 3
