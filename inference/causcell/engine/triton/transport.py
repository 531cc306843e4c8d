"""Requests to one server, whatever the protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

import numpy as np

from causcell.engine.triton.connection import Address, Connection
from causcell.engine.triton.messages import Shape
from causcell.engine.triton.tensors import ArraySpecs, Place

T = TypeVar("T")


class Transport(Protocol):
    """Send requests to one server. Safe to use from several threads.

    Every method raises `ServerUnavailableError` or `DeadlineExceededError` where there is no answer (another try may
    succeed), and `EngineError` where the server refuses, fails, is not trusted, or gives an answer that is none of
    Triton's. None takes longer than the connection's deadline, and none holds more of an answer than was expected.

    Attributes
    ----------
    address
        Address of the server.
    """

    address: Address

    def is_ready(self) -> bool:
        """Tell if the server says that it and all its models are ready."""
        ...

    def metadata(self, shape: Shape[T]) -> T:
        """Ask what the server is."""
        ...

    def index(self, shape: Shape[T]) -> T:
        """Ask for all models and their states."""
        ...

    def config(self, shape: Shape[T], model: str) -> T:
        """Ask for the configuration of a model."""
        ...

    def statistics(self, shape: Shape[T]) -> T:
        """Ask what all models did."""
        ...

    def regions(self, shape: Shape[T]) -> T:
        """Ask which regions of system shared memory the server maps."""
        ...

    def register_region(self, name: str, key: str, size: int) -> None:
        """Ask the server to map ``size`` bytes of the file ``key`` as a region."""
        ...

    def unregister_region(self, name: str, deadline: float | None = None) -> None:
        """Ask the server to forget a region, within ``deadline`` seconds if that is less than the connection's."""
        ...

    def infer(
        self, model: str, inputs: Mapping[str, np.ndarray], outputs: ArraySpecs, places: Mapping[str, Place]
    ) -> dict[str, np.ndarray]:
        """Evaluate a model; arrays with a place are not sent, and outputs with a place are not returned."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


def open_transport(address: Address, connection: Connection) -> Transport:
    """Return the transport for an address; no request is sent yet.

    Raises
    ------
    RuntimeUnavailableError
        A package for the protocol is not installed.
    """
    if address.is_grpc:
        from causcell.engine.triton.grpc_transport import GrpcTransport

        return GrpcTransport(address, connection)
    from causcell.engine.triton.http_transport import HttpTransport

    return HttpTransport(address, connection)
