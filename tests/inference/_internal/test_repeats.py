"""Numbers that occur more than once are found, however many runs they are gathered in."""

import numpy as np
import pytest

from causcell._internal.repeats import RepeatFinder


@pytest.mark.parametrize("run", [1, 7, 64, 10_000])
@pytest.mark.parametrize("piece", [1, 13, 5000])
def test_what_occurs_more_than_once_is_found(run, piece):
    rng = np.random.default_rng(run * piece)
    numbers = rng.integers(2**63, size=900, dtype=np.uint64) * np.uint64(2)
    numbers = rng.permutation(
        np.concatenate([numbers, numbers[:5], numbers[:2], np.array([0, 2**64 - 1] * 2, np.uint64)])
    )
    values, counts = np.unique(numbers, return_counts=True)
    with RepeatFinder(run=run) as finder:
        for start in range(0, len(numbers), piece):
            finder.add(numbers[start : start + piece])
        assert finder.repeated().tolist() == values[counts > 1].tolist()


@pytest.mark.parametrize("count", [0, 1, 8])
def test_nothing_occurs_more_than_once(count):
    with RepeatFinder(run=4) as finder:
        finder.add(np.arange(count, dtype=np.uint64))
        assert finder.repeated().tolist() == []
