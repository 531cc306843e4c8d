"""The search for circles is off within the block, and as it was after it."""

import gc
import weakref

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


def test_what_was_made_is_old_afterwards_and_circles_are_found():
    """The next search of young objects is not of all that was made; a search of all finds what nothing holds."""

    class Ring:
        def __init__(self):
            self.own = self

    gc.collect()
    with pause_collection():
        rings = [Ring() for _ in range(10_000)]
        gone = weakref.ref(rings[0])
        del rings[0]
    assert gc.get_freeze_count() == 0
    young = {id(each) for each in gc.get_objects(generation=0)}
    assert not young & {id(each) for each in rings}
    assert gone() is not None
    gc.collect()
    assert gone() is None


def test_objects_that_the_caller_froze_stay_frozen():
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        with pause_collection():
            made = [[] for _ in range(1000)]
        assert gc.get_freeze_count() >= frozen - len(made)
        assert gc.get_freeze_count() > 1000
    finally:
        gc.unfreeze()
