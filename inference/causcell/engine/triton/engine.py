"""The engine over Triton servers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from causcell.engine.outputs import check_answer
from causcell.engine.protocol import check_request
from causcell.engine.status import EndpointStatus, ModelStatistics
from causcell.engine.triton.client import TritonClient
from causcell.engine.triton.connection import Connection, parse_location
from causcell.engine.triton.endpoints import Endpoints
from causcell.engine.triton.retries import retry_transient
from causcell.engine.triton.served_model import load_reference_cells, read_reference_bytes, read_served_model
from causcell.errors import EngineError

T = TypeVar("T")

_OPENING_PATIENCE = 5.0  # seconds


class TritonEngine:
    """Evaluate a model's graphs on Triton servers; see `causcell.engine.protocol.Engine`.

    Nothing but the address is needed: the manifest and the reference cells come from the server, checked by their
    digests, and every graph's configuration must name the file that the manifest does.

    Parameters
    ----------
    location
        ``grpc://host:8001``, ``http://host:8000``, with TLS ``grpcs://`` and ``https://``; several, of servers that
        serve the same model, are joined by commas.
    connection
        Deadlines, retries, headers.

    Raises
    ------
    ConfigurationError
        The location is no address.
    ServerUnavailableError
        No server answers.
    ModelRepositoryError
        The server serves no model of CausCell's, parts of different exports, or a newer version's.
    RuntimeUnavailableError
        tritonclient is not installed.
    """

    threads: int | None = None
    _closed = False

    def __init__(self, location: str, connection: Connection | None = None) -> None:
        self.connection = connection or Connection()
        self.location = location
        servers = [TritonClient(address, self.connection) for address in parse_location(location)]
        self._endpoints = Endpoints(servers)
        self._in_flight = threading.Semaphore(self.connection.in_flight)
        self.concurrency = self.connection.in_flight
        self.at_hand = False
        try:
            model = read_served_model(servers, min(_OPENING_PATIENCE, self.connection.patience))
            self.manifest, self._largest_batch = model.manifest, model.largest_batch
            self.reference = load_reference_cells(self._patiently(read_reference_bytes), self.manifest, location)
            self.description = f"Triton {self._patiently(TritonClient.version)} at {location}"
        except BaseException:
            self.close()
            raise

    def run(
        self, graph: str, inputs: dict[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Evaluate a graph; see `causcell.engine.protocol.Engine.run`.

        Raises
        ------
        ServerUnavailableError, DeadlineExceededError
            No server answered for as long as the connection's patience.
        EngineError
            The inputs are not the graph's, or more rows than a server takes at once; or a server refused, failed,
            or answered what the manifest does not state.
        """
        if self._closed:
            raise EngineError(f"the engine of {self.location} is closed; open the model again")
        info = check_request(self.manifest, graph, inputs, outputs)
        batch = len(next(iter(inputs.values())))
        if batch > self._largest_batch[graph]:
            raise EngineError(
                f"graph {graph!r} was given {batch} rows; {self.location} takes {self._largest_batch[graph]} at once: "
                "take a smaller batch_size="
            )
        names = list(info.outputs) if outputs is None else outputs
        wanted = {name: (info.outputs[name].dtype, (batch, *info.outputs[name].shape)) for name in names}

        def infer(server: TritonClient) -> dict[str, np.ndarray]:
            answer = server.infer(graph, inputs, wanted)
            origin, genes = str(server.address), self.manifest.genes.names
            return check_answer(graph, info, names, batch, answer, origin=origin, genes=genes)

        with self._in_flight:
            return self._patiently(infer)

    def statistics(self) -> dict[str, dict[str, ModelStatistics]]:
        """Return Triton's own counts and mean times of each model, by address of the server; ready servers only."""
        return {str(server.address): server.statistics() for server in self._endpoints if server.is_ready()}

    def status(self) -> list[EndpointStatus]:
        """Describe each server: readiness, version, models and what they did; see `EndpointStatus`."""
        return [server.status() for server in self._endpoints]

    def close(self) -> None:
        """Release connections and shared memory; `run` then raises `EngineError`."""
        self._closed = True
        for server in self._endpoints:
            server.close()

    def _patiently(self, call: Callable[[TritonClient], T]) -> T:
        """Call with one server after another while failures are transient, without a pause while one is healthy."""
        return retry_transient(
            lambda: self._endpoints.use(call), self.connection.patience, skip_pause=self._endpoints.is_any_healthy
        )
