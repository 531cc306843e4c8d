"""Flags of ``causcell trial`` that were renamed."""

from pathlib import Path

import anndata
import pytest

from causcell.cli.main import main


def run(*words: object) -> int:
    """Exit status of the command line for these words."""
    with pytest.raises(SystemExit) as exit_:
        main([str(word) for word in words])
    return 0 if exit_.value.code is None else int(exit_.value.code)


def test_flags_by_their_old_names_are_taken_with_a_warning(
    repository: Path, cells: anndata.AnnData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells[:20].write_h5ad(tmp_path / "cells.h5ad")
    words = ["trial", tmp_path / "cells.h5ad", "--models", repository, "--concept", "stim", "--draws", 1]
    words = [*words, "--no-progress", "--out"]
    assert run(*words, tmp_path / "old.h5ad", "--least", 0.2, "--rate", 0.1) == 0
    told = capsys.readouterr().err
    assert "warning: --least is deprecated; use --min-effect" in told
    assert "warning: --rate is deprecated; use --fdr" in told
    assert run(*words, tmp_path / "new.h5ad", "--min-effect", 0.2, "--fdr", 0.1) == 0
    assert capsys.readouterr().err == ""
    old, new = (anndata.read_h5ad(tmp_path / f"{name}.h5ad").uns["causcell"]["trial"] for name in ("old", "new"))
    assert (old["least"], old["rate"]) == (new["least"], new["rate"]) == (0.2, 0.1)
    assert run(*words, tmp_path / "both.h5ad", "--least", 0.2, "--min-effect", 0.2) == 2
    assert "--least is the old name of --min-effect" in capsys.readouterr().err


def test_old_flags_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("trial", "--help") == 0
    shown = capsys.readouterr().out
    assert "--min-effect" in shown
    assert "--fdr" in shown
    assert "--least" not in shown
    assert "--rate" not in shown
