"""Batches of the training data."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from causcell_training.config import TrainConfig
from causcell_training.data.cells import ShuffledBatches, TrainingData

EVALUATION_ROWS = 512


class _Rows(Dataset[tuple[Tensor, Tensor]]):
    """Batches by their rows."""

    def __init__(self, data: TrainingData) -> None:
        self._data = data

    def __getitem__(self, rows: Any) -> tuple[Tensor, Tensor]:
        return self._data.batch(rows)


def training_batches(data: TrainingData, config: TrainConfig) -> DataLoader[tuple[Tensor, Tensor]]:
    sampler = ShuffledBatches(data.rows("train"), config.optimisation.batch_size, config.seed)
    return DataLoader(_Rows(data), batch_size=None, sampler=sampler)


def evaluation_batches(data: TrainingData, rows: np.ndarray) -> DataLoader[tuple[Tensor, Tensor]]:
    parts = np.array_split(rows, -(-len(rows) // EVALUATION_ROWS))
    return DataLoader(_Rows(data), batch_size=None, sampler=parts)
