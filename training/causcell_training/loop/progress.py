"""Progress of a training: one line that estimates the whole, or a line a validation where there is no terminal."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

import lightning.pytorch as lightning
from lightning.pytorch.callbacks import ProgressBar

from causcell._internal.stages import is_redrawn, progress_bar
from causcell._internal.units import format_duration
from causcell_training.loop.training_plan import MONITOR


class TrainingProgress(ProgressBar):
    """Show which epoch of at most how many it is, the loss on held-out cells, and the time left.

    In a terminal and in a notebook one line is drawn anew; elsewhere (a file, a batch system's log) each validation
    has a line of its own.

    Parameters
    ----------
    stream
        Where to write; standard error, if not given.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__()
        self._stream = stream
        self._bar: Any = None
        self._shown = True
        self._best = float("inf")
        self._loss = float("nan")
        self._first, self._started = 0, 0.0

    def disable(self) -> None:
        """Show nothing."""
        self._shown = False

    def enable(self) -> None:
        """Show progress again."""
        self._shown = True

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Begin to count."""
        self._first, self._started = trainer.current_epoch, time.monotonic()
        if self._shown and trainer.is_global_zero and is_redrawn(self._stream):
            self._bar = progress_bar(
                total=trainer.max_epochs, initial=self._first, bar_format="{desc} |{bar:20}|", file=self._stream
            )

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Tell how far it is, once there has been a validation."""
        validated = (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0
        if validated and MONITOR in trainer.callback_metrics:
            self._loss = float(trainer.callback_metrics[MONITOR])
            self._best = min(self._best, self._loss)
        if not self._shown or not trainer.is_global_zero:
            return
        line = self.describe(trainer.current_epoch + 1, trainer.max_epochs or -1)
        if self._bar is not None:
            self._bar.set_description_str(line, refresh=False)
            self._bar.update()
        elif validated:
            print(line, file=self._stream or sys.stderr, flush=True)

    def describe(self, epoch: int, most: int) -> str:
        """Describe the state after an epoch, of which there are at most ``most`` (-1: nobody knows)."""
        parts = [f"epoch {epoch}" + (f" of at most {most}" if most > 0 else "")]
        if self._best < float("inf"):
            parts.append(f"held-out {self._loss:.3f} (best {self._best:.3f})")
        if most > epoch:
            each = (time.monotonic() - self._started) / (epoch - self._first)
            parts.append(f"at most {format_duration(each * (most - epoch))} left")
        return ", ".join(parts)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Leave the last line."""
        self._close()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Leave the last line, above what is told of the end."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
