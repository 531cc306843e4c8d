"""Failures of a server as errors of CausCell."""

from __future__ import annotations

import re

from causcell.engine.triton.connection import Address
from causcell.errors import (
    DeadlineExceededError,
    EngineError,
    ServerUnavailableError,
)

_UNAVAILABLE = {"StatusCode.UNAVAILABLE", "502", "503"}


_TIMED_OUT = {"StatusCode.DEADLINE_EXCEEDED", "499", "504"}


_BETWEEN_STATES = re.compile("server is stopping|connection error|has no available versions", re.IGNORECASE)
"""What servers say that start (models that are not loaded yet have no versions) or stop."""


def http_errors() -> type[Exception]:
    try:
        from geventhttpclient.response import HTTPParseError
    except ImportError:  # gRPC alone is installed
        return EOFError
    return HTTPParseError


def timeout_error(address: Address) -> DeadlineExceededError:
    return DeadlineExceededError(
        f"{address} did not answer within the deadline; it may be overloaded: give a longer deadline, or fewer "
        "requests in flight"
    )


def untrusted_error(address: Address, reason: str) -> EngineError:
    return EngineError(
        f"{address} shows a certificate that is not trusted ({reason}); name the authority that signed it "
        "(certificates), and the server as its certificate does"
    )


def translate_failure(address: Address, status: str, message: str) -> EngineError:
    first = message.strip().splitlines()[0] if message.strip() else "no reason given"
    if status in _UNAVAILABLE or _BETWEEN_STATES.search(message):
        return ServerUnavailableError(f"{address} is not available: {first}")
    if status in _TIMED_OUT:
        return timeout_error(address)
    if status in ("StatusCode.UNAUTHENTICATED", "StatusCode.PERMISSION_DENIED", "401", "403"):
        return EngineError(f"{address} refused the request: {first}; give an authorization header (headers)")
    if "is not healthy" in message or "Stub process" in message:
        return EngineError(f"{address}: a model's process died, and is not restarted ({first}); restart the server")
    return EngineError(f"{address} refused the request ({status}): {first}")
