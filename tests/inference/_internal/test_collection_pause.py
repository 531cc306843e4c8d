"""The search for circles is off within the block, and as it was after it."""

import gc

import pytest

from causcell._internal.collection_pause import pause_collection


@pytest.mark.parametrize("enabled", [True, False])
def test_the_state_before_comes_back(enabled):
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(KeyError), pause_collection():
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()
