"""Surroundings of the training loop: random numbers, interrupts and log messages stay the caller's."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only

from causcell._internal.interrupts import raise_on_sigterm
from causcell._internal.quiet import quiet_loggers

LIGHTNING_LOGGERS = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
"""Loggers of Lightning's advice."""

_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Wait for trainings in other threads of this process to end.

    What is changed for a training and put back after it is the process's: torch's random numbers and defaults, filters
    of warnings, Lightning's rank. Two that overlap would undo each other's.
    """
    with _ONE_AT_A_TIME:
        yield


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Seed torch for the block, and leave the caller's random stream as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@contextmanager
def own_rank() -> Iterator[None]:
    """Let Lightning write files and messages, whichever task of a batch job this process is."""
    attributes = vars(rank_zero_only)
    before = attributes.get("rank")
    attributes["rank"] = 0
    try:
        yield
    finally:
        attributes["rank"] = before


@contextmanager
def own_interrupt() -> Iterator[None]:
    """Give Ctrl-C and SIGTERM back to the caller.

    Lightning answers Ctrl-C by ignoring it from then on and leaving the process, and SIGTERM at the end of an epoch;
    here both are a `KeyboardInterrupt` at once (SIGTERM a `Terminated`), unless the caller handles SIGTERM.
    """
    main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with ExitStack() as stack:
        if main and handlers[signal.SIGTERM] is signal.SIG_DFL:
            stack.enter_context(raise_on_sigterm())
        try:
            yield
        except SystemExit as left:
            if isinstance(left.__context__, KeyboardInterrupt):
                raise left.__context__ from None
            raise
        finally:
            if main and handlers[signal.SIGINT] is not None:
                signal.signal(signal.SIGINT, handlers[signal.SIGINT])


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's advice on hardware, loaders and folders for the block: none of it is the user's to act on."""
    with quiet_loggers(LIGHTNING_LOGGERS, logging.WARNING), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        yield
