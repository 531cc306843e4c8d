"""Open the engine that a location asks for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from causcell.engine.protocol import Engine
from causcell.errors import ConfigurationError, RuntimeUnavailableError

if TYPE_CHECKING:
    from causcell.engine.triton.connection import Connection


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
        Folder of a model repository; or address of a server, see `causcell.engine.triton.engine.TritonEngine`.
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
            from causcell.engine.triton.engine import TritonEngine
        except ModuleNotFoundError as error:
            raise RuntimeUnavailableError(f"{location} needs {error.name}; install causcell[triton]") from error
        return TritonEngine(location, connection)
    from causcell.engine.onnx import OnnxEngine

    if connection is not None:
        raise ConfigurationError(f"location {location!r} is a folder; a connection is for servers: leave it out")
    return OnnxEngine(location, threads=threads, provider=provider or "cpu", spinning=spinning)
