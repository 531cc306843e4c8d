"""Silence for what the libraries that CausCell calls would say of their own."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def quiet_loggers(names: Sequence[str], level: int) -> Iterator[None]:
    """Raise the level of some loggers for the block, and give each its own back.

    Examples
    --------
    >>> import logging
    >>> with quiet_loggers(["chatty"], logging.ERROR):
    ...     logging.getLogger("chatty").warning("who asked?")
    >>> logging.getLogger("chatty").level == logging.NOTSET
    True
    """
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, before in zip(loggers, levels, strict=True):
            logger.setLevel(before)
