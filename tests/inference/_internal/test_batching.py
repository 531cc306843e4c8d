"""Batches cover all rows once, in order; padding repeats the last row."""

import numpy as np
import pytest

from causcell._internal.batching import batches, pad_batch


@pytest.mark.parametrize(("count", "size"), [(10, 3), (9, 3), (2, 5), (1, 1), (5, 1)])
def test_batches_cover_all_rows_once_in_order(count, size):
    covered = [np.arange(count)[rows] for rows in batches(count, size)]
    np.testing.assert_array_equal(np.concatenate(covered), np.arange(count))
    assert all(len(rows) == size for rows in covered[:-1])
    assert 0 < len(covered[-1]) <= size


def test_padding_repeats_the_last_row():
    array = np.arange(6).reshape(3, 2)
    np.testing.assert_array_equal(pad_batch(array, 5), array[[0, 1, 2, 2, 2]])
    np.testing.assert_array_equal(pad_batch(array, 3), array)


def test_no_rows_make_no_batch():
    assert batches(0, 4) == []


def test_a_batch_of_full_size_is_not_copied():
    array = np.arange(4)
    assert pad_batch(array, 4) is array
