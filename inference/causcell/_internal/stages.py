"""Lines that tell how far a long piece of work is."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

Report = Callable[[str], None]
"""Called with a line on what begins."""


def say_nothing(line: str) -> None:
    """Report nothing."""


def is_redrawn(stream: TextIO | None = None) -> bool:
    """Tell whether a line of a stream (standard error) can be drawn anew: in a terminal, and in a notebook."""
    shell = sys.modules.get("IPython")
    in_notebook = shell is not None and type(shell.get_ipython()).__name__ == "ZMQInteractiveShell"
    return in_notebook or (stream or sys.stderr).isatty()


def progress_bar(*arguments: Any, **options: Any) -> Any:
    """Make tqdm's bar for where this runs: a line of text in a notebook without ipywidgets, of which nothing warns."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")
        from tqdm.auto import tqdm
    between = 0.1 if is_redrawn(options.get("file")) else 60.0  # a file keeps every line
    return tqdm(*arguments, **{"mininterval": between, "maxinterval": max(between, 10.0)} | options)


@contextmanager
def show_stages(progress: bool | Report) -> Iterator[Report]:
    """Show stages as they begin: on one line that is drawn anew where it can be, else on a line each.

    Parameters
    ----------
    progress
        Whether to show any; or what takes them in place of standard error.
    """
    if callable(progress):
        yield progress
    elif not progress:
        yield say_nothing
    elif is_redrawn():
        with progress_bar(bar_format="{desc}, {elapsed}") as bar:
            yield bar.set_description_str
    else:
        yield _print_line


def _print_line(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


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
