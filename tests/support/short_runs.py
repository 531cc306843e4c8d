"""Short trainings that tests share, and how their results are compared."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulation import CONCEPTS, EDGES

from causcell_training import Run, TrainConfig, TrainingPlan
from causcell_training.config import load_config

EPOCHS = 6


def small_config(**overrides: object) -> TrainConfig:
    """Settings of a model that trains in seconds; dotted names are given with ``__`` for the dot."""
    small = {
        "concept": CONCEPTS,
        "edge": EDGES,
        "genes": 50,
        "gene_selection": "dispersion",  # of genes that vary less a few epochs learn more
        "model.embedding": 8,
        "model.encoder_width": 32,
        "model.width": 32,
        "model.blocks": 1,
        "optimisation.epochs": 10,
        "optimisation.batch_size": 64,
        "optimisation.validate_every": 2,
    }
    return load_config(overrides=small | {name.replace("__", "."): value for name, value in overrides.items()})


def short_config(**overrides: Any) -> TrainConfig:
    """Six epochs, validated every second one, on all genes."""
    return small_config(**{"genes": "all", "optimisation.epochs": EPOCHS, "optimisation.ema_decay": 0.5, **overrides})


def tiny_config(**overrides: Any) -> TrainConfig:
    """Six epochs of a model that takes a second."""
    tiny = {"model.embedding": 4, "model.components": 8, "model.encoder_width": 8, "model.width": 8, "model.heads": 2}
    return short_config(**{**tiny, "model.encoder_layers": 1, "model.timesteps": 50, **overrides})


def weights(run: Run) -> dict[str, np.ndarray]:
    """The model's weights by name."""
    return {name: tensor.numpy() for name, tensor in run.model.state_dict().items()}


def assert_same_weights(one: Run, other: Run) -> None:
    """Bit for bit: the same operations on the same numbers, on one machine."""
    expected = weights(other)
    for name, array in weights(one).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def differ(one: Run, other: Run) -> bool:
    """Any weight of one run is another one in the other."""
    expected = weights(other)
    return any((array != expected[name]).any() for name, array in weights(one).items())


def interrupt(patch: pytest.MonkeyPatch, epoch: int, error: BaseException) -> None:
    """Let training fail in the middle of an epoch (counted from 0)."""
    step = TrainingPlan.training_step
    batches = iter(range(1000))

    def failing(self: Any, batch: Any) -> Any:
        if self.current_epoch == epoch and next(batches) == 1:  # its second batch
            raise error
        return step(self, batch)

    patch.setattr(TrainingPlan, "training_step", failing)


def tree(path: Path) -> dict[str, bytes]:
    """Content of every file below a folder."""
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def read_metrics(path: Path) -> list[dict[str, str]]:
    """Rows of a ``metrics.csv``."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
