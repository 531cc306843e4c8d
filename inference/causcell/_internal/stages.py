"""Lines that tell how far a long piece of work is."""

from __future__ import annotations

import time
from collections.abc import Callable

Report = Callable[[str], None]
"""Called with a line on what begins."""


def say_nothing(line: str) -> None:
    """Report nothing."""


def at_intervals(report: Report | None, seconds: float = 3.0) -> Report:
    """Return a reporter of many short steps: the first line is told, and then what begins this long after the last.

    Parameters
    ----------
    report
        Takes the lines; nothing is told if not given.
    seconds
        Shortest time between two lines.

    Examples
    --------
    >>> tell = at_intervals(print, seconds=60)
    >>> for shift in range(3):
    ...     tell(f"shift {shift + 1} of 3")
    shift 1 of 3
    """
    if report is None:
        return say_nothing
    last = -float("inf")

    def tell(line: str) -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            report(line)

    return tell
