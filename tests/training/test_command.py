"""The command ``causcell train``: what it takes beside what `fit` does."""

from pathlib import Path

import anndata
import pytest
from commands import SMALL_MODEL, run_command, train_words

from causcell_training import Run


def test_a_run_is_overwritten_by_a_flag_alone(
    cells: anndata.AnnData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells.write_h5ad(tmp_path / "cells.h5ad")
    train = train_words(tmp_path / "cells.h5ad", tmp_path / "run", *SMALL_MODEL)
    for words, status, seed in (((), 0, 0), (("--seed", "4"), 2, 0), (("--seed", "4", "--overwrite"), 0, 4)):
        assert run_command(*train, *words) == status
        assert Run.load(tmp_path / "run").config.seed == seed
    assert "exists already" in capsys.readouterr().err


def test_several_files_are_one_collection_named_by_their_keys(
    cells: anndata.AnnData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells[:160].write_h5ad(tmp_path / "first.h5ad")
    cells[160:].write_h5ad(tmp_path / "second.h5ad")
    words = train_words(tmp_path / "first.h5ad", tmp_path / "run", *SMALL_MODEL, "--cache", tmp_path)
    words.insert(2, f"other={tmp_path / 'second.h5ad'}")
    assert run_command(*words) == 0
    split = (tmp_path / "run" / "split.csv").read_text().splitlines()
    assert [split[1].split(":")[0], split[-1].split(":")[0]] == ["first", "other"]
    words[words.index("--cache") + 1] = tmp_path / "none"
    assert run_command(*words, "--overwrite") == 2
    assert "none' is no folder" in capsys.readouterr().err
