"""Callbacks of the training loop."""

from __future__ import annotations

import csv
import logging
import math
import multiprocessing
import os
import warnings
from pathlib import Path

import lightning.pytorch as lightning
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn

from causcell._internal.cpus import available_cpus
from causcell._internal.files import new_file
from causcell.errors import RunError, format_list
from causcell_training.config import OptimisationConfig
from causcell_training.loop.surroundings import LIGHTNING_LOGGERS

_COLUMNS = ["epoch", "step", "name", "value"]


class MovingAverage(WeightAveraging):
    """Average the weights over steps, with a decay a step; it can be given to a process that is being started.

    All weights are averaged by one call: Lightning's own exponential average takes a call for each, a tenth of a step.

    Parameters
    ----------
    decay
        The decay.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=False, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self._decay = decay

    def __reduce__(self) -> tuple[type[MovingAverage], tuple[float]]:
        """Give the decay alone: before a training there is nothing else, and torch's functions can't be pickled."""
        return type(self), (self._decay,)


class StartedProcess(lightning.Callback):
    """Give a process that a training has started its share of the CPUs, and keep Lightning's advice from the terminal.

    A number of threads that the user set by OMP_NUM_THREADS is kept; but a copy of a process computes with one thread:
    those that it would wait for are the other's.

    Parameters
    ----------
    forked
        Processes are copies of the one that starts them.
    """

    def __init__(self, *, forked: bool = False) -> None:
        self._forked = forked

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Set what is the process's."""
        if multiprocessing.parent_process() is None:
            return
        if self._forked:
            torch.set_num_threads(1)
        elif "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, available_cpus() // trainer.world_size))
        for name in LIGHTNING_LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", module=r"lightning\..*")


class MetricsFile(lightning.Callback):
    """Append every term and measure to a CSV file, with columns epoch, step, name and value.

    Terms of the objective are written after every epoch, measures on the validation rows after those that end with a
    validation.

    Parameters
    ----------
    path
        The file; it is made where there is none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begun = False

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Drop the rows of epochs that a resumed run goes over again: those after its checkpoint."""
        if not trainer.is_global_zero:
            return
        if not self._begun and os.path.lexists(self._path):
            kept = [row for row in self._read() if int(row[0]) < trainer.current_epoch]
            with new_file(self._path, overwrite=True) as staging, staging.open("w", newline="") as file:
                csv.writer(file).writerows([_COLUMNS, *kept])
        self._begun = True

    def _read(self) -> list[list[str]]:
        """Read the whole rows; of a file that is empty, cut off or damaged those that there are."""
        try:
            with self._path.open(newline="", errors="replace") as file:
                rows = list(csv.reader(file))
        except (OSError, csv.Error):
            return []
        return [row for row in rows if len(row) == len(_COLUMNS) and row[0].isascii() and row[0].isdecimal()]

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Append the terms of the epoch, and the measures of its validation."""
        if not trainer.is_global_zero:
            return
        new = not self._path.exists() or not self._path.stat().st_size
        with self._path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(_COLUMNS)
            names = [n for n in trainer.callback_metrics if n.startswith("train/") or self._was_validated(trainer)]
            for name in names:
                value = float(trainer.callback_metrics[name])
                writer.writerow([trainer.current_epoch, trainer.global_step, name, f"{value:.6g}"])

    @staticmethod
    def _was_validated(trainer: lightning.Trainer) -> bool:
        return (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0


class DivergenceCheck(lightning.Callback):
    """Stop with an error when a term of the objective or a measure is no longer finite.

    Parameters
    ----------
    settings
        Settings of the optimisation.
    """

    def __init__(self, settings: OptimisationConfig) -> None:
        self._settings = settings

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Raise `RunError` naming epoch, terms and setting."""
        names = [name for name, value in trainer.callback_metrics.items() if not math.isfinite(float(value))]
        if names:
            smaller = self._settings.learning_rate / 10
            raise RunError(
                f"training diverged: in epoch {trainer.current_epoch + 1} {format_list(names, 4)} is not finite; train "
                f"again with smaller steps, optimisation.learning_rate={smaller:g} in place of "
                f"{self._settings.learning_rate:g}"
            )
