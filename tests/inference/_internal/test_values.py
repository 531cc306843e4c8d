import numpy as np
import pytest

from causcell._internal.values import first_unsound


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("low", [-np.inf, 0, -1.5])
@pytest.mark.parametrize("high", [np.inf, 1.0])
def test_it_finds_what_a_plain_look_finds(dtype, low, high):
    """In any memory order, and in slices; -0.0 is 0."""
    rng = np.random.default_rng(0)
    for bad in (np.nan, np.inf, -np.inf, -1.0, 5.0, -2.0, -0.0, 0.0, np.finfo(dtype).max, -np.finfo(dtype).tiny):
        values = rng.uniform(0, 1, size=(6, 8)).astype(dtype)
        values[4, 5] = bad
        for view in (values, np.asfortranarray(values), values[::2, 1::2], values.T, values[:0]):
            found = ~(np.isfinite(view) & (view >= low) & (view <= high))
            expected = tuple(np.argwhere(found)[0]) if found.any() else None
            assert first_unsound(view, low, high) == expected
