"""The order of batches: every row once an epoch, the same again for its seed."""

import numpy as np
import pytest
from short_runs import small_config

from causcell_training.data.cells import TrainingData
from causcell_training.loop.batches import ShuffledBatches, validation_batches

ROWS = np.arange(100, 403)


def epoch_of(batches: ShuffledBatches, epoch: int) -> list[np.ndarray]:
    batches.set_epoch(epoch)
    return list(batches)


def test_an_epoch_meets_every_row_once_in_batches_of_nearly_one_size() -> None:
    batches = epoch_of(ShuffledBatches(ROWS, 64, seed=0), 0)
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), ROWS)
    sizes = {len(batch) for batch in batches}
    assert min(sizes) >= 64
    assert max(sizes) - min(sizes) <= 1
    assert len(batches) == len(ShuffledBatches(ROWS, 64, seed=0))


def test_fewer_rows_than_a_batch_are_one_batch() -> None:
    (batch,) = epoch_of(ShuffledBatches(ROWS[:10], 64, seed=0), 0)
    np.testing.assert_array_equal(np.sort(batch), ROWS[:10])


def test_epochs_differ_and_each_is_the_same_again_for_its_seed() -> None:
    first = ShuffledBatches(ROWS, 64, seed=0)
    epochs = [np.concatenate(epoch_of(first, epoch)) for epoch in (0, 1)]
    assert (epochs[0] != epochs[1]).any()
    # a restart in the middle meets what the uninterrupted order would have
    np.testing.assert_array_equal(np.concatenate(epoch_of(ShuffledBatches(ROWS, 64, seed=0), 1)), epochs[1])
    assert (np.concatenate(epoch_of(ShuffledBatches(ROWS, 64, seed=1), 0)) != epochs[0]).any()


def test_a_pass_over_many_rows_is_several_epochs_of_one_shuffled_order() -> None:
    sampler, whole = ShuffledBatches(ROWS, 10, seed=3, epoch_cells=110), ShuffledBatches(ROWS, 10, seed=3)
    for first, nth in ((0, 0), (3, 1)):
        epochs = [np.concatenate(epoch_of(sampler, epoch)) for epoch in range(first, first + 3)]
        assert [len(rows) for rows in epochs] == [101, 101, 101]
        np.testing.assert_array_equal(np.concatenate(epochs), np.concatenate(epoch_of(whole, nth)))
    assert len(sampler) == len(epoch_of(sampler, 5)) == 10
    assert min(len(batch) for batch in epoch_of(sampler, 5)) >= 10


def test_up_to_its_size_an_epoch_is_what_it_was() -> None:
    for epoch in (0, 4):
        one, other = (epoch_of(ShuffledBatches(ROWS, 64, 0, most), epoch) for most in (None, len(ROWS)))
        np.testing.assert_array_equal(np.concatenate(one), np.concatenate(other))
        assert [len(batch) for batch in one] == [len(batch) for batch in other]


def test_of_many_validation_rows_a_sample_is_measured(prepared: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = prepared.rows("choose")
    every = [batch[0].shape[0] for batch in validation_batches(prepared, small_config())]
    assert sum(every) == len(rows)
    monkeypatch.setattr("causcell_training.loop.batches.MOST_VALIDATED", 7)
    drawn = [[*validation_batches(prepared, small_config(seed=seed))] for seed in (0, 0, 1)]
    assert [sum(len(batch[0]) for batch in each) for each in drawn] == [7, 7, 7]
    assert (drawn[0][0][0] == drawn[1][0][0]).all()
    assert (drawn[0][0][0] != drawn[2][0][0]).any()
