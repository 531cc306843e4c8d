"""The trainer: when it stops, which weights are kept, and whom it listens to."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anndata
import lightning.pytorch as lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger
from short_runs import EPOCHS, assert_same_weights, read_metrics, short_config, weights

from causcell.errors import CausCellError
from causcell_training import Run, TrainingPlan, fit
from causcell_training.checkpoint_file import read_checkpoint
from causcell_training.loop import trainer
from causcell_training.loop.training_plan import MONITOR


def test_training_stops_when_held_out_cells_no_longer_improve(cells: anndata.AnnData, tmp_path: Path) -> None:
    """Steps too small to change a float32 weight improve nothing: the first validation stays the best."""
    config = short_config(
        **{
            "optimisation.learning_rate": 1e-30,
            "optimisation.epochs": 50,
            "optimisation.patience": 2,
            "optimisation.validate_every": 1,
        }
    )
    assert fit(cells, tmp_path / "run", config=config).provenance["epochs"] == 3  # the first, and two without better


def test_a_training_shorter_than_the_time_between_validations_is_validated_all_the_same(
    cells: anndata.AnnData, tmp_path: Path
) -> None:
    config = short_config(**{"optimisation.epochs": 1, "optimisation.validate_every": 5})
    run = fit(cells, tmp_path / "run", config=config)
    assert run.provenance["epochs"] == 1
    assert Run.load(tmp_path / "run").provenance == run.provenance


def test_a_training_that_diverges_is_no_finished_run(cells: anndata.AnnData, tmp_path: Path) -> None:
    config = short_config(**{"optimisation.learning_rate": 1e30})
    with pytest.raises(CausCellError, match="learning_rate"):
        fit(cells, tmp_path / "run", config=config)
    assert not (tmp_path / "run" / "run.json").exists()


def test_the_best_averaged_weights_are_kept_and_not_the_last(
    cells: anndata.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a measure that gets worse from the first validation on, the run's weights are that checkpoint's average."""

    def worse_and_worse(self: Any, batch: Any) -> None:
        self.log(MONITOR, float(self.current_epoch + 1), batch_size=len(batch[0]))

    monkeypatch.setattr(TrainingPlan, "validation_step", worse_and_worse)
    monkeypatch.setattr(trainer, "shutil", SimpleNamespace(rmtree=lambda _path: None))  # keep the checkpoints
    run = fit(cells, tmp_path / "run", config=short_config())
    stored = {
        name: read_checkpoint(tmp_path / "run" / "checkpoints" / f"{name}.safetensors") for name in ("best", "last")
    }
    assert (stored["best"]["epoch"], stored["last"]["epoch"]) == (1, 6)
    for name, array in weights(run).items():
        np.testing.assert_array_equal(array, stored["best"]["state_dict"][f"model.{name}"].numpy(), err_msg=name)
    for other in (stored["best"]["current_model_state"], stored["last"]["state_dict"]):
        assert any((array != other[f"model.{name}"].numpy()).any() for name, array in weights(run).items())


def test_the_best_measure_is_that_of_the_weights_in_the_folder(finished: Run) -> None:
    """Validation measured the very weights that were kept, on the validation rows."""
    held_out = finished.held_out()
    rows, model = held_out[held_out.obs["part"] == "choose"], finished.model
    validation, labels = rows.X.toarray(), torch.from_numpy(model.schema.encode(rows.obs)).long()
    with torch.no_grad():
        exogenous = model.inform(model.encode(torch.from_numpy(validation))[0], labels)
        estimate = model.mean_estimate(model.scm(exogenous)).numpy()
    measured = [
        float(row["value"]) for row in read_metrics(finished.path / "metrics.csv") if row["name"] == "held_out/mse"
    ]
    assert len(measured) == 3
    # measures are written with six digits
    np.testing.assert_allclose(((estimate - validation) ** 2).mean(), min(measured), rtol=1e-5)


class Listener(lightning.Callback):
    """Counts epochs, and hears what is measured."""

    def __init__(self) -> None:
        self.epochs = 0
        self.heard: set[str] = set()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.epochs += 1
        self.heard |= set(trainer.callback_metrics)


def test_callbacks_of_ones_own_hear_everything_and_change_nothing(
    cells: anndata.AnnData, finished: Run, tmp_path: Path
) -> None:
    """A checkpoint by another measure is left to its owner; the run's weights are still the best by its own."""
    listener = Listener()
    kept = ModelCheckpoint(tmp_path / "mine", monitor="train/total", mode="max")
    run = fit(cells, tmp_path / "run", config=short_config(), callbacks=[listener, kept])
    assert listener.epochs == EPOCHS
    assert {"train/total", "held_out/mse", "held_out/accuracy_stim"} <= listener.heard
    assert Path(kept.best_model_path).is_file()
    assert_same_weights(run, finished)
    assert run.provenance["best_held_out_mse"] == finished.provenance["best_held_out_mse"]


def test_a_progress_bar_of_ones_own_takes_the_place_of_fits(cells: anndata.AnnData, tmp_path: Path) -> None:
    bar = TQDMProgressBar()
    bar.disable()
    config = short_config(**{"optimisation.epochs": 1})
    for progress in (False, True):
        fit(cells, tmp_path / f"run_{progress}", config=config, progress=progress, callbacks=[bar])


def test_a_logger_gets_every_term_and_measure_and_changes_nothing(
    cells: anndata.AnnData, finished: Run, tmp_path: Path
) -> None:
    logger = CSVLogger(tmp_path / "logs")
    run = fit(cells, tmp_path / "run", config=short_config(), logger=logger)
    assert {"train/total", "held_out/mse"} <= set(
        (Path(logger.log_dir) / "metrics.csv").read_text().partition("\n")[0].split(",")
    )
    assert_same_weights(run, finished)


def test_lightnings_own_logger_writes_into_the_run_folder(
    cells: anndata.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = short_config(**{"optimisation.epochs": 1})
    run = fit(cells, tmp_path / "run", config=config, logger=True)
    assert any(file.is_file() for file in (run.path / "lightning_logs").rglob("*"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]
    fit(cells, tmp_path / "run", config=config, overwrite=True)  # its logs are part of the run
    assert not (run.path / "lightning_logs").exists()
