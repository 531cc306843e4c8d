"""One training: the Lightning trainer, its callbacks, and the run that comes out."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import lightning.pytorch as lightning
import torch
from lightning.pytorch.callbacks import (
    EarlyStopping,
    EMAWeightAveraging,
    ModelCheckpoint,
    ProgressBar,
    TQDMProgressBar,
)
from lightning.pytorch.loggers import Logger

from causcell.errors import ConfigurationError, RunError
from causcell_training.config import TrainConfig
from causcell_training.data.cells import prepare
from causcell_training.data.split import VALIDATION, Split
from causcell_training.loop.batches import evaluation_batches, training_batches
from causcell_training.loop.callbacks import MetricsFile
from causcell_training.loop.finish import TrainingFacts, finish_run
from causcell_training.loop.surroundings import own_interrupt, own_randomness, quiet_lightning
from causcell_training.loop.training_plan import MONITOR, TrainingPlan, plan_name
from causcell_training.run import Run
from causcell_training.run_folder import CHECKPOINTS, METRICS_FILE, begin_run

if TYPE_CHECKING:
    import anndata


@dataclass(frozen=True)
class LoopOptions:
    """Options of the loop that do not change the model by themselves, checked.

    Attributes
    ----------
    progress
        Show a progress bar.
    callbacks
        Lightning callbacks, beside fit's own.
    logger
        A Lightning logger; `True` for Lightning's default one, `False` for none.
    plan
        Class of the training plan; `TrainingPlan` where none is given.

    Raises
    ------
    ConfigurationError
        Something is not what Lightning takes, or the plan is no `TrainingPlan`.
    """

    progress: bool = False
    callbacks: Sequence[lightning.Callback] = ()
    logger: Logger | bool = False
    plan: type[TrainingPlan] | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        for callback in self.callbacks:
            if not isinstance(callback, lightning.Callback):
                raise ConfigurationError(f"callbacks= has {callback!r}, which is no lightning.pytorch.Callback")
        if not isinstance(self.logger, bool | Logger):
            raise ConfigurationError(f"logger={self.logger!r}: give True, False or a Lightning logger")
        if self.plan is not None and not (isinstance(self.plan, type) and issubclass(self.plan, TrainingPlan)):
            raise ConfigurationError(f"plan={self.plan!r}: give a class derived from causcell_training.TrainingPlan")


def train_model(
    data: anndata.AnnData | str | os.PathLike[str],
    path: Path,
    config: TrainConfig,
    split: Split | None,
    options: LoopOptions,
    *,
    checkpoint: Path | None = None,
    overwrite: bool = False,
) -> Run:
    """Prepare the data, run the loop and write the run folder.

    Parameters
    ----------
    data, split
        See `causcell_training.data.cells.prepare`.
    path
        Folder of the run.
    config
        Settings.
    options
        Callbacks, logger, plan and progress bar.
    checkpoint
        File to resume from.
    overwrite
        Remove the run that is at ``path``, once the data have been read and checked.

    Returns
    -------
    Run
        The finished run.

    Raises
    ------
    CausCellError
        See `causcell_training.fit`.
    """
    prepared = prepare(data, config, split)
    if checkpoint is None:
        begin_run(path, config, prepared.names, prepared.part, overwrite=overwrite)
    started = time.monotonic()
    make_plan = options.plan or TrainingPlan
    with own_randomness(config.seed), quiet_lightning():
        plan = make_plan(prepared, config)
        best = ModelCheckpoint(path / CHECKPOINTS, filename="best", monitor=MONITOR)
        trainer = _make_trainer(path, config, best, options)
        with own_interrupt():
            trainer.fit(
                plan,
                train_dataloaders=training_batches(prepared, config),
                val_dataloaders=evaluation_batches(prepared, prepared.rows(VALIDATION)),
                ckpt_path=checkpoint,
                weights_only=False,  # Lightning's own loop state; the file is this run's
            )
    facts = TrainingFacts(
        seconds=time.monotonic() - started,
        epochs=trainer.current_epoch,
        steps=trainer.global_step,
        best_validation_mse=_load_best_weights(plan, best),
        device=str(trainer.strategy.root_device),
        plan=plan_name(make_plan),
    )
    run = finish_run(path, prepared, config, plan.model.cpu().eval(), facts)
    shutil.rmtree(path / CHECKPOINTS)
    return run


def _load_best_weights(plan: TrainingPlan, best: ModelCheckpoint) -> float:
    """Load the averaged weights of the best validation, and return its measure; raises `RunError` if there is none."""
    if best.best_model_score is None or not torch.isfinite(best.best_model_score):
        raise RunError(
            "training diverged: no held-out measure is finite; use a smaller step "
            f"(optimisation.learning_rate={plan.config.optimisation.learning_rate / 10:g})"
        )
    # Lightning stores the averaged weights under state_dict
    plan.load_state_dict(torch.load(best.best_model_path, weights_only=False)["state_dict"])
    return float(best.best_model_score)


def _make_trainer(path: Path, config: TrainConfig, best: ModelCheckpoint, options: LoopOptions) -> lightning.Trainer:
    """Make the trainer: moving average, early stopping, metrics file, checkpoints, and the caller's callbacks."""
    settings = config.optimisation
    on_gpu = settings.accelerator != "cpu" and torch.cuda.is_available()
    last = ModelCheckpoint(
        path / CHECKPOINTS, filename="last", every_n_epochs=min(settings.validate_every, settings.epochs)
    )
    callbacks: list[lightning.Callback] = [
        EMAWeightAveraging(decay=settings.ema_decay, use_buffers=False),
        EarlyStopping(MONITOR, patience=settings.patience, check_finite=True),
        MetricsFile(path / METRICS_FILE),
        best,
        last,
        *options.callbacks,
    ]
    own_bar = any(isinstance(callback, ProgressBar) for callback in options.callbacks)
    if options.progress and not own_bar:
        callbacks.append(TQDMProgressBar())
    return lightning.Trainer(
        default_root_dir=path,
        accelerator=settings.accelerator,
        devices=1,
        precision="bf16-mixed" if on_gpu else "32-true",
        max_epochs=settings.epochs,
        check_val_every_n_epoch=min(settings.validate_every, settings.epochs),
        gradient_clip_val=settings.gradient_clip,
        callbacks=callbacks,
        logger=options.logger,
        enable_progress_bar=options.progress or own_bar,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
