"""Failures of a server, in its own and the transport's words, as errors of CausCell."""

from __future__ import annotations

import re

from causcell.engine.triton.connection import Address
from causcell.errors import DeadlineExceededError, EngineError, ServerBusyError, ServerUnavailableError

_UNAVAILABLE = {"StatusCode.UNAVAILABLE", "502", "503"}
_TIMED_OUT = {"StatusCode.DEADLINE_EXCEEDED", "408", "499", "504"}
_REFUSED = {"StatusCode.UNAUTHENTICATED", "StatusCode.PERMISSION_DENIED", "401", "403", "407"}
_BUSY = {"StatusCode.RESOURCE_EXHAUSTED", "429"}
_TOO_LARGE = {"413"}
_STRANGE = {"StatusCode.UNIMPLEMENTED", "StatusCode.DATA_LOSS"}

_QUEUE_IS_FULL = re.compile("exceeds maximum queue size", re.IGNORECASE)
"""Message of a server whose queue of a model is full, which both protocols report as unavailable."""

_BETWEEN_STATES = re.compile("server is stopping|connection error|has no available versions", re.IGNORECASE)
"""Messages of servers that start (models that are not loaded yet have no versions) or stop."""

_LARGER_THAN_TAKEN = re.compile(r"exceeds the maximum allowed|larger than max|max-input-size", re.IGNORECASE)
"""Messages of servers that refuse a request, and of gRPC that refuses an answer, for its size."""

_FORGOTTEN = re.compile("unable to find (system )?shared memory region|shared memory region .*not found", re.IGNORECASE)
"""Messages of servers that do not know a region any more: restarted, or told by somebody to forget all."""

_HTTP_ANSWER_TO_GRPC = re.compile("http2? header with status|content-type|http/?1|deserializ", re.IGNORECASE)
"""Messages of gRPC about a server that does not speak it."""

_SHOWN = 80  # characters of a stranger's text


class RegionForgottenError(EngineError):
    """A server does not know a region of shared memory that it was asked to use; a new one may do."""


def translate_failure(address: Address, status: str, message: str) -> EngineError:
    """Make the error for a request that a server did not answer with a result.

    Parameters
    ----------
    address
        Address of the server.
    status
        Status of gRPC (``StatusCode.NAME``) or HTTP (a number).
    message
        The server's message; its beginning is passed on.

    Returns
    -------
    `ServerUnavailableError` (`ServerBusyError` where the server just has too much to do) or `DeadlineExceededError`
    where another try may succeed; `EngineError` itself otherwise.
    """
    first = _first_line(message) or "no reason given"
    if (status in _TOO_LARGE or _LARGER_THAN_TAKEN.search(message)) and not _QUEUE_IS_FULL.search(message):
        return _make_size_error(address, status, first)
    if status in _BUSY or _QUEUE_IS_FULL.search(message):
        return ServerBusyError(f"{address} has more requests than it takes: {first}")
    if status in _UNAVAILABLE or _BETWEEN_STATES.search(message):
        return ServerUnavailableError(f"{address} is not available: {first}")
    if status in _TIMED_OUT:
        return make_timeout_error(address)
    if status in _REFUSED:
        return EngineError(f"{address} refused the request: {first}; give an authorization header (headers)")
    if "is not healthy" in message or "Stub process" in message:
        return EngineError(f"{address}: a model's process died, and is not restarted ({first}); restart the server")
    if _FORGOTTEN.search(message):
        return RegionForgottenError(f"{address} refused the request ({status}): {first}")
    if status in _STRANGE or (status.startswith("StatusCode") and _HTTP_ANSWER_TO_GRPC.search(message)):
        return make_strange_answer_error(address, f"{status}: {first}")
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


def make_strange_answer_error(address: Address, reason: str, content: bytes = b"") -> EngineError:
    """Make the error for an answer that no Triton gives, such as an ingress' page or another program's greeting.

    Parameters
    ----------
    address
        Address that was asked.
    reason
        What is wrong with the answer.
    content
        Beginning of the answer, which is shown.
    """
    shown = f", which begins with {show(content)}" if content else ""
    other = "http://" if address.is_grpc else "grpc://"
    return EngineError(
        f"{address} gave an answer that is not a Triton answer ({reason}{shown}); name the address and port of a "
        f"Triton server or of a front that passes requests on to one, as {other} if that port speaks it"
    )


def show(content: bytes | str) -> str:
    """Quote the beginning of a stranger's text, without characters that a terminal would obey."""
    text = content[: 4 * _SHOWN].decode("utf-8", "replace") if isinstance(content, bytes) else content
    return repr(text[:_SHOWN]) + ("..." if len(text) > _SHOWN else "")


def _first_line(message: str) -> str:
    """Return the beginning of a message, without characters that a terminal would obey."""
    lines = message.strip().splitlines()
    return "".join(each if each.isprintable() else " " for each in lines[0][:500]) if lines else ""


def _make_size_error(address: Address, status: str, reason: str) -> EngineError:
    """Make the error for a request, or an answer, that is larger than one side takes."""
    remedy = "take a smaller batch_size="
    if not address.is_grpc:
        remedy += ", speak gRPC, or start the server with a larger --http-max-input-size"
    return EngineError(f"{address} and this client exchange no message that large ({status}: {reason}); {remedy}")
