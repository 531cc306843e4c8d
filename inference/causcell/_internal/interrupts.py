"""Ctrl-C and SIGTERM: both end a command in the same way, and what is begun is put in order first."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
"""Exit status of the command line after Ctrl-C, and after SIGTERM."""


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM, which SLURM and Kubernetes send before they kill."""


@contextlib.contextmanager
def raise_on_sigterm() -> Iterator[None]:
    """Raise `Terminated` in the main thread on SIGTERM, within a ``with`` block.

    Nothing is changed in another thread, which can't handle signals, or where SIGTERM is ignored already.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
        yield
        return

    def stop(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def exit_status(interrupt: KeyboardInterrupt) -> int:
    """Return the exit status of a command that was stopped.

    Examples
    --------
    >>> exit_status(KeyboardInterrupt()), exit_status(Terminated())
    (130, 143)
    """
    return TERMINATED if isinstance(interrupt, Terminated) else INTERRUPTED
