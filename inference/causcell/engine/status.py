"""The result of `Engine.status`: plain mappings, ready for ``json.dumps``."""

from __future__ import annotations

from typing import NotRequired, TypedDict


class ModelStatus(TypedDict):
    """One model of a server: its state and how requests to it are batched.

    Attributes
    ----------
    name, version
        Name of the model (a graph of the repository, or the carrier of the reference cells) and its version.
    state, reason
        Triton's word for its state, such as ``READY``, and the reason where it has one.
    max_batch_size
        Rows that one request may have; 0 where the model has no batch axis.
    max_queue_delay_microseconds
        Time that a request may wait for others to be batched with.
    instances
        Copies of the model that run at once.
    """

    name: str
    version: NotRequired[str]
    state: NotRequired[str]
    reason: NotRequired[str]
    max_batch_size: int
    max_queue_delay_microseconds: int
    instances: int


class ModelStatistics(TypedDict):
    """Counts and mean times of one model since its server started.

    Attributes
    ----------
    requests, failed
        Requests that were answered, and that failed.
    executions, rows
        Evaluations of the graph (of one or more requests batched together), and rows evaluated.
    queue_ms, compute_ms
        Mean milliseconds that a request waited, and that it was computed.
    """

    requests: int
    failed: int
    executions: int
    rows: int
    queue_ms: float
    compute_ms: float


class EndpointStatus(TypedDict):
    """One place where an engine evaluates graphs: this process, or a server.

    Attributes
    ----------
    address
        Address of the server, ``grpc://host:8001``; in process the folder of the repository.
    ready
        True where graphs can be evaluated now. Only ready endpoints have what follows.
    runtime, version
        Name of the runtime (``ONNX Runtime`` or ``Triton``) and its version.
    provider, threads
        In process only: one of `causcell.engine.providers.PROVIDERS`, and the number of compute threads.
    models, statistics
        Served only: every model of the server; and what each did since the server started, by its name.
    """

    address: str
    ready: bool
    runtime: NotRequired[str]
    version: NotRequired[str]
    provider: NotRequired[str]
    threads: NotRequired[int]
    models: NotRequired[list[ModelStatus]]
    statistics: NotRequired[dict[str, ModelStatistics]]
