"""Work in flight keeps its order, hands errors on where they arose, and stops when it is told to."""

import threading
import time

import pytest

from causcell._internal.prefetch import StageClock, map_ordered, prefetch


def test_items_made_ahead_keep_their_order_and_number():
    made = []

    def items():
        for i in range(10):
            made.append(i)
            yield i

    taken = prefetch(items(), 3)
    assert next(taken) == 0
    time.sleep(0.1)
    assert len(made) == 4  # three more than was taken, and no more
    assert [*taken] == list(range(1, 10))


def test_an_error_is_raised_where_it_arose():
    def items():
        yield 1
        raise ValueError("second")

    taken = prefetch(items(), 4)
    assert next(taken) == 1
    with pytest.raises(ValueError, match="second"):
        next(taken)


def test_what_is_closed_makes_no_more():
    made = []

    def items():
        for i in range(100):
            made.append(i)
            yield i

    taken = prefetch(items(), 2)
    next(taken)
    taken.close()
    count = len(made)
    time.sleep(0.05)
    assert len(made) == count <= 4


def test_items_are_made_in_one_other_thread():
    threads = set()

    def items():
        for _ in range(5):
            threads.add(threading.get_ident())
            yield None

    list(prefetch(items(), 3))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("width", [1, 3])
def test_results_come_in_the_order_of_the_items(width):
    assert list(map_ordered(lambda i: i * i, range(20), width)) == [i * i for i in range(20)]


@pytest.mark.parametrize("width", [2, 4])
def test_no_more_calls_are_in_flight_than_asked_for(width):
    flying, most, lock = 0, 0, threading.Lock()

    def call(item):
        nonlocal flying, most
        with lock:
            flying += 1
            most = max(most, flying)
        time.sleep(0.01)
        with lock:
            flying -= 1
        return item

    assert list(map_ordered(call, range(12), width)) == list(range(12))
    assert 1 < most <= width


@pytest.mark.parametrize("width", [1, 3])
def test_items_are_taken_as_they_are_needed(width):
    """What waits for its turn is held in memory: no more of it than there are calls in flight."""
    taken = []
    results = map_ordered(abs, (taken.append(i) or i for i in range(20)), width)
    for done in range(1, 6):
        next(results)
        assert len(taken) == done + width - 1


def test_an_error_of_a_call_is_raised_where_its_result_would_have_been():
    def call(item):
        if item == 2:
            raise ValueError("third")
        return item

    results = map_ordered(call, range(9), 3)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="third"):
        next(results)


def test_a_clock_adds_up_by_stage_and_starts_anew():
    clock = StageClock()
    for _ in range(2):
        with clock("a"):
            time.sleep(0.01)
    with pytest.raises(ValueError), clock("b"):
        raise ValueError
    taken = clock.take()
    assert taken["a"] >= 0.02
    assert set(taken) == {"a", "b"}
    assert clock.take() == {}
