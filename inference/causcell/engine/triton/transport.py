"""Requests to one server, over gRPC or HTTP: tritonclient's clients, and its many ways to fail as CausCell's errors."""

from __future__ import annotations

import importlib
import logging
import os
import socket
import ssl
import threading
from types import ModuleType
from typing import Any

from causcell.engine.triton.connection import Address, Connection
from causcell.engine.triton.failures import (
    http_parse_error,
    make_timeout_error,
    make_untrusted_error,
    translate_failure,
)
from causcell.errors import RuntimeUnavailableError, ServerUnavailableError

_log = logging.getLogger(__name__)


class Transport:
    """Call tritonclient's methods on one server. Safe to use from several threads.

    Parameters
    ----------
    address
        Address of the server.
    connection
        Deadline, headers and certificates.

    Attributes
    ----------
    module
        ``tritonclient.grpc`` or ``tritonclient.http``.

    Raises
    ------
    RuntimeUnavailableError
        tritonclient is not installed.
    """

    def __init__(self, address: Address, connection: Connection) -> None:
        self.address = address
        self.module = _client_module(address)
        self._connection = connection
        self._own = threading.local()
        self._opened: list[Any] = []
        self._shared_client = self._new_client() if address.is_grpc else None

    def call(self, method: str, *arguments: Any, deadline: float | None = None, **options: Any) -> Any:
        """Call a method of tritonclient's ``InferenceServerClient``.

        Parameters
        ----------
        method, arguments, options
            Name of the method and what it is given; headers are added.
        deadline
            Seconds (gRPC only); the connection's, if not given.

        Raises
        ------
        ServerUnavailableError, DeadlineExceededError
            No answer; worth another try.
        EngineError
            The server refused the request, failed at it, or is not trusted.
        """
        from tritonclient.utils import InferenceServerException

        if self.address.is_grpc:
            options["client_timeout"] = deadline or self._connection.deadline
        try:
            return getattr(self._client(), method)(*arguments, headers=dict(self._connection.headers), **options)
        except InferenceServerException as error:
            failure = translate_failure(self.address, str(error.status()), error.message() or repr(error))
            if self.address.scheme == "grpcs" and isinstance(failure, ServerUnavailableError):
                self._check_certificate()
            raise failure from error
        except TimeoutError as error:
            self._forget_client()
            raise make_timeout_error(self.address) from error
        except ssl.SSLCertVerificationError as error:
            raise make_untrusted_error(self.address, error.verify_message) from error
        except (OSError, EOFError, http_parse_error()) as error:
            self._forget_client()
            raise ServerUnavailableError(f"{self.address} can't be reached: {error or type(error).__name__}") from error

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method whose answer is a message, and return it as JSON would hold it; see `call`."""
        options = {"as_json": True} if self.address.is_grpc else {}
        return self.call(method, *arguments, **options)

    def close(self) -> None:
        """Close the connections of all threads."""
        for client in self._opened:
            client.close()
        self._opened.clear()

    def _client(self) -> Any:
        """Return the client of this thread; gRPC has one for all threads, HTTP one for each."""
        if self._shared_client is not None:
            return self._shared_client
        if getattr(self._own, "client", None) is None:
            self._own.client = self._new_client()
        return self._own.client

    def _forget_client(self) -> None:
        """Drop this thread's HTTP client: after a failure it may be in the middle of an answer."""
        client = getattr(self._own, "client", None)
        if client is not None:
            self._own.client = None
            client.close()

    def _new_client(self) -> Any:
        certificates = self._connection.certificates or ssl.get_default_verify_paths().cafile
        trusted = os.fspath(certificates) if self.address.is_secure and certificates else None
        if self.address.is_grpc:
            options: dict[str, Any] = {
                "root_certificates": trusted,
                # a server that comes back is found within a second; messages are as large as batches are
                "channel_args": [
                    ("grpc.max_reconnect_backoff_ms", 1000),
                    ("grpc.max_send_message_length", -1),
                    ("grpc.max_receive_message_length", -1),
                ],
            }
        else:
            deadline = self._connection.deadline
            options = {"connection_timeout": deadline, "network_timeout": deadline}
            if self.address.is_secure:
                options["ssl_context_factory"] = lambda: _secure_context(trusted)
        client = self.module.InferenceServerClient(self.address.netloc, ssl=self.address.is_secure, **options)
        self._opened.append(client)
        return client

    def _check_certificate(self) -> None:
        """Raise `EngineError` if the certificate is not trusted, which gRPC reports like a server that is away."""
        context = ssl.create_default_context(cafile=self._connection.certificates)
        place = (self.address.host, self.address.port)
        try:
            with socket.create_connection(place, min(5.0, self._connection.deadline)) as plain:
                context.wrap_socket(plain, server_hostname=self.address.host).close()
        except ssl.SSLCertVerificationError as error:
            raise make_untrusted_error(self.address, error.verify_message) from error
        except OSError as error:
            _log.debug("%s: %s", self.address, error)


def _client_module(address: Address) -> ModuleType:
    try:
        return importlib.import_module("tritonclient.grpc" if address.is_grpc else "tritonclient.http")
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"tritonclient can't be imported ({error}); install causcell[triton] for {address}"
        ) from error


def _secure_context(certificates: str | None) -> Any:
    from gevent.ssl import create_default_context

    return create_default_context(cafile=certificates)
