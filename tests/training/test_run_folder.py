"""The run folder: resumed runs are the uninterrupted ones, and nothing else is written over."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
from short_runs import EPOCHS, assert_same_weights, read_metrics, short_config, tree

from causcell.errors import CausCellError, OutputExistsError, RunError
from causcell_training import Run, fit
from causcell_training.config import load_config
from causcell_training.run_folder import check_writable, clear_run, write_config, write_split


def test_a_resumed_run_is_the_uninterrupted_one(cells: anndata.AnnData, finished: Run, interrupted: Path) -> None:
    resumed = fit(cells, interrupted, config=short_config(), resume=True)
    assert {path.name for path in interrupted.iterdir()} == {path.name for path in finished.path.iterdir()}
    assert resumed.provenance["epochs"] == EPOCHS
    assert resumed.provenance["steps"] == finished.provenance["steps"]
    assert_same_weights(resumed, finished)


def test_a_resumed_run_takes_the_settings_file_that_was_written(
    cells: anndata.AnnData, finished: Run, interrupted: Path
) -> None:
    resumed = fit(cells, interrupted, config=load_config(interrupted / "config.toml"), resume=True)
    assert resumed.config == finished.config


def test_a_finished_run_is_not_resumed(cells: anndata.AnnData, finished: Run) -> None:
    with pytest.raises(RunError, match="has finished; there is nothing to resume"):
        fit(cells, finished.path, config=short_config(), resume=True)


def test_nothing_is_resumed_where_nothing_is(cells: anndata.AnnData, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no checkpoint.*without resume=True"):
        fit(cells, tmp_path / "run", config=short_config(), resume=True)
    assert not (tmp_path / "run").exists()


def test_a_run_broken_off_before_its_first_checkpoint_begins_again(
    cells: anndata.AnnData, finished: Run, interrupted: Path
) -> None:
    for name in ("last", "best"):
        (interrupted / "checkpoints" / f"{name}.safetensors").unlink()
    resumed = fit(cells, interrupted, config=short_config(), resume=True)
    assert_same_weights(resumed, finished)
    assert (interrupted / "metrics.csv").read_text() == (finished.path / "metrics.csv").read_text()


def test_a_run_that_kept_nothing_of_its_cells_says_how_to_begin_again(
    cells: anndata.AnnData, interrupted: Path
) -> None:
    """Without --resume its folder is refused as taken: the remedy has to name that."""
    shutil.rmtree(interrupted / "checkpoints")
    with pytest.raises(RunError, match=r"no checkpoint.*overwrite=True"):
        fit(cells, interrupted, config=short_config(), resume=True)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"model.width": 64}, "model.width is 32 there and 64 here"),
        ({"genes": 30}, "genes is 'all' there and 30 here"),
        ({"edge": ()}, "edge is "),
        ({"optimisation.validate_every": 1}, "optimisation.validate_every is 2 there and 1 here"),
    ],
)
def test_other_settings_are_not_resumed(
    cells: anndata.AnnData, interrupted: Path, change: dict[str, Any], told: str
) -> None:
    before = tree(interrupted)
    with pytest.raises(RunError, match=rf"other settings: {told}.*config\.toml"):
        fit(cells, interrupted, config=short_config(**change), resume=True)
    assert tree(interrupted) == before


def test_another_split_is_not_resumed(cells: anndata.AnnData, interrupted: Path) -> None:
    """It would train on cells that were held out, and report on cells that were trained on."""
    before = tree(interrupted)
    words = np.where(np.arange(cells.n_obs) % 4, "train", "test")
    with pytest.raises(RunError, match="split"):
        fit(
            cells, interrupted, config=short_config(), split=dict(zip(cells.obs_names, words, strict=True)), resume=True
        )
    assert tree(interrupted) == before


def test_other_cells_are_not_resumed(cells: anndata.AnnData, interrupted: Path) -> None:
    before = tree(interrupted)
    with pytest.raises(CausCellError):
        fit(cells[:, :40].copy(), interrupted, config=short_config(), resume=True)
    assert tree(interrupted) == before


def test_an_existing_folder_is_refused_and_left_as_it_is(cells: anndata.AnnData, finished: Run, tmp_path: Path) -> None:
    before = tree(finished.path)
    with pytest.raises(OutputExistsError, match="exists already"):
        fit(cells, finished.path, config=short_config())
    assert tree(finished.path) == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputExistsError, match="exists already"):
        fit(cells, tmp_path / "file", config=short_config())
    assert (tmp_path / "file").read_text() == "mine"


def test_an_unfinished_run_is_not_overwritten(cells: anndata.AnnData, broken_off: Path) -> None:
    before = tree(broken_off)
    with pytest.raises(OutputExistsError, match=r"resume=True.*overwrite=True") as raised:
        fit(cells, broken_off, config=short_config())
    assert "remove" not in str(raised.value)
    assert tree(broken_off) == before


# -- overwriting -------------------------------------------------------------------------------------------------------


def begin(path: Path) -> None:
    """Write a new run's folder over whatever is at a path."""
    check_writable(path, overwrite=True)
    clear_run(path)
    write_config(path, short_config())
    write_split(path, ["a", "b"], ["train", "choose"])


@pytest.mark.parametrize("which", ["finished", "interrupted"])
def test_a_run_is_overwritten_where_that_is_asked_for(
    cells: anndata.AnnData, finished: Run, interrupted: Path, tmp_path: Path, which: str
) -> None:
    path = interrupted if which == "interrupted" else Path(shutil.copytree(finished.path, tmp_path / "again"))
    again = fit(cells, path, config=short_config(**{"optimisation.epochs": 2}), overwrite=True)
    assert {file.name for file in path.iterdir()} == {file.name for file in finished.path.iterdir()}
    assert Run.load(path).provenance == again.provenance
    assert again.provenance["epochs"] == 2
    assert {row["epoch"] for row in read_metrics(path / "metrics.csv")} == {"0", "1"}


def test_overwriting_nothing_is_a_new_run(tmp_path: Path) -> None:
    begin(tmp_path / "new" / "run")
    (tmp_path / "empty").mkdir()
    begin(tmp_path / "empty")
    assert tree(tmp_path / "empty") == tree(tmp_path / "new" / "run")
    assert set(tree(tmp_path / "empty")) == {"config.toml", "split.csv"}


def test_a_link_to_a_run_stays_one(finished: Run, tmp_path: Path) -> None:
    path = Path(shutil.copytree(finished.path, tmp_path / "run"))
    (tmp_path / "link").symlink_to(path)
    begin(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert set(tree(path)) == {"config.toml", "split.csv"}


def folder_with_notes(finished: Run, path: Path) -> None:
    shutil.copytree(finished.path, path)
    (path / "notes.txt").write_text("mine")


def settings_alone(finished: Run, path: Path) -> None:
    path.mkdir()
    (path / "config.toml").write_text("seed = 1\n")


def a_file(finished: Run, path: Path) -> None:
    path.write_text("mine")


@pytest.mark.parametrize(
    ("make", "message"),
    [(folder_with_notes, "'notes.txt'"), (settings_alone, r"run\.json"), (a_file, "not overwritten")],
)
def test_only_a_runs_folder_is_overwritten(
    cells: anndata.AnnData, finished: Run, tmp_path: Path, make: Callable[[Run, Path], None], message: str
) -> None:
    make(finished, tmp_path / "run")
    before = tree(tmp_path)
    with pytest.raises(OutputExistsError, match=message):
        fit(cells, tmp_path / "run", config=short_config(), overwrite=True)
    assert tree(tmp_path) == before


def test_a_run_is_kept_when_the_data_of_the_next_cant_be_used(
    cells: anndata.AnnData, finished: Run, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(finished.path, tmp_path / "run"))
    before = tree(path)
    with pytest.raises(CausCellError):
        fit(cells, path, config=short_config(), concepts=["nothing"], edges=[], overwrite=True)
    assert tree(path) == before
