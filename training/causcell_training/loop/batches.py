"""Batches of the training data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from causcell_training.config import TrainConfig
from causcell_training.data.cells import Batch, TrainingData
from causcell_training.data.reading import sample_rows
from causcell_training.data.split import MOST_VALIDATED, REPLAYED, TRAINING, VALIDATION
from causcell_training.loop.environment import find_share

EVALUATION_ROWS = 512
"""Cells of a batch that is not trained on."""


class ShuffledBatches(Sampler[np.ndarray]):
    """Rows of the training cells in batches, shuffled anew each pass; the same for the same seed and epoch.

    Batches are of equal size as nearly as can be, at least the size asked for. A pass over all rows is an epoch, or
    several of nearly equal size where there are many rows.

    Parameters
    ----------
    rows
        Training rows, int64 [n].
    batch_size
        Least number of rows in a batch; fewer rows than that are one batch.
    seed
        Seed of the order.
    epoch_cells
        Most rows of an epoch; all rows, if not given.
    """

    def __init__(self, rows: np.ndarray, batch_size: int, seed: int, epoch_cells: int | None = None) -> None:
        self._rows = rows
        self._epochs = -(-len(rows) // (epoch_cells or len(rows)))  # of a pass
        self._count = max(1, len(rows) // self._epochs // batch_size)
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Take the order of an epoch; the loop calls this before each, a resumed one included."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Count the batches of an epoch."""
        return self._count

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield this process's rows of each batch, int64."""
        part, parts = find_share()
        yield from (rows[part::parts] for rows in self.whole())

    def whole(self) -> Iterator[np.ndarray]:
        """Yield the rows of each batch, int64, those of all processes."""
        nth, part = divmod(self._epoch, self._epochs)
        order = np.random.default_rng((self._seed, nth)).permutation(self._rows)
        yield from np.array_split(np.array_split(order, self._epochs)[part], self._count)


class ReplayingBatches(ShuffledBatches):
    """Rows of new training cells in shuffled batches, each filled up with replayed cells.

    A pass goes over the new cells once, and over some of the replayed ones, drawn anew for each batch.

    Parameters
    ----------
    rows, replayed
        Rows of the new training cells and of the replayed ones, int64.
    batch_size
        Rows of a batch, at least.
    share
        Share of replayed cells in a batch, below 1.
    seed, epoch_cells
        As for `ShuffledBatches`.
    """

    def __init__(
        self,
        rows: np.ndarray,
        replayed: np.ndarray,
        batch_size: int,
        share: float,
        seed: int,
        epoch_cells: int | None = None,
    ) -> None:
        super().__init__(rows, max(1, round(batch_size * (1 - share))), seed, epoch_cells)
        self._replayed = replayed
        self._ratio = share / (1 - share)

    def whole(self) -> Iterator[np.ndarray]:
        """Yield the rows of each batch, int64, new cells first, those of all processes."""
        rng = np.random.default_rng((self._seed, self._epoch, 1))
        for rows in super().whole():
            wanted = min(round(len(rows) * self._ratio), len(self._replayed))
            yield np.concatenate([rows, rng.choice(self._replayed, wanted, replace=False)])


class BatchesByRows(Dataset[Batch]):
    """Batches of training data, looked up by their rows: see `TrainingData.batch`."""

    def __init__(self, data: TrainingData) -> None:
        self._data = data

    def __getitem__(self, rows: Any) -> Batch:
        """Take the batch of some rows; see `TrainingData.batch`."""
        return self._data.batch(rows)


def training_batches(data: TrainingData, config: TrainConfig) -> DataLoader[Batch]:
    """Load the training rows in shuffled batches of ``config.optimisation.batch_size`` cells and a little more.

    In a training that starts from a run, ``config.descent.replay`` of each batch are replayed cells.
    """
    rows, size, most = data.rows(TRAINING), config.optimisation.batch_size, config.optimisation.epoch_cells
    if config.descent is None:
        sampler = ShuffledBatches(rows, size, config.seed, most)
    else:
        sampler = ReplayingBatches(rows, data.rows(REPLAYED), size, config.descent.replay, config.seed, most)
    return DataLoader(BatchesByRows(data), batch_size=None, sampler=sampler)


def with_epochs(config: TrainConfig, steps: int) -> TrainConfig:
    """Set as many epochs of some steps as take ``config.descent.steps``, where these are set."""
    if config.descent is None or config.descent.steps is None:
        return config
    epochs = -(-config.descent.steps // steps)
    return config.model_copy(update={"optimisation": config.optimisation.model_copy(update={"epochs": epochs})})


def validation_batches(data: TrainingData, config: TrainConfig) -> DataLoader[Batch]:
    """Load the validation rows; of more than `MOST_VALIDATED` so many, drawn by the seed and ascending.

    In a training that starts from a run, the fewer of the run's own and the new ones are repeated to as many as the
    others: a measure of all counts what is kept as much as what is learned.
    """
    rows = sample_rows(data.rows(VALIDATION), np.random.default_rng((config.seed, 5)), MOST_VALIDATED)
    if data.heritage is not None:
        known = np.isin(data.names[rows].astype(str), list(data.heritage.split))
        old, new = rows[known], rows[~known]
        if len(old) and len(new):
            size = max(len(old), len(new))
            rows = np.concatenate([np.resize(old, size), np.resize(new, size)])
    return evaluation_batches(data, rows)


def evaluation_batches(data: TrainingData, rows: np.ndarray) -> DataLoader[Batch]:
    """Load some rows (int64 [n]) in their order, in batches of at most `EVALUATION_ROWS` cells."""
    return DataLoader(BatchesByRows(data), batch_size=None, sampler=split_rows(rows))


def split_rows(rows: np.ndarray) -> list[np.ndarray]:
    """Split rows (int64 [n]) into consecutive parts of nearly equal size, at most `EVALUATION_ROWS` each."""
    return np.array_split(rows, -(-len(rows) // EVALUATION_ROWS))
