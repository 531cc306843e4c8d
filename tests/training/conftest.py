"""Runs that the tests of training share."""

import shutil
from pathlib import Path

import anndata
import pytest
from short_runs import interrupt, short_config, small_config

from causcell_training import Run, fit
from causcell_training.data.cells import TrainingData, prepare


@pytest.fixture(scope="session")
def prepared(cells: anndata.AnnData) -> TrainingData:
    """50 highly variable genes of 60, cells held out at random."""
    return prepare(cells, small_config())


@pytest.fixture(scope="session")
def finished(cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trained without interruption."""
    return fit(cells, tmp_path_factory.mktemp("finished") / "run", config=short_config())


@pytest.fixture(scope="session")
def broken_off(cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same training, broken off in its sixth epoch: one epoch after the last checkpoint. Copy before use."""
    path = tmp_path_factory.mktemp("broken_off") / "run"
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 5, RuntimeError("power cut"))
        with pytest.raises(RuntimeError, match="power cut"):
            fit(cells, path, config=short_config())
    return path


@pytest.fixture
def interrupted(broken_off: Path, tmp_path: Path) -> Path:
    """A copy of its folder."""
    return Path(shutil.copytree(broken_off, tmp_path / "run"))
