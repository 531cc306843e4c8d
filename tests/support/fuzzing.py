"""Fuzzing of every reader: how many inputs, and the count of those tried.

A fuzz test stands in ``tests/fuzz/test_<reader>.py``::

    @inputs(1500)
    @given(damaged(MANIFEST))
    def test_a_damaged_manifest_is_told(data):
        with tried("manifest"):
            ...

``make test`` tries so many of each; ``make fuzz`` sets ``CAUSCELL_FUZZ=20``: twenty times as many, from another seed.
An input that ever failed is kept as ``@example(...)`` of its test.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import pytest
from hypothesis import HealthCheck, Phase, settings

from causcell.errors import CausCellError

TIMES = int(os.environ.get("CAUSCELL_FUZZ", "1"))

_tried: Counter[str] = Counter()
_refused: Counter[str] = Counter()


def inputs(count: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Try ``count`` inputs of a Hypothesis test (times ``CAUSCELL_FUZZ``); the same ones each time in ``make test``."""
    return settings(
        max_examples=count * TIMES,
        deadline=None,
        derandomize=TIMES == 1,
        database=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )


@contextlib.contextmanager
def tried(reader: str) -> Iterator[None]:
    """Count an input of a reader. A `CausCellError` is an answer; any other exception is a fault."""
    _tried[reader] += 1
    try:
        yield
    except CausCellError as error:
        _refused[reader] += 1
        message = str(error)
        assert message, f"{type(error).__name__} without a message"
        assert len(message) < 4000, f"a message of {len(message)} characters"


def counts() -> tuple[dict[str, int], dict[str, int]]:
    """Return how many inputs of each reader this process tried, and how many were refused."""
    return dict(_tried), dict(_refused)


def add(tried: Mapping[str, int], refused: Mapping[str, int]) -> None:
    """Add the counts of another process."""
    _tried.update(tried)
    _refused.update(refused)


def summarise(terminal: pytest.TerminalReporter) -> None:
    """Print how many inputs of each reader were tried, and how many were refused."""
    if _tried:
        terminal.section("fuzzed inputs")
        for reader, count in sorted(_tried.items()):
            terminal.line(f"{reader}: {count:,} tried, {_refused[reader]:,} refused with a message")
        terminal.line(f"all: {_tried.total():,}")
