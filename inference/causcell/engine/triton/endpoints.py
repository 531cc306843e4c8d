"""Servers of one model: requests are spread over them, and a server that fails is left alone for a while."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from causcell.engine.triton.client import TritonClient
from causcell.engine.triton.retries import TRANSIENT
from causcell.errors import ServerBusyError

_log = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_EJECTION, _LONGEST_EJECTION = 0.5, 15.0  # seconds
_REST = 0.2  # seconds, at most


class Endpoints:
    """Choose a server for each request, and leave failing servers alone.

    Iterating gives every server. Safe to use from several threads.

    Parameters
    ----------
    servers
        Clients of servers that serve the same model, at least one.
    clock
        Function that returns seconds, ascending.
    """

    def __init__(self, servers: Sequence[TritonClient], clock: Callable[[], float] = time.monotonic) -> None:
        self._servers = list(servers)
        self._clock = clock
        self._busy = dict.fromkeys(range(len(servers)), 0)
        self._failures = dict.fromkeys(range(len(servers)), 0)
        self._ejected_until = dict.fromkeys(range(len(servers)), 0.0)
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[TritonClient]:
        return iter(self._servers)

    def use(self, call: Callable[[TritonClient], T]) -> T:
        """Call with the least busy server that is not ejected.

        If all are ejected, the one whose time is up first is used. A server whose call fails with a
        `causcell.engine.triton.retries.TRANSIENT` error is ejected, and the error is raised; a busy one rests for a
        moment.
        """
        with self._lock:
            now = self._clock()
            place = min(self._busy, key=lambda i: (max(self._ejected_until[i] - now, 0.0), self._busy[i]))
            self._busy[place] += 1
        server = self._servers[place]
        try:
            result = call(server)
        except ServerBusyError:
            self._rest(place)
            raise
        except TRANSIENT as error:
            self._eject(place, error)
            server.reset()
            raise
        else:
            with self._lock:
                self._failures[place], self._ejected_until[place] = 0, 0.0
            return result
        finally:
            with self._lock:
                self._busy[place] -= 1

    def is_any_healthy(self) -> bool:
        """Tell if a server is left that is not ejected."""
        with self._lock:
            now = self._clock()
            return any(until <= now for until in self._ejected_until.values())

    def _rest(self, place: int) -> None:
        """Prefer others for a moment to a server that has too much to do; it is as healthy as before."""
        with self._lock:
            until = self._clock() + random.uniform(0.5, 1.0) * _REST
            self._ejected_until[place] = max(self._ejected_until[place], until)

    def _eject(self, place: int, error: Exception) -> None:
        """Leave a server alone, each time for longer; requests that were in flight together count as one failure."""
        with self._lock:
            now = self._clock()
            if self._ejected_until[place] > now:
                return
            self._failures[place] += 1
            pause = min(_FIRST_EJECTION * 2 ** (self._failures[place] - 1), _LONGEST_EJECTION)
            self._ejected_until[place] = now + pause
        _log.warning("%s; leaving it alone for %.1f s", error, pause)
