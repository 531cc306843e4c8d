"""When a request to servers is tried again: which failures are transient, for how long, and after what pause."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from causcell.errors import DeadlineExceededError, ServerUnavailableError

T = TypeVar("T")

TRANSIENT = (ServerUnavailableError, DeadlineExceededError)
"""Failures worth another try: the server is starting, stopping, gone, busy or overloaded. All others are final."""


def retry_transient(
    call: Callable[[], T],
    patience: float,
    *,
    longest_pause: float = 2.0,
    skip_pause: Callable[[], bool] = lambda: False,
) -> T:
    """Call until it succeeds, fails for good, or time is up.

    Parameters
    ----------
    call
        Function to call; a `TRANSIENT` error of it is followed by another try, any other error is raised.
    patience
        Seconds after which no further try is made, and the last error is raised.
    longest_pause
        Seconds; pauses between tries are random, exponentially longer, and at most this long.
    skip_pause
        Asked before each pause: True to try again at once, as where another server is there to take the request.
    """
    wait = wait_random_exponential(multiplier=0.1, max=longest_pause)

    def pause(state: RetryCallState) -> float:
        return 0.0 if skip_pause() else wait(state)

    attempts = Retrying(
        retry=retry_if_exception_type(TRANSIENT), stop=stop_after_delay(patience), wait=pause, reraise=True
    )
    return attempts(call)
