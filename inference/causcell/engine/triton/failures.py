"""Failures of a server, in tritonclient's and the transport's words, as errors of CausCell."""

from __future__ import annotations

import re

from causcell.engine.triton.connection import Address
from causcell.errors import DeadlineExceededError, EngineError, ServerUnavailableError

_UNAVAILABLE = {"StatusCode.UNAVAILABLE", "502", "503"}
_TIMED_OUT = {"StatusCode.DEADLINE_EXCEEDED", "499", "504"}
_REFUSED = {"StatusCode.UNAUTHENTICATED", "StatusCode.PERMISSION_DENIED", "401", "403"}

_BETWEEN_STATES = re.compile("server is stopping|connection error|has no available versions", re.IGNORECASE)
"""Messages of servers that start (models that are not loaded yet have no versions) or stop."""


def translate_failure(address: Address, status: str, message: str) -> EngineError:
    """Make the error for a request that a server did not answer with a result.

    Parameters
    ----------
    address
        Address of the server.
    status
        Status of gRPC (``StatusCode.NAME``) or HTTP (a number).
    message
        The server's message; its first line is passed on.

    Returns
    -------
    `ServerUnavailableError` or `DeadlineExceededError` where another try may succeed; `EngineError` itself otherwise.
    """
    first = message.strip().splitlines()[0] if message.strip() else "no reason given"
    if status in _UNAVAILABLE or _BETWEEN_STATES.search(message):
        return ServerUnavailableError(f"{address} is not available: {first}")
    if status in _TIMED_OUT:
        return make_timeout_error(address)
    if status in _REFUSED:
        return EngineError(f"{address} refused the request: {first}; give an authorization header (headers)")
    if "is not healthy" in message or "Stub process" in message:
        return EngineError(f"{address}: a model's process died, and is not restarted ({first}); restart the server")
    return EngineError(f"{address} refused the request ({status}): {first}")


def make_timeout_error(address: Address) -> DeadlineExceededError:
    """Make the error for a server that did not answer within `Connection.deadline`."""
    return DeadlineExceededError(
        f"{address} did not answer within the deadline; it may be overloaded: give a longer deadline, or fewer "
        "requests in flight"
    )


def make_untrusted_error(address: Address, reason: str) -> EngineError:
    """Make the error for a server whose certificate is not trusted."""
    return EngineError(
        f"{address} shows a certificate that is not trusted ({reason}); name the authority that signed it "
        "(certificates), and the server as its certificate does"
    )


def http_parse_error() -> type[Exception]:
    """Return the exception that tritonclient's HTTP library raises for an answer that is no HTTP."""
    try:
        from geventhttpclient.response import HTTPParseError
    except ImportError:  # gRPC alone is installed
        return EOFError
    found: type[Exception] = HTTPParseError
    return found
