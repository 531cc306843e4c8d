"""One HTTP connection whose exchanges end by a deadline, and read no more than was expected."""

from __future__ import annotations

import io
import socket
import ssl
import time
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPResponse
from typing import Any

from causcell.engine.triton.connection import Address

_SLICE = 1 << 18  # bytes that are written at once: the deadline is looked at between


class AnswerTooLargeError(Exception):
    """An answer goes on after more bytes than were expected."""


class BoundedConnection(HTTPConnection):
    """`http.client.HTTPConnection` with a total deadline and a bound on what is read.

    A socket's own timeout starts again with every byte. Here connecting, sending and receiving share one deadline:
    `start` begins it.

    Parameters
    ----------
    address
        Address of the server.
    context
        TLS settings; `None` for plain HTTP.
    """

    sock: Any  # a `BoundedSocket`, or `None`

    def __init__(self, address: Address, context: ssl.SSLContext | None) -> None:
        super().__init__(address.host, address.port)
        self._context = context
        self._end, self._largest = 0.0, 0
        self.idle_since = 0.0

    def start(self, deadline: float, largest: int) -> None:
        """Begin an exchange: it ends ``deadline`` seconds from now, and reads at most ``largest`` bytes."""
        self._end = time.monotonic() + deadline
        if self.sock is not None:
            self.sock.start(self._end, largest)
        self._largest = largest

    def connect(self) -> None:
        """Connect to the first of the host's addresses that answers."""
        failure: OSError | None = None
        try:
            places = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except UnicodeError as error:  # of a name that no host can have
            raise OSError(str(error)) from error
        for family, kind, protocol, _, place in places:
            plain = socket.socket(family, kind, protocol)
            try:
                plain.settimeout(remaining(self._end))
                plain.connect(place)
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._context is not None:
                    plain.settimeout(remaining(self._end))
                    plain = self._context.wrap_socket(plain, server_hostname=self.host)
            except ssl.SSLError:
                plain.close()
                raise
            except OSError as error:
                plain.close()
                failure = error
            except BaseException:
                plain.close()
                raise
            else:
                self.sock = BoundedSocket(plain)
                self.sock.start(self._end, self._largest)
                return
        raise failure or OSError("the host has no address")

    def exchange(self, method: str, path: str, headers: dict[str, str], body: Sequence[memoryview]) -> HTTPResponse:
        """Send a request, and return the answer after its headers were read.

        A server that refuses a request may answer, and close, before it read all.
        """
        headers = {**headers, "Content-Length": str(sum(each.nbytes for each in body))} if body else headers
        try:
            self.request(method, path, body=body or None, headers=headers)
        except (BrokenPipeError, ConnectionResetError) as error:
            try:
                return self.getresponse()
            except ConnectionError:
                raise error from None
        return self.getresponse()


class BoundedSocket:
    """A socket as `http.client` uses it, with a deadline and a bound for all that happens until the next `start`."""

    def __init__(self, plain: socket.socket) -> None:
        self._plain = plain
        self._end = 0.0
        self._left = 0
        self._streams, self._closing = 0, False

    def start(self, end: float, largest: int) -> None:
        """Set the deadline (`time.monotonic`) and the bytes that may be received."""
        self._end, self._left = end, largest

    def sendall(self, content: bytes | memoryview) -> None:
        """Send all by the deadline."""
        left = memoryview(content)
        while left:
            self._plain.settimeout(remaining(self._end))
            left = left[self._plain.send(left[:_SLICE]) :]

    def receive_into(self, buffer: memoryview) -> int:
        """Receive some bytes; 0 at the end of the stream."""
        if self._left <= 0:
            raise AnswerTooLargeError
        self._plain.settimeout(remaining(self._end))
        count = self._plain.recv_into(buffer[: self._left])
        self._left -= count
        return count

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return a stream of what is received; the socket stays open until it is closed."""
        self._streams += 1
        return io.BufferedReader(_Stream(self), 1 << 16)

    def close(self) -> None:
        """Close the socket, as soon as no stream needs it."""
        self._closing = True
        self._close_unused()

    def release(self) -> None:
        """Tell that a stream was closed."""
        self._streams -= 1
        self._close_unused()

    def _close_unused(self) -> None:
        if self._closing and not self._streams:
            self._plain.close()


class _Stream(io.RawIOBase):
    def __init__(self, received: BoundedSocket) -> None:
        self._received = received

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        return self._received.receive_into(memoryview(buffer).cast("B"))  # type: ignore[arg-type]

    def close(self) -> None:
        if not self.closed:
            self._received.release()
        super().close()


def remaining(end: float) -> float:
    """Return the seconds until ``end`` (`time.monotonic`); raise `TimeoutError` if there are none."""
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
