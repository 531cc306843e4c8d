"""Fitting: from labelled cells to a run folder. The loop is Lightning's."""

from __future__ import annotations

import csv
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import lightning.pytorch as lightning
import tomli_w
import torch
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint, TQDMProgressBar

from causcell._internal.files import refuse_existing
from causcell.errors import RunError
from causcell_training.config import TrainConfig
from causcell_training.data.cells import TrainingData, prepare
from causcell_training.loop.batches import evaluation_batches, training_batches
from causcell_training.loop.callbacks import MetricsFile
from causcell_training.loop.finish import finish_run
from causcell_training.loop.surroundings import own_interrupt, own_randomness, quiet_lightning
from causcell_training.loop.training_plan import MONITOR, TrainingPlan
from causcell_training.run import (
    CHECKPOINTS,
    CONFIG_FILE,
    METRICS_FILE,
    RUN_FILE,
    SPLIT_FILE,
    Run,
)

if TYPE_CHECKING:
    import anndata


def fit(
    data: anndata.AnnData | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    concepts: Sequence[str] | None = None,
    edges: Sequence[str | tuple[str, str]] | None = None,
    config: TrainConfig | None = None,
    split: str | os.PathLike[str] | Mapping[str, str] | None = None,
    resume: bool = False,
    progress: bool = False,
) -> Run:
    """Train CausCell on labelled cells.

    Parameters
    ----------
    data
        Cells with raw counts (or log1p values, if ``config.expression`` says so) and labels in ``obs``; a missing
        value is a cell without that label.
    out
        Folder of the run; see `causcell_training.run`.
    concepts, edges
        Columns of ``obs``, and ``PARENT:CHILD`` edges between them, in place of those of ``config``.
    config
        Settings.
    split
        Part of each cell: a mapping by name, or a CSV file with columns ``cell`` and ``split``. Without it cells are
        held out at random.
    resume
        Continue a run that was interrupted, from its last checkpoint.
    progress
        Show a progress bar.

    Returns
    -------
    The finished run, with its model.

    Raises
    ------
    CausCellError
        Data, concepts, settings or folder can't be used; the message says why.
    """
    config = config or TrainConfig()
    if concepts is not None:
        config = config.model_copy(update={"concept": tuple(concepts)})
    if edges is not None:
        named = tuple(edge if isinstance(edge, str) else ":".join(edge) for edge in edges)
        config = config.model_copy(update={"edge": named})
    path = Path(out)
    checkpoint = _resumable(path, config) if resume else None
    if not resume:
        refuse_existing(path)
    prepared = prepare(data, config, split)
    if not resume:
        path.mkdir(parents=True, exist_ok=True)
        (path / CONFIG_FILE).write_text(_config_text(config))
        _write_split(path / SPLIT_FILE, prepared)
    started = time.monotonic()
    with own_randomness(config.seed), quiet_lightning():
        task = TrainingPlan(prepared, config)
        trainer = _trainer(path, config, task, progress)
        with own_interrupt():
            trainer.fit(
                task,
                train_dataloaders=training_batches(prepared, config),
                val_dataloaders=evaluation_batches(prepared, prepared.rows("choose")),
                ckpt_path=checkpoint,
                weights_only=False,  # Lightning's own loop state; the file is this run's
            )
        best = next(c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.monitor)
        if best.best_model_score is None or not torch.isfinite(best.best_model_score):
            raise RunError(
                "training diverged: no held-out measure is finite; use a smaller step "
                f"(--set optimisation.learning_rate={config.optimisation.learning_rate / 10:g})"
            )
        # Lightning stores the averaged weights under state_dict
        task.load_state_dict(torch.load(best.best_model_path, weights_only=False)["state_dict"])
    model = task.model.cpu().eval()
    run = finish_run(path, prepared, config, model, trainer, best, time.monotonic() - started)
    shutil.rmtree(path / CHECKPOINTS)
    return run


def _trainer(path: Path, config: TrainConfig, task: TrainingPlan, progress: bool) -> lightning.Trainer:
    settings = config.optimisation
    on_gpu = settings.accelerator != "cpu" and torch.cuda.is_available()
    best = ModelCheckpoint(path / CHECKPOINTS, filename="best", monitor=MONITOR)
    last = ModelCheckpoint(
        path / CHECKPOINTS, filename="last", every_n_epochs=min(settings.validate_every, settings.epochs)
    )
    callbacks: list[lightning.Callback] = [
        EMAWeightAveraging(decay=settings.ema_decay, use_buffers=False),
        EarlyStopping(MONITOR, patience=settings.patience, check_finite=True),
        MetricsFile(path / METRICS_FILE),
        best,
        last,
    ]
    if progress:
        callbacks.append(TQDMProgressBar())
    return lightning.Trainer(
        accelerator=settings.accelerator,
        devices=1,
        precision="bf16-mixed" if on_gpu else "32-true",
        max_epochs=settings.epochs,
        check_val_every_n_epoch=min(settings.validate_every, settings.epochs),
        gradient_clip_val=settings.gradient_clip,
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


def _resumable(path: Path, config: TrainConfig) -> Path:
    if (path / RUN_FILE).exists():
        raise RunError(f"the run in {str(path)!r} has finished; there is nothing to resume")
    last = path / CHECKPOINTS / "last.ckpt"
    if not last.is_file():
        raise RunError(f"{str(path)!r} holds no checkpoint to resume from; remove it, and train without --resume")
    if (path / CONFIG_FILE).read_text() != _config_text(config):
        raise RunError(
            f"the run in {str(path)!r} was begun with other settings (see its {CONFIG_FILE}); resume it with the same, "
            f"for example --config {path / CONFIG_FILE}"
        )
    return last


def _config_text(config: TrainConfig) -> str:
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def _write_split(path: Path, data: TrainingData) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["cell", "split"])
        writer.writerows(zip(data.names, data.part, strict=True))
