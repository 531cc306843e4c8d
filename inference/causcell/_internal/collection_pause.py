"""A pause of Python's search for circles of unreachable objects, where many objects without circles are made."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def pause_collection() -> Iterator[None]:
    """Make objects without searching all of them for circles again and again; circles are found afterwards.

    Examples
    --------
    >>> import gc
    >>> with pause_collection():
    ...     gc.isenabled()
    False
    >>> gc.isenabled()
    True
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
