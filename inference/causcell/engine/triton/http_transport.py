"""Triton's HTTP protocol: JSON, followed by the bytes of arrays."""

from __future__ import annotations

import json
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import BadStatusLine, HTTPException, HTTPResponse, IncompleteRead, RemoteDisconnected
from typing import TypeVar
from urllib.parse import quote

import numpy as np

from causcell.engine.triton.connection import Address, Connection
from causcell.engine.triton.failures import (
    make_strange_answer_error,
    make_timeout_error,
    make_untrusted_error,
    show,
    translate_failure,
)
from causcell.engine.triton.http_connection import AnswerTooLargeError, BoundedConnection
from causcell.engine.triton.messages import Shape
from causcell.engine.triton.tensors import (
    LARGEST_HEADER,
    ArraySpecs,
    Place,
    StrangeAnswerError,
    array_of,
    count_bytes,
    describe_request,
    read_answer,
)
from causcell.errors import EngineError, ServerUnavailableError

T = TypeVar("T")

LARGEST_MESSAGE = 16 << 20
"""Bytes of an answer that is no array's; the largest is the configuration that carries the manifest."""

_LARGEST_REFUSAL = 1 << 16
_HEADERS = 1 << 18  # bytes that HTTP's headers and the framing of chunks may add to an answer
_IDLE = 1.0  # seconds after which an idle connection is closed: a server that stops waits for those that are open
_LENGTH_HEADER = "Inference-Header-Content-Length"


class HttpTransport:
    """Send requests over HTTP; see `causcell.engine.triton.transport.Transport`.

    Redirections are not followed: the headers of a request may hold a token. No encoding of an answer's content is
    asked for or taken.

    Parameters
    ----------
    address
        Address of the server.
    connection
        Deadline, headers and certificates.
    """

    def __init__(self, address: Address, connection: Connection) -> None:
        self.address = address
        self._deadline = connection.deadline
        self._headers = dict(connection.headers)
        certificates = connection.certificates
        self._context = (
            ssl.create_default_context(cafile=os.fspath(certificates) if certificates else None)
            if address.is_secure
            else None
        )
        self._pool = _Pool()

    def is_ready(self) -> bool:
        """Tell if the server says that it and all its models are ready."""
        try:
            self._ask("GET", "/v2/health/ready")
        except ServerUnavailableError:
            raise
        except EngineError:
            return False
        return True

    def metadata(self, shape: Shape[T]) -> T:
        """Ask what the server is."""
        return self._read(shape, "GET", "/v2")

    def index(self, shape: Shape[T]) -> T:
        """Ask for all models and their states."""
        return self._read(shape, "POST", "/v2/repository/index", b"{}")

    def config(self, shape: Shape[T], model: str) -> T:
        """Ask for the configuration of a model."""
        return self._read(shape, "GET", f"/v2/models/{quote(model, safe='')}/config")

    def statistics(self, shape: Shape[T]) -> T:
        """Ask what all models did."""
        return self._read(shape, "GET", "/v2/models/stats")

    def regions(self, shape: Shape[T]) -> T:
        """Ask which regions of system shared memory the server maps."""
        return self._read(shape, "GET", "/v2/systemsharedmemory/status")

    def register_region(self, name: str, key: str, size: int) -> None:
        """Ask the server to map ``size`` bytes of the file ``key`` as a region."""
        body = json.dumps({"key": key, "offset": 0, "byte_size": size}).encode()
        self._ask("POST", f"/v2/systemsharedmemory/region/{quote(name, safe='')}/register", body)

    def unregister_region(self, name: str, deadline: float | None = None) -> None:
        """Ask the server to forget a region, within ``deadline`` seconds if that is less than the connection's."""
        self._ask("POST", f"/v2/systemsharedmemory/region/{quote(name, safe='')}/unregister", b"", deadline)

    def infer(
        self, model: str, inputs: Mapping[str, np.ndarray], outputs: ArraySpecs, places: Mapping[str, Place]
    ) -> dict[str, np.ndarray]:
        """Evaluate a model; arrays with a place are not sent, and outputs with a place are not returned."""
        header = json.dumps(describe_request(inputs, outputs, places)).encode()
        sent = [as_bytes(array) for name, array in inputs.items() if name not in places]
        expected = sum(count_bytes(spec) for name, spec in outputs.items() if name not in places)
        path = f"/v2/models/{quote(model, safe='')}/infer"
        headers = {_LENGTH_HEADER: str(len(header)), "Content-Type": "application/octet-stream"}
        body = [memoryview(header), *sent]
        with self._exchange("POST", path, body, headers, LARGEST_HEADER + expected) as response:
            return read_inference(self.address, response, outputs, places)

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def _read(self, shape: Shape[T], method: str, path: str, body: bytes | None = None) -> T:
        content = self._ask(method, path, body)
        try:
            return shape.read(content)
        except StrangeAnswerError as error:
            raise make_strange_answer_error(self.address, f"to {method} {path}: {error}", content) from error

    def _ask(self, method: str, path: str, body: bytes | None = None, deadline: float | None = None) -> bytes:
        """Return the content of an answer of status 200."""
        parts = [] if body is None else [memoryview(body)]
        headers = {} if body is None else {"Content-Type": "application/json", "Content-Length": str(len(body))}
        with self._exchange(method, path, parts, headers, LARGEST_MESSAGE, deadline) as response:
            return read_bounded(response, LARGEST_MESSAGE)

    @contextmanager
    def _exchange(
        self,
        method: str,
        path: str,
        body: Sequence[memoryview],
        headers: Mapping[str, str],
        largest: int,
        deadline: float | None = None,
    ) -> Iterator[HTTPResponse]:
        """Send a request; the block reads the answer, of status 200, from what it is given."""
        connection, used = self._pool.take(lambda: BoundedConnection(self.address, self._context))
        headers = {**self._headers, **headers}
        response: HTTPResponse | None = None
        try:
            with translated(self.address):
                connection.start(min(deadline or self._deadline, self._deadline), largest + _HEADERS)
                try:
                    response = connection.exchange(method, path, headers, body)
                except (ConnectionError, RemoteDisconnected):
                    if not used:
                        raise
                    connection.close()  # the server closed it while it was idle: this says nothing of the server
                    response = connection.exchange(method, path, headers, body)
                check_head(self.address, response)
                yield response
        except BaseException:
            connection.close()
            if response is not None:
                response.close()
            raise
        if not response.isclosed():  # there is more than was read
            connection.close()
            response.close()
        self._pool.put(connection)


class _Pool:
    """Idle connections, the last used one first; those that are idle for a while are closed."""

    def __init__(self) -> None:
        self._idle: list[BoundedConnection] = []
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def take(self, new: Callable[[], BoundedConnection]) -> tuple[BoundedConnection, bool]:
        """Return a connection, and whether it was used before; one made by ``new`` if none is idle."""
        with self._lock:
            while self._idle:
                connection = self._idle.pop()
                if connection.sock is not None:
                    return connection, True
        return new(), False

    def put(self, connection: BoundedConnection) -> None:
        """Take a connection back."""
        if connection.sock is None:
            return
        connection.idle_since = time.monotonic()
        with self._lock:
            self._idle.append(connection)
            self._watch()

    def close(self) -> None:
        """Close all idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        for connection in idle:
            connection.close()

    def _watch(self) -> None:
        if self._timer is None and self._idle:
            self._timer = threading.Timer(_IDLE, self._close_idle)
            self._timer.daemon = True
            self._timer.start()

    def _close_idle(self) -> None:
        limit = time.monotonic() - _IDLE
        with self._lock:
            self._timer = None
            old = [connection for connection in self._idle if connection.idle_since <= limit]
            self._idle = [connection for connection in self._idle if connection.idle_since > limit]
            self._watch()
        for connection in old:
            connection.close()


@contextmanager
def translated(address: Address) -> Iterator[None]:
    """Raise what goes wrong in an exchange as an error of CausCell."""
    try:
        yield
    except TimeoutError as error:
        raise make_timeout_error(address) from error
    except ssl.SSLCertVerificationError as error:
        raise make_untrusted_error(address, error.verify_message) from error
    except AnswerTooLargeError as error:
        raise make_strange_answer_error(address, "it is larger than what was asked for") from error
    except StrangeAnswerError as error:
        raise make_strange_answer_error(address, str(error)) from error
    except (RemoteDisconnected, IncompleteRead, EOFError) as error:
        raise ServerUnavailableError(f"{address} closed the connection before its answer was whole") from error
    except BadStatusLine as error:
        raise make_strange_answer_error(address, "it is no HTTP", str(error).strip("'").encode()) from error
    except (HTTPException, ValueError) as error:
        reason = show(str(error) or type(error).__name__)
        raise make_strange_answer_error(address, f"it is no HTTP: {reason}") from error
    except ssl.SSLError as error:
        if isinstance(error, ssl.SSLEOFError):
            raise ServerUnavailableError(f"{address} can't be reached: {error}") from error
        raise make_strange_answer_error(address, f"it is no TLS: {error.reason or error}") from error
    except OSError as error:
        raise ServerUnavailableError(f"{address} can't be reached: {error or type(error).__name__}") from error


def check_head(address: Address, response: HTTPResponse) -> None:
    """Check status and headers of an answer; raise what it means if it is no result."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise StrangeAnswerError(f"its content is encoded as {show(encoding)}, which was not asked for")
    if response.status == 200:
        return
    if 300 <= response.status < 400:
        place = response.headers.get("Location", "nowhere")
        raise EngineError(
            f"{address} sends requests on to {show(place)} (status {response.status}), which is not followed: they "
            "carry headers that may be secret; name the address that answers itself"
        )
    content = _read_some(response)
    raise _translate_refusal(address, response.status, response.reason, content)


def read_bounded(response: HTTPResponse, largest: int) -> bytes:
    """Read the content of an answer; raise `AnswerTooLargeError` if it has more than ``largest`` bytes."""
    if response.length is not None and response.length > largest:
        raise AnswerTooLargeError
    if response.length is not None:
        return response.read()
    parts, left = [], largest + 1
    while left and (part := response.read(min(left, 1 << 20))):
        parts.append(part)
        left -= len(part)
    if not left:
        raise AnswerTooLargeError
    return b"".join(parts)


def read_inference(
    address: Address, response: HTTPResponse, outputs: ArraySpecs, places: Mapping[str, Place]
) -> dict[str, np.ndarray]:
    """Read the arrays in the answer to an inference.

    Parameters
    ----------
    address
        Address of the server.
    response
        The answer, of status 200.
    outputs
        Dtype and shape (with the batch) of what was asked for.
    places
        Where outputs are that do not come with the answer.

    Raises
    ------
    EngineError
        It is no answer of Triton's to this request.
    """
    expected = sum(count_bytes(spec) for name, spec in outputs.items() if name not in places)
    content = read_bounded(response, LARGEST_HEADER + expected)
    stated = response.headers.get(_LENGTH_HEADER, str(len(content)))
    if not (stated.isascii() and stated.isdigit() and len(stated) < 20 and int(stated) <= len(content)):
        raise make_strange_answer_error(
            address, f"its {_LENGTH_HEADER} is {show(stated)}, and its content has {len(content)} bytes", content
        )
    start = int(stated)
    try:
        following = read_answer(content[:start], outputs, places)
        if len(content) - start != expected:
            raise StrangeAnswerError(f"{len(content) - start} bytes follow its JSON, and its arrays have {expected}")
        found = {}
        view = memoryview(content)
        for name in following:
            end = start + count_bytes(outputs[name])
            found[name] = array_of(view[start:end], outputs[name], name)
            start = end
        return found
    except StrangeAnswerError as error:
        raise make_strange_answer_error(address, str(error), content[: int(stated)]) from error


def as_bytes(array: np.ndarray) -> memoryview:
    """Return the bytes of an array, as Triton orders them; they are not copied if they are in that order."""
    ordered = np.ascontiguousarray(array, np.dtype(array.dtype).newbyteorder("<"))
    return memoryview(ordered.reshape(-1).view(np.uint8).data)


def _read_some(response: HTTPResponse) -> bytes:
    """Read the beginning of a refusal's content; what goes wrong with the rest of it does not matter."""
    try:
        return response.read(_LARGEST_REFUSAL)
    except (HTTPException, ValueError, ConnectionError, AnswerTooLargeError):
        return b""


def _translate_refusal(address: Address, status: int, reason: str, content: bytes) -> EngineError:
    """Make the error for an answer that is no result: Triton says why in JSON, others in their own ways."""
    try:
        stated = json.loads(content)
    except (ValueError, RecursionError):
        stated = None
    message = stated.get("error") if isinstance(stated, dict) else None
    if isinstance(message, str):
        return translate_failure(address, str(status), message)
    failure = translate_failure(address, str(status), f"{status} {reason}")
    if type(failure) is not EngineError or status in (401, 403, 407, 413):
        return failure
    return make_strange_answer_error(address, f"status {status}", content)
