"""The command ``causcell train``: what it takes beside what `fit` does."""

from pathlib import Path

import anndata
import pytest

from causcell.cli.main import main
from causcell_training import Run

WORDS = (
    "--concept",
    "stim",
    "--genes",
    "10",
    "--no-progress",
    "--set",
    "optimisation.epochs=1",
    "--set",
    "model.width=8",
)


def train(data: Path, out: Path, *words: str) -> int:
    """Exit status of ``causcell train``."""
    with pytest.raises(SystemExit) as exit_:
        main(["train", str(data), "--out", str(out), *WORDS, *words])
    return 0 if exit_.value.code is None else int(exit_.value.code)


def test_a_run_is_overwritten_by_a_flag_alone(
    cells: anndata.AnnData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells.write_h5ad(tmp_path / "cells.h5ad")
    for words, status, seed in (((), 0, 0), (("--seed", "4"), 2, 0), (("--seed", "4", "--overwrite"), 0, 4)):
        assert train(tmp_path / "cells.h5ad", tmp_path / "run", *words) == status
        assert Run.load(tmp_path / "run").config.seed == seed
    assert "exists already" in capsys.readouterr().err
