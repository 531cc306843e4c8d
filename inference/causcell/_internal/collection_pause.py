"""A pause of Python's search for circles of unreachable objects, where many objects without circles are made."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def pause_collection() -> Iterator[None]:
    """Make objects without searching all of them for circles again and again.

    What was made counts as old afterwards: the next search, of young objects, is not of a million at once, and the
    next one of all finds the circles.

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
            if not gc.get_freeze_count():  # objects that the caller froze stay so
                gc.freeze()
                gc.unfreeze()
            gc.enable()
