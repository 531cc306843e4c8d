"""Work in flight at once, results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(function: Callable[[T], R], items: Iterable[T], width: int) -> Iterator[R]:
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
