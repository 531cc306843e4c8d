"""The end of a training: everything that export needs of it is written to the run folder."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from causcell.evaluation.metrics import mean_squared_error, pearson
from causcell.preprocessing import gene_digest
from causcell.repository.manifest import TrainingCells
from causcell.repository.reference_cells import ReferenceCells, select_reference_cells
from causcell_training.config import TrainConfig
from causcell_training.data.cells import TrainingData
from causcell_training.data.split import PART, TEST, TRAINING, VALIDATION
from causcell_training.loop.batches import split_rows
from causcell_training.loop.training_plan import TrainingPlan, plan_name
from causcell_training.model import CausCell
from causcell_training.run import Run
from causcell_training.run_folder import HELD_OUT_FILE, REFERENCE_FILE

if TYPE_CHECKING:
    import anndata

_MOST_HELD_OUT = 4096  # cells of each part kept in the run folder


@dataclass(frozen=True)
class TrainingFacts:
    """Facts of a finished training.

    Attributes
    ----------
    seconds
        Wall-clock time.
    epochs, steps
        Epochs and optimiser steps taken.
    best_validation_mse
        Mean squared error of the kept weights' mean estimate on the validation rows, log scale.
    device
        Device trained on.
    plan
        Name of the training plan.
    """

    seconds: float
    epochs: int
    steps: int
    best_validation_mse: float
    device: str
    plan: str


def finish_run(path: Path, data: TrainingData, config: TrainConfig, model: CausCell, facts: TrainingFacts) -> Run:
    """Write reference cells, held-out cells, weights and description of a trained model.

    Parameters
    ----------
    path
        The run folder.
    data
        The cells.
    config
        Settings.
    model
        The trained model, in evaluation mode on the CPU.
    facts
        How the training went.

    Returns
    -------
    Run
        The finished run.
    """
    train = data.rows(TRAINING)
    _embed_reference_cells(data, model, config.seed).save(path / REFERENCE_FILE)
    held_out = _select_held_out_cells(data, config.seed)
    held_out.write_h5ad(path / HELD_OUT_FILE)
    provenance: dict[str, Any] = {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(facts.seconds, 1),
        "epochs": facts.epochs,
        "steps": facts.steps,
        "best_held_out_mse": round(facts.best_validation_mse, 6),
        "cells": {part: len(data.rows(part)) for part in (TRAINING, VALIDATION, TEST)},
        "gene_digest": gene_digest(data.preprocessing.genes),
        "device": facts.device,
        "config": config.model_dump(mode="json"),
        "held_out": _measure_test_cells(model, held_out),
    }
    if facts.plan != plan_name(TrainingPlan):
        provenance["plan"] = facts.plan
    run = Run(path, config, model, TrainingCells.of(data.names[train]), provenance, _find_versions())
    run.save()
    return run


@torch.no_grad()
def _embed_reference_cells(data: TrainingData, model: CausCell, seed: int) -> ReferenceCells:
    """Choose the reference cells among the training rows, and encode them."""
    train = data.rows(TRAINING)
    labels = data.labels[train]
    rows = train[select_reference_cells(labels, np.random.default_rng((seed, 1)))]
    exogenous = np.concatenate([model.encode(data.batch(part)[0])[0].numpy() for part in split_rows(rows)])
    return ReferenceCells(exogenous, data.labels[rows], np.unique(labels, axis=0))


def _select_held_out_cells(data: TrainingData, seed: int) -> anndata.AnnData:
    """Select validation and test rows, some of each where there are many, with labels and part in ``obs``."""
    import anndata
    import pandas as pd

    rng = np.random.default_rng((seed, 2))
    kept = []
    for part in (VALIDATION, TEST):
        rows = data.rows(part)
        kept.append(rng.choice(rows, _MOST_HELD_OUT, replace=False) if len(rows) > _MOST_HELD_OUT else rows)
    rows = np.sort(np.concatenate(kept))
    obs = pd.DataFrame(index=pd.Index(data.names[rows].astype(str)))
    obs[PART] = pd.Categorical(data.part[rows])
    obs["part"] = obs[PART]  # by its short name, too, unless a concept has it
    for i, name in enumerate(data.schema.names):
        obs[name] = data.schema.label_names(data.labels[rows, i], name)
    var = pd.DataFrame(index=pd.Index(list(data.preprocessing.genes)))
    return anndata.AnnData(data.expression[rows], obs=obs, var=var)


@torch.no_grad()
def _measure_test_cells(model: CausCell, held_out: anndata.AnnData) -> dict[str, float]:
    """Measure the mean estimate on the test rows, PCC and MSE; nothing where there are none."""
    test = held_out[held_out.obs[PART] == TEST]
    if not test.n_obs:
        return {}
    real = test.X.toarray()
    estimate = model.mean_estimate(model.scm(model.encode(torch.from_numpy(real))[0])).numpy()
    return {"pcc": round(pearson(real, estimate), 4), "mse": round(mean_squared_error(real, estimate), 4)}


def _find_versions() -> dict[str, str]:
    """Find the versions of the packages that training depends on."""
    packages = ("causcell", "torch", "lightning", "numpy", "anndata", "scanpy")
    return {name: metadata.version(name) for name in packages}
