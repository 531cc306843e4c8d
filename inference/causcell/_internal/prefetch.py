"""Pipelines: items made ahead of their use, calls in flight at once with results in order, and the time of stages."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_ordered(function: Callable[[T], R], items: Iterable[T], width: int) -> Iterator[R]:
    """Map with ``width`` calls in flight, each in a thread; results come in the order of the items.

    Items are taken as they are needed. An error is raised where its result would have been; what is in flight then is
    waited for.

    Examples
    --------
    >>> list(map_ordered(abs, [-1, 2, -3], width=2))
    [1, 2, 3]
    """
    if width == 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(width) as pool:
        flying: deque[Future[R]] = deque()
        try:
            for item in items:
                flying.append(pool.submit(function, item))
                if len(flying) == width:
                    yield flying.popleft().result()
            while flying:
                yield flying.popleft().result()
        finally:
            for future in flying:
                future.cancel()


def prefetch(items: Iterable[T], depth: int) -> Generator[T]:
    """Make the items in a thread of their own, up to ``depth`` ahead of their use; errors are raised where they arose.

    Examples
    --------
    >>> list(prefetch(range(3), depth=2))
    [0, 1, 2]
    """
    iterator = iter(items)
    end = object()
    with ThreadPoolExecutor(1) as pool:
        flying = deque(pool.submit(next, iterator, end) for _ in range(depth))
        try:
            while (item := flying.popleft().result()) is not end:
                flying.append(pool.submit(next, iterator, end))
                yield item  # type: ignore[misc]
        finally:
            for future in flying:
                future.cancel()


class StageClock:
    """Seconds spent in each stage of a pipeline; stages that overlap add up to more than has passed."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Count the time of a ``with`` block towards a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started

    def take(self) -> dict[str, float]:
        """Return the seconds by stage since the last call."""
        with self._lock:
            taken, self.seconds = self.seconds, {}
        return taken
