"""Cells and models on disk for tests of the command line; all are treated as read-only."""

from pathlib import Path

import anndata
import pytest
from commands import SMALL_MODEL, run_command


@pytest.fixture(scope="session")
def data(cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with `cells`."""
    path = tmp_path_factory.mktemp("data") / "cells.h5ad"
    cells.write_h5ad(path)
    return path


@pytest.fixture(scope="session")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``run`` and ``models``, made by the commands."""
    pytest.importorskip("torch", reason="takes causcell[train]")
    folder = tmp_path_factory.mktemp("made")
    concepts = ["--concept", "stim", "--concept", "cell_type", "--concept", "state"]
    edges = ["--edge", "stim:state", "--edge", "cell_type:state"]
    train = ["train", data, "--out", folder / "run", *concepts, *edges, "--genes", "40", "--seed", "3", *SMALL_MODEL]
    assert run_command(*train, "--no-progress") == 0
    assert run_command("export", folder / "run", "--out", folder / "models") == 0
    return folder


@pytest.fixture(scope="session")
def folder(cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds ``good.h5ad``; tests add files of bad kinds."""
    path = tmp_path_factory.mktemp("bad")
    cells.write_h5ad(path / "good.h5ad")
    return path
