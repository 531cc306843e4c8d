"""Ctrl-C and SIGTERM: both end a command in the same way, and what is begun is put in order first."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
"""Exit status of the command line after Ctrl-C, and after SIGTERM."""


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM, which SLURM and Kubernetes send before they kill."""


class Stop:
    """Request to end the process, if there was one.

    It is known here also where the exception did not arrive: code in C that is interrupted while it is imported raises
    an error of its own.

    Attributes
    ----------
    interrupt
        The exception that was raised, or `None`.
    """

    def __init__(self) -> None:
        self.interrupt: KeyboardInterrupt | None = None

    def __call__(self, number: int, _: object) -> None:
        """Handle a signal."""
        self.interrupt = Terminated() if number == signal.SIGTERM else KeyboardInterrupt()
        raise self.interrupt


@contextlib.contextmanager
def raise_on_sigterm() -> Iterator[Stop]:
    """Raise `Terminated` in the main thread on SIGTERM, within a ``with`` block, as Ctrl-C raises `KeyboardInterrupt`.

    Nothing is changed in another thread, which can't handle signals, or for a signal that is ignored or that somebody
    else handles.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    usual: dict[signal.Signals, Any] = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    mine = [number for number, handler in usual.items() if signal.getsignal(number) is handler]
    for number in mine:
        signal.signal(number, stop)
    try:
        yield stop
    finally:
        for number in mine:
            if signal.getsignal(number) is stop:
                signal.signal(number, usual[number])


def exit_status(interrupt: KeyboardInterrupt) -> int:
    """Return the exit status of a command that was stopped.

    Examples
    --------
    >>> exit_status(KeyboardInterrupt()), exit_status(Terminated())
    (130, 143)
    """
    return TERMINATED if isinstance(interrupt, Terminated) else INTERRUPTED
