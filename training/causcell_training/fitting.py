"""Fitting: from labelled cells to a run folder. The loop is Lightning's."""

from __future__ import annotations

import csv
import logging
import os
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as lightning
import numpy as np
import tomli_w
import torch
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint, TQDMProgressBar
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from causcell.errors import RunError
from causcell.expression import gene_digest
from causcell.manifest import TrainingCells
from causcell.metrics import mean_squared_error, pearson
from causcell.output import refuse_existing
from causcell.reference import ReferenceCells, select_reference_cells
from causcell_training.config import TrainConfig
from causcell_training.data import ShuffledBatches, TrainingData, prepare, principal_axes
from causcell_training.model import CausCell
from causcell_training.objective import Objective
from causcell_training.run import (
    CHECKPOINTS,
    CONFIG_FILE,
    HELD_OUT_FILE,
    METRICS_FILE,
    REFERENCE_FILE,
    RUN_FILE,
    SPLIT_FILE,
    Run,
)

if TYPE_CHECKING:
    import anndata

_MONITOR = "held_out/mse"
_EVALUATION_ROWS = 512
_MOST_HELD_OUT = 4096  # cells of each part kept in the run folder


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
    with _own_randomness(config.seed), _quiet_lightning():
        task = _Fitting(prepared, config)
        trainer = _trainer(path, config, task, progress)
        with _own_interrupt():
            trainer.fit(
                task,
                train_dataloaders=_train_batches(prepared, config),
                val_dataloaders=_batches(prepared, prepared.rows("choose")),
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
    run = _finish(path, prepared, config, model, trainer, best, time.monotonic() - started)
    shutil.rmtree(path / CHECKPOINTS)
    return run


class _Fitting(lightning.LightningModule):
    """What Lightning runs: the model, its objective, and what is measured on held-out cells."""

    def __init__(self, data: TrainingData, config: TrainConfig) -> None:
        super().__init__()
        self.config = config
        self._data_digest = data.digest()
        self.model = CausCell(data.schema, data.preprocessing, config.model)
        axes = principal_axes(data, config.model.components, config.seed)
        self.model.encoder.projection.copy_(torch.from_numpy(axes))
        labels = torch.from_numpy(data.labels[data.rows("train")].astype(np.int64))
        self.objective = Objective(data.schema, config.model.embedding, labels, config.objective)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["data_digest"] = self._data_digest

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if checkpoint["data_digest"] != self._data_digest:
            raise RunError(
                f"the run was begun with other cells, labels or another split (see its {SPLIT_FILE}); resume it with "
                "the same data and --split"
            )

    def on_train_epoch_start(self) -> None:
        """Random numbers of each epoch hang on seed and epoch, so that a resumed run draws those it would have."""
        torch.manual_seed(int(np.random.SeedSequence((self.config.seed, self.current_epoch)).generate_state(1)[0]))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        terms = self.objective(self.model, *batch)
        sizes = len(batch[0])
        self.log_dict({f"train/{n}": t for n, t in terms.items()}, on_step=False, on_epoch=True, batch_size=sizes)
        return terms["total"]

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        expression, labels = batch
        z = self.model.scm(self.model.encode(expression)[0])
        estimate = self.model.mean_estimate(z)
        metrics = {_MONITOR: ((estimate - expression) ** 2).mean()}
        for i, logits in enumerate(self.model.label_logits(z)):
            labelled = labels[:, i] >= 0
            if labelled.any():
                right = (logits.argmax(dim=1) == labels[:, i])[labelled].float().mean()
                metrics[f"held_out/accuracy_{self.model.schema.names[i]}"] = right
        self.log_dict(metrics, batch_size=len(expression))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Matrices of the networks decay; biases, norms, deviations and label tables, which are levels, do not."""
        settings = self.config.optimisation
        matrices = [parameter for parameter in self.model.parameters() if parameter.ndim > 1]
        decayed = {id(parameter) for parameter in matrices}
        others = [parameter for parameter in self.parameters() if id(parameter) not in decayed]
        return torch.optim.AdamW(
            [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=settings.learning_rate,
            betas=(0.9, 0.99),
            fused=self.device.type == "cpu",  # a fifth of a step; Lightning can't clip for it under mixed precision
        )


class _Rows(Dataset[tuple[Tensor, Tensor]]):
    """Batches by their rows."""

    def __init__(self, data: TrainingData) -> None:
        self._data = data

    def __getitem__(self, rows: Any) -> tuple[Tensor, Tensor]:
        return self._data.batch(rows)


def _train_batches(data: TrainingData, config: TrainConfig) -> DataLoader[tuple[Tensor, Tensor]]:
    sampler = ShuffledBatches(data.rows("train"), config.optimisation.batch_size, config.seed)
    return DataLoader(_Rows(data), batch_size=None, sampler=sampler)


def _batches(data: TrainingData, rows: np.ndarray) -> DataLoader[tuple[Tensor, Tensor]]:
    parts = np.array_split(rows, -(-len(rows) // _EVALUATION_ROWS))
    return DataLoader(_Rows(data), batch_size=None, sampler=parts)


def _trainer(path: Path, config: TrainConfig, task: _Fitting, progress: bool) -> lightning.Trainer:
    settings = config.optimisation
    on_gpu = settings.accelerator != "cpu" and torch.cuda.is_available()
    best = ModelCheckpoint(path / CHECKPOINTS, filename="best", monitor=_MONITOR)
    last = ModelCheckpoint(
        path / CHECKPOINTS, filename="last", every_n_epochs=min(settings.validate_every, settings.epochs)
    )
    callbacks: list[lightning.Callback] = [
        EMAWeightAveraging(decay=settings.ema_decay, use_buffers=False),
        EarlyStopping(_MONITOR, patience=settings.patience, check_finite=True),
        _MetricsFile(path / METRICS_FILE),
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


class _MetricsFile(lightning.Callback):
    """Appends every term and measure to ``metrics.csv`` after each validation: columns epoch, step, name, value."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begun = False

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """A resumed run goes over the epochs after its checkpoint again: their rows go."""
        if not self._begun and self._path.exists():
            with self._path.open(newline="") as file:
                header, *rows = csv.reader(file)
            with self._path.open("w", newline="") as file:
                kept = [row for row in rows if int(row[0]) < trainer.current_epoch]
                csv.writer(file).writerows([header, *kept])
        self._begun = True

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        new = not self._path.exists()
        with self._path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["epoch", "step", "name", "value"])
            names = [n for n in trainer.callback_metrics if n.startswith("train/") or self._validated(trainer)]
            for name in names:
                value = float(trainer.callback_metrics[name])
                writer.writerow([trainer.current_epoch, trainer.global_step, name, f"{value:.6g}"])

    @staticmethod
    def _validated(trainer: lightning.Trainer) -> bool:
        return (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0


def _finish(
    path: Path,
    data: TrainingData,
    config: TrainConfig,
    model: CausCell,
    trainer: lightning.Trainer,
    best: ModelCheckpoint,
    seconds: float,
) -> Run:
    """Write all that export needs."""
    train = data.rows("train")
    _reference_cells(data, model, config.seed).save(path / REFERENCE_FILE)
    held_out = _held_out_cells(data, config.seed)
    held_out.write_h5ad(path / HELD_OUT_FILE)
    provenance: dict[str, Any] = {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "best_held_out_mse": round(float(best.best_model_score or np.nan), 6),
        "cells": {part: len(data.rows(part)) for part in ("train", "choose", "report")},
        "gene_digest": gene_digest(data.preprocessing.genes),
        "device": str(trainer.strategy.root_device),
        "config": config.model_dump(mode="json"),
        "held_out": _held_out_measures(model, held_out),
    }
    run = Run(path, config, model, TrainingCells.of(data.names[train]), provenance, _versions())
    run.save()
    return run


@torch.no_grad()
def _reference_cells(data: TrainingData, model: CausCell, seed: int) -> ReferenceCells:
    train = data.rows("train")
    labels = data.labels[train]
    rows = train[select_reference_cells(labels, np.random.default_rng((seed, 1)))]
    parts = np.array_split(rows, -(-len(rows) // _EVALUATION_ROWS))
    exogenous = np.concatenate([model.encode(data.batch(part)[0])[0].numpy() for part in parts])
    return ReferenceCells(exogenous, data.labels[rows], np.unique(labels, axis=0))


def _held_out_cells(data: TrainingData, seed: int) -> anndata.AnnData:
    import anndata
    import pandas as pd

    rng = np.random.default_rng((seed, 2))
    kept = []
    for part in ("choose", "report"):
        rows = data.rows(part)
        kept.append(rng.choice(rows, _MOST_HELD_OUT, replace=False) if len(rows) > _MOST_HELD_OUT else rows)
    rows = np.sort(np.concatenate(kept))
    obs = pd.DataFrame(index=pd.Index(data.names[rows].astype(str)))
    obs["part"] = pd.Categorical(data.part[rows])
    for i, name in enumerate(data.schema.names):
        obs[name] = data.schema.label_names(data.labels[rows, i], name)
    var = pd.DataFrame(index=pd.Index(list(data.preprocessing.genes)))
    return anndata.AnnData(data.expression[rows], obs=obs, var=var)


@torch.no_grad()
def _held_out_measures(model: CausCell, held_out: anndata.AnnData) -> dict[str, float]:
    """PCC and MSE of the mean estimate on the cells to report on."""
    report = held_out[held_out.obs["part"] == "report"]
    if not report.n_obs:
        return {}
    real = report.X.toarray()
    estimate = model.mean_estimate(model.scm(model.encode(torch.from_numpy(real))[0])).numpy()
    return {"pcc": round(pearson(real, estimate), 4), "mse": round(mean_squared_error(real, estimate), 4)}


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


def _versions() -> dict[str, str]:
    packages = ("causcell", "torch", "lightning", "numpy", "anndata", "scanpy")
    return {name: metadata.version(name) for name in packages}


@contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    """Seed torch for the block, and leave the caller's stream as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@contextmanager
def _own_interrupt() -> Iterator[None]:
    """Give Ctrl-C back to the caller: Lightning answers it by ignoring it from then on and leaving the process."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as left:
        raise KeyboardInterrupt from left
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's advice on hardware, loaders and folders to itself: none of it is the user's to act on."""
    talkers = [
        logging.getLogger(name)
        for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    ]
    levels = [talker.level for talker in talkers]
    for talker in talkers:
        talker.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            yield
    finally:
        for talker, level in zip(talkers, levels, strict=True):
            talker.setLevel(level)
