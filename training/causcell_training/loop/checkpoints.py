"""Checkpoints of the training loop: the best weights, the state to resume from, and when to stop.

A state is kept between two epochs, when all of the first is done: validation, schedules of the learning rate, the
callbacks of the user. A run resumed from it is therefore the uninterrupted one, bit for bit, whatever the setting
``validate_every`` is. Of Lightning's own loop state only the numbers of epochs and steps are kept.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from causcell.errors import RunError
from causcell_training.checkpoint_file import read_checkpoint, write_checkpoint
from causcell_training.run_data import TrainingFacts
from causcell_training.run_folder import BEST_FILE, CHECKPOINTS, FACTS_FILE, LAST_FILE

_IMPLEMENTATION = ("fused", "foreach", "capturable")
"""Settings of an optimiser that depend on the device: a resumed run has those of its own."""

_LEFT_OUT = ("loops", "hyper_parameters", "hparams_", "datamodule_")


@dataclass
class Progress:
    """How far a training has come.

    Attributes
    ----------
    epochs, steps
        Epochs and optimiser steps that are done.
    best
        Least measure on the validation rows so far.
    best_epoch
        Number of epochs after which it was taken.
    waited
        Validations since then.
    seconds
        Wall-clock time until then, of all sessions.
    """

    epochs: int = 0
    steps: int = 0
    best: float = float("inf")
    best_epoch: int = 0
    waited: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        """Check what a file held; raises `TypeError` or `ValueError`."""
        for name in ("epochs", "steps", "best_epoch", "waited"):
            if type(getattr(self, name)) is not int or not 0 <= getattr(self, name) < 2**48:
                raise ValueError(f"{name}={getattr(self, name)!r}")
        if not (float(self.best) == self.best and 0 <= float(self.seconds) < 1e12):
            raise ValueError(f"best={self.best!r}, seconds={self.seconds!r}")


class RunCheckpoints(lightning.Callback):
    """Keep the best weights and the state to resume from, and stop when validations no longer improve.

    Parameters
    ----------
    path
        The run folder.
    monitor
        Measure on the validation rows; less is better.
    patience
        Validations without improvement before training stops.
    plan
        Name of the training plan, where it is the user's own.
    versions
        Versions of the packages that train.
    """

    def __init__(
        self, path: Path, monitor: str, patience: int, *, plan: str | None = None, versions: Mapping[str, str]
    ) -> None:
        self._path = path
        self._monitor = monitor
        self._patience = patience
        self._plan = plan
        self._versions = dict(versions)
        self._started = time.monotonic()
        self._validated = False
        self._implementation: list[list[dict[str, Any]]] = []
        self.progress = Progress()
        self.begun = False

    @property
    def seconds(self) -> float:
        """Wall-clock time of this session and those before it."""
        return self.progress.seconds + time.monotonic() - self._started

    def facts(self, trainer: lightning.Trainer, steps: int) -> TrainingFacts:
        """Return the facts of the training so far."""
        device = str(trainer.strategy.root_device)
        return TrainingFacts(self.seconds, trainer.current_epoch, steps, self.progress.best, device, self._plan)

    def state_dict(self) -> dict[str, Any]:
        """Return the progress."""
        return asdict(self.progress) | {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the progress of a checkpoint."""
        self.progress = Progress(**state_dict)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep how the best weights came about: a run that has not finished can be exported."""
        if trainer.validating:
            facts = self.facts(trainer, checkpoint["global_step"])
            checkpoint |= {"facts": asdict(facts) | {"epochs": self.progress.best_epoch}, "versions": self._versions}

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Let the loop go on behind the epochs that are done; do nothing where there is nothing left to do."""
        loop, done = trainer.fit_loop, self.progress
        loop.epoch_progress.total.increment_by(done.epochs)
        loop.epoch_progress.current.increment_by(done.epochs)
        loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.increment_by(done.steps)
        loop.epoch_loop._batches_that_stepped = done.steps  # the step that loggers are told
        self._implementation = [
            [{name: group[name] for name in _IMPLEMENTATION if name in group} for group in optimizer.param_groups]
            for optimizer in trainer.optimizers
        ]
        if done.waited >= self._patience:
            trainer.should_stop = True

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Give optimisers what depends on the device; their state has been restored by now."""
        for optimizer, groups in zip(trainer.optimizers, self._implementation, strict=True):
            for group, own in zip(optimizer.param_groups, groups, strict=True):
                group.update(own)
        self.begun = True

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Keep the weights if they are the best so far, and count the validations since."""
        measure = trainer.callback_metrics.get(self._monitor)
        if measure is None:
            raise RunError(f"the training plan logs no {self._monitor!r} in validation_step, which training stops by")
        self._validated = True
        value, progress = float(measure), self.progress
        if value < progress.best:
            progress.best, progress.best_epoch, progress.waited = value, trainer.current_epoch + 1, 0
            trainer.save_checkpoint(self._path / BEST_FILE)
        else:
            progress.waited += 1
        if progress.waited >= self._patience or not torch.isfinite(measure):
            trainer.should_stop = True

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Keep the state after an epoch that ended with a validation: only now all of it is done."""
        self._keep(trainer)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Keep the state after the last epoch, and for the process that started others the facts."""
        self._keep(trainer)
        if trainer.world_size > 1 and trainer.is_global_zero:
            facts = asdict(self.facts(trainer, trainer.global_step))
            (self._path / FACTS_FILE).write_text(json.dumps(facts))

    def _keep(self, trainer: lightning.Trainer) -> None:
        if self._validated:
            self._validated = False
            self.progress.epochs, self.progress.steps = trainer.current_epoch, trainer.global_step
            trainer.save_checkpoint(self._path / LAST_FILE)


def read_facts(path: Path) -> TrainingFacts:
    """Read the facts of a training that several processes did; raises `RunError` where they left none."""
    try:
        return TrainingFacts(**json.loads((path / FACTS_FILE).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"the processes of the training in {str(path)!r} left no facts of it ({error})") from error


class CheckpointFiles(TorchCheckpointIO):
    """Write and read the checkpoints of a run folder as safetensors; those of a user's own callbacks are Lightning's.

    Parameters
    ----------
    path
        The run folder.
    """

    def __init__(self, path: Path) -> None:
        self._folder = (path / CHECKPOINTS).absolute()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint; of one in the run folder without Lightning's loop state and the plan's arguments."""
        if Path(path).absolute().parent == self._folder:
            kept = {name: part for name, part in checkpoint.items() if not name.startswith(_LEFT_OUT)}
            write_checkpoint(kept, Path(path))
        else:
            super().save_checkpoint(checkpoint, path, storage_options)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint of `write_checkpoint`; elsewhere the weights that a process of this training has left.

        Nothing is unpickled but weights.
        """
        if Path(path).absolute().parent != self._folder:
            return dict(super().load_checkpoint(path, map_location=map_location, weights_only=True))
        return read_checkpoint(Path(path)) | {"pytorch-lightning_version": metadata.version("lightning")}
