"""The order of batches: every row once an epoch, the same again for its seed."""

import numpy as np

from causcell_training.loop.batches import ShuffledBatches

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
