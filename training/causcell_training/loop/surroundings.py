"""Surroundings of the training loop: random numbers, interrupts and log messages stay the caller's."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from causcell._internal.quiet import quiet_loggers


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Seed torch for the block, and leave the caller's random stream as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@contextmanager
def own_interrupt() -> Iterator[None]:
    """Give Ctrl-C back to the caller.

    Lightning answers it by ignoring it from then on and leaving the process; here it is a `KeyboardInterrupt`.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as left:
        raise KeyboardInterrupt from left
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's advice on hardware, loaders and folders for the block: none of it is the user's to act on."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    with quiet_loggers(names, logging.WARNING), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        yield
