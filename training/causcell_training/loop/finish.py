"""What a finished training writes for export."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from causcell.evaluation.metrics import mean_squared_error, pearson
from causcell.preprocessing import gene_digest
from causcell.repository.manifest import TrainingCells
from causcell.repository.reference_cells import ReferenceCells, select_reference_cells
from causcell_training.config import TrainConfig
from causcell_training.data.cells import TrainingData
from causcell_training.loop.batches import EVALUATION_ROWS
from causcell_training.model import CausCell
from causcell_training.run import (
    HELD_OUT_FILE,
    REFERENCE_FILE,
    Run,
)

if TYPE_CHECKING:
    import anndata

_MOST_HELD_OUT = 4096  # cells of each part kept in the run folder


def finish_run(
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
    parts = np.array_split(rows, -(-len(rows) // EVALUATION_ROWS))
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


def _versions() -> dict[str, str]:
    packages = ("causcell", "torch", "lightning", "numpy", "anndata", "scanpy")
    return {name: metadata.version(name) for name in packages}
