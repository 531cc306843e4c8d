"""Callbacks of the training loop."""

from __future__ import annotations

import csv
from pathlib import Path

import lightning.pytorch as lightning


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
        if not self._begun and self._path.exists():
            with self._path.open(newline="") as file:
                header, *rows = csv.reader(file)
            with self._path.open("w", newline="") as file:
                kept = [row for row in rows if int(row[0]) < trainer.current_epoch]
                csv.writer(file).writerows([header, *kept])
        self._begun = True

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Append the terms of the epoch, and the measures of its validation."""
        new = not self._path.exists()
        with self._path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["epoch", "step", "name", "value"])
            names = [n for n in trainer.callback_metrics if n.startswith("train/") or self._was_validated(trainer)]
            for name in names:
                value = float(trainer.callback_metrics[name])
                writer.writerow([trainer.current_epoch, trainer.global_step, name, f"{value:.6g}"])

    @staticmethod
    def _was_validated(trainer: lightning.Trainer) -> bool:
        return (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0
