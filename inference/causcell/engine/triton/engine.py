"""Graphs evaluated by Triton servers."""

from __future__ import annotations

import hashlib
import io
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from causcell.engine.protocol import checked_graph
from causcell.engine.triton.client import TritonClient
from causcell.engine.triton.connection import Connection, parse_location
from causcell.engine.triton.endpoints import TRANSIENT, Endpoints
from causcell.errors import (
    CorruptFileError,
    DigestError,
    EngineError,
    format_list,
)
from causcell.repository.manifest import REFERENCE_FILE, Manifest
from causcell.repository.reference_cells import ReferenceCells
from causcell.repository.served import (
    DIGEST_PARAMETER,
    MANIFEST_PARAMETER,
    REFERENCE_BYTES_PARAMETER,
    REFERENCE_GRAPH,
    REFERENCE_MODEL,
)

_log = logging.getLogger(__name__)


T = TypeVar("T")


_OPENING_PATIENCE = 5.0


class TritonEngine:
    """A model's graphs on Triton servers. See `causcell.engine.protocol.Engine`.

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
    ServerUnavailableError
        No server answers.
    ModelRepositoryError
        The server serves no model of CausCell's, parts of different exports, or a newer version's.
    RuntimeUnavailableError
        tritonclient is not installed.
    """

    def __init__(self, location: str, connection: Connection | None = None) -> None:
        self.connection = connection or Connection()
        self.location = location
        servers = [TritonClient(address, self.connection) for address in parse_location(location)]
        self._endpoints = Endpoints(servers)
        self._in_flight = threading.Semaphore(self.connection.in_flight)
        self.concurrency = self.connection.in_flight
        try:
            self.manifest, self._largest_batch = self._read_manifests(servers)
            self.reference = self._read_reference()
            self.description = f"Triton {self._patiently(lambda server: server.version())} at {location}"
        except BaseException:
            self.close()
            raise

    def run(
        self, graph: str, inputs: dict[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Outputs of a graph, by name. Raises `EngineError`, `ServerUnavailableError`, `DeadlineExceededError`."""
        info = checked_graph(self.manifest, graph, inputs)
        batch = len(next(iter(inputs.values())))
        if batch > self._largest_batch[graph]:
            raise EngineError(
                f"graph {graph!r} was given {batch} rows; {self.location} takes {self._largest_batch[graph]} at once: "
                "take a smaller batch size"
            )
        names = list(info.outputs) if outputs is None else outputs
        wanted = {name: (info.outputs[name].dtype, (batch, *info.outputs[name].shape)) for name in names}
        with self._in_flight:
            return self._patiently(lambda server: server.infer(graph, inputs, wanted))

    def statistics(self) -> dict[str, dict[str, dict[str, float]]]:
        """Triton's own counts and times of each model, by server."""
        return {str(server.address): server.statistics() for server in self._endpoints if server.is_ready()}

    def status(self) -> list[dict[str, Any]]:
        """Of each server: address, readiness, version, and its models with their versions and batching."""
        found = []
        for server in self._endpoints:
            ready = server.is_ready()
            status: dict[str, Any] = {"address": str(server.address), "ready": ready}
            if ready:
                models = [model | _batching(server.config(model["name"])) for model in server.models()]
                status |= {"version": server.version(), "models": models}
            found.append(status)
        return found

    def close(self) -> None:
        """Let go of connections and shared memory."""
        for server in self._endpoints:
            server.close()

    def _patiently(self, call: Callable[[TritonClient], T], patience: float | None = None) -> T:
        wait = wait_random_exponential(multiplier=0.1, max=2.0)

        def pause(state: RetryCallState) -> float:
            return 0.0 if self._endpoints.healthy else wait(state)

        attempts = Retrying(
            retry=retry_if_exception_type(TRANSIENT),
            stop=stop_after_delay(self.connection.patience if patience is None else patience),
            wait=pause,
            reraise=True,
        )
        return attempts(self._endpoints.use, call)

    # -- what the server tells ---------------------------------------------------------------------------------------

    def _read_manifests(self, servers: Sequence[TritonClient]) -> tuple[Manifest, dict[str, int]]:
        """The manifest that all servers that answer agree upon, and the largest batch of each graph."""
        found: dict[str, tuple[Manifest, dict[str, int]]] = {}
        unavailable: list[Exception] = []
        patience = min(_OPENING_PATIENCE, self.connection.patience)
        attempts = Retrying(
            retry=retry_if_exception_type(TRANSIENT),
            stop=stop_after_delay(patience),
            wait=wait_random_exponential(multiplier=0.1, max=1.0),
            reraise=True,
        )
        for server in servers:
            try:
                found[str(server.address)] = attempts(_read_model, server)
            except TRANSIENT as error:
                unavailable.append(error)
                _log.warning("%s", error)
        if not found:
            raise unavailable[0]
        first, (manifest, largest) = next(iter(found.items()))
        for address, (other, batches) in found.items():
            if other.digest != manifest.digest:
                raise DigestError(
                    f"{first} serves model {manifest.digest[:12]}, {address} serves {other.digest[:12]}; servers of "
                    "one location must serve the same model"
                )
            largest = {graph: min(largest[graph], batches[graph]) for graph in largest}
        return manifest, largest

    def _read_reference(self) -> ReferenceCells:
        def read(server: TritonClient) -> bytes:
            config = server.config(REFERENCE_MODEL)
            size = int(_parameter(config, REFERENCE_BYTES_PARAMETER))
            dtype, shape = REFERENCE_GRAPH.outputs["bytes"].dtype, REFERENCE_GRAPH.outputs["bytes"].shape
            chunks = np.arange(-(-size // shape[1]))[:, None]
            rows = int(config["max_batch_size"])
            parts = [
                server.infer(
                    REFERENCE_MODEL,
                    {"chunk": chunks[start : start + rows]},
                    {"bytes": (dtype, (len(chunks[start : start + rows]), *shape))},
                )["bytes"]
                for start in range(0, len(chunks), rows)
            ]
            return np.concatenate(parts).tobytes()[:size]

        content = self._patiently(read)
        if hashlib.sha256(content).hexdigest() != self.manifest.files[REFERENCE_FILE]:
            raise DigestError(
                f"the reference cells that {self.location} serves are not those of its manifest; serve one export's "
                "repository, whole"
            )
        return ReferenceCells.load(io.BytesIO(content))


def _read_model(server: TritonClient) -> tuple[Manifest, dict[str, int]]:
    """The manifest of a server, and the largest batch of each graph, whose files are checked to be the manifest's."""
    served = {model["name"] for model in server.models()}
    carrier = _config(server, REFERENCE_MODEL, served)
    manifest = Manifest.from_json(_parameter(carrier, MANIFEST_PARAMETER), str(server.address))
    largest = {}
    for graph in manifest.graphs:
        config = _config(server, graph, served)
        if _parameter(config, DIGEST_PARAMETER) != manifest.files[f"{graph}/1/model.onnx"]:
            raise DigestError(
                f"{server.address} serves {graph!r} of another export than its manifest's; serve one export's "
                "repository, whole"
            )
        largest[graph] = max(int(config.get("max_batch_size", 0)), 1)
    return manifest, largest


def _config(server: TritonClient, model: str, served: set[str]) -> dict[str, Any]:
    """Configuration of a model that must be there."""
    if model not in served:
        raise CorruptFileError(
            f"{server.address} serves no model {model!r}, but {format_list(sorted(served))}; serve the whole "
            f"repository "
            "that causcell export wrote"
        )
    return server.config(model)


def _parameter(config: dict[str, Any], name: str) -> str:
    try:
        return str(config["parameters"][name]["string_value"])
    except KeyError as error:
        raise CorruptFileError(
            f"model {config.get('name')!r} has no parameter {name!r} in its configuration; serve the repository that "
            "causcell export wrote, its config.pbtxt as written"
        ) from error


def _batching(config: dict[str, Any]) -> dict[str, Any]:
    batching = config.get("dynamic_batching", {})
    return {
        "max_batch_size": int(config.get("max_batch_size", 0)),
        "max_queue_delay_microseconds": int(batching.get("max_queue_delay_microseconds", 0)),
        "instances": sum(int(group.get("count", 1)) for group in config.get("instance_group", [])),
    }
