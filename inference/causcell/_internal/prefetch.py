"""Work in flight at once, results in order."""

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
    """``map`` with ``width`` calls in flight, each in a thread; items are taken as they are needed.

    An error is raised where its result would have been; what is in flight then is waited for.
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
    """The items, made in one thread up to ``depth`` ahead of their use; an error is raised where it arose."""
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
    """Seconds spent in the stages of a pipeline, by name; stages that overlap add up to more than has passed."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started

    def take(self) -> dict[str, float]:
        """What was spent since the last time."""
        with self._lock:
            taken, self.seconds = self.seconds, {}
        return taken
