"""SIGTERM is an interrupt like Ctrl-C within the block, and what it was before and after it."""

import os
import signal
import threading

import pytest

from causcell._internal.interrupts import Terminated, raise_on_sigterm


def test_sigterm_is_raised_as_an_interrupt() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt) as raised, raise_on_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
    assert type(raised.value) is Terminated
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with raise_on_sigterm():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_thread_leaves_signals_alone() -> None:
    found = []

    def look() -> None:
        with raise_on_sigterm():
            found.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [before]


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)])
def test_it_is_known_where_the_exception_is_swallowed(number: int, kind: type[BaseException]) -> None:
    """As by code in C that is being imported, which raises an error of its own."""
    with raise_on_sigterm() as stop, pytest.raises(ImportError):
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            raise ImportError("initialization failed") from None
    assert type(stop.interrupt) is kind
