"""Engines evaluate the graphs of a model repository; nothing above them knows which one it has."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from causcell.errors import ConfigurationError, EngineError, RuntimeUnavailableError, listed
from causcell.manifest import GraphInfo, Manifest
from causcell.reference import ReferenceCells

if TYPE_CHECKING:
    from causcell.triton.connection import Connection


class Engine(Protocol):
    """What evaluates graphs.

    Attributes
    ----------
    manifest
        Of the model.
    reference
        Reference cells that interventions draw from.
    description
        One line for provenance: the runtime, its version and where it runs.
    concurrency
        Evaluations that it gains from being asked for at once, from as many threads.
    """

    manifest: Manifest
    reference: ReferenceCells
    description: str
    concurrency: int

    def run(
        self, graph: str, inputs: dict[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Outputs of a graph (all, or those named), by name, each with the batch first. Raises `EngineError`."""
        ...

    def close(self) -> None:
        """Let go of what the engine holds."""
        ...


def is_address(location: str | os.PathLike[str]) -> bool:
    """Whether a location is that of a server, and not a folder."""
    return "://" in os.fspath(location)


def open_engine(
    location: str | os.PathLike[str],
    *,
    threads: int | None = None,
    provider: str | None = None,
    connection: Connection | None = None,
    spinning: bool = True,
) -> Engine:
    """The engine for a location: ONNX Runtime in this process for a path, Triton for an address.

    Parameters
    ----------
    location
        Folder of a model repository; or address of a server, see `causcell.triton.engine.TritonEngine`.
    threads
        Compute threads in this process; the CPUs that it may use, if not given.
    provider
        In this process: ``cpu`` (if not given) or ``cuda``.
    connection
        How to talk to a server.
    spinning
        In this process: whether threads that wait for work keep a CPU busy, which is faster unless others need it.

    Raises
    ------
    ConfigurationError
        An option that belongs to the other engine.
    """
    location = os.fspath(location)
    if is_address(location):
        if threads is not None or provider is not None:
            raise ConfigurationError(
                f"threads and provider are chosen where {location} is served, not by its client; leave them out"
            )
        try:
            from causcell.triton.engine import TritonEngine
        except ModuleNotFoundError as error:
            raise RuntimeUnavailableError(f"{location} needs {error.name}; install causcell[triton]") from error
        return TritonEngine(location, connection)
    from causcell.onnx_engine import OnnxEngine

    if connection is not None:
        raise ConfigurationError(f"location {location!r} is a folder; a connection is for servers: leave it out")
    return OnnxEngine(location, threads=threads, provider=provider or "cpu", spinning=spinning)


def checked_graph(manifest: Manifest, graph: str, inputs: dict[str, np.ndarray]) -> GraphInfo:
    """A graph's inputs and outputs; raises `EngineError` unless there is one, and the arrays are its, of one batch."""
    if graph not in manifest.graphs:
        raise EngineError(f"there is no graph {graph!r}; this model has {listed(manifest.graphs)}")
    info = manifest.graphs[graph]
    if set(inputs) != set(info.inputs):
        raise EngineError(f"graph {graph!r} takes {listed(info.inputs)}, and was given {listed(inputs)}")
    batch = {len(array) for array in inputs.values()}
    if len(batch) != 1:
        raise EngineError(f"the inputs of graph {graph!r} are of different batch sizes: {sorted(batch)}")
    for name, tensor in info.inputs.items():
        array = inputs[name]
        fits = array.ndim == len(tensor.shape) + 1 and all(
            size in (-1, found) for size, found in zip(tensor.shape, array.shape[1:], strict=True)
        )
        if array.dtype != tensor.dtype or not fits:
            raise EngineError(
                f"input {name!r} of graph {graph!r} is {array.dtype} {list(array.shape)}; it takes {tensor.dtype} "
                f"[{', '.join(['batch', *('any' if size < 0 else str(size) for size in tensor.shape)])}]"
            )
    return info
