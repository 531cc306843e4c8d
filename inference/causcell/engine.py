"""Engines evaluate the graphs of a model repository; nothing above them knows which one it has."""

from __future__ import annotations

import os
from typing import Protocol

import numpy as np

from causcell.errors import ConfigurationError
from causcell.manifest import Manifest
from causcell.reference import ReferenceCells


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
    """

    manifest: Manifest
    reference: ReferenceCells
    description: str

    def run(self, graph: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs of a graph, by name, each with the batch first. Raises `EngineError`."""
        ...

    def close(self) -> None:
        """Let go of what the engine holds."""
        ...


def open_engine(location: str | os.PathLike[str], *, threads: int | None = None, provider: str = "cpu") -> Engine:
    """The engine for a location: a path is opened by ONNX Runtime in this process.

    Parameters
    ----------
    location
        Folder of a model repository.
    threads
        Compute threads; the CPUs that this process may use, if not given.
    provider
        ``cpu`` or ``cuda``.
    """
    from causcell.onnx_engine import OnnxEngine

    if "://" in os.fspath(location):
        raise ConfigurationError(f"location {os.fspath(location)!r} is no path; models are opened from a folder")
    return OnnxEngine(location, threads=threads, provider=provider)
