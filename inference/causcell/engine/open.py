"""Open the engine that a location asks for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from causcell.engine.protocol import Engine
from causcell.errors import ConfigurationError, RuntimeUnavailableError
from causcell.repository.hub import is_hub_name

if TYPE_CHECKING:
    from causcell.engine.triton.connection import Connection


def is_address(location: str | os.PathLike[str]) -> bool:
    """Tell the address of a server from the path of a folder and from the name of a model on a hub.

    Examples
    --------
    >>> is_address("grpc://localhost:8001"), is_address("model_repository"), is_address("hf://lab/kang")
    (True, False, False)
    """
    return "://" in os.fspath(location) and not is_hub_name(location)


def open_engine(
    location: str | os.PathLike[str],
    *,
    threads: int | None = None,
    provider: str | None = None,
    connection: Connection | None = None,
    spinning: bool = False,
) -> Engine:
    """Open the engine for a location: ONNX Runtime in this process for a repository, Triton for an address.

    Parameters
    ----------
    location
        Folder of a model repository, or its name on a hub, ``hf://OWNER/NAME[@REVISION]``; or address of a server, see
        `causcell.engine.triton.engine.TritonEngine`.
    threads
        In process: number of compute threads; the CPUs that this process may use, if not given.
    provider
        In process: one of `causcell.engine.providers.PROVIDERS`, ``cpu`` (if not given) or ``cuda``.
    connection
        Served: deadlines, retries and headers of requests.
    spinning
        In process: let threads that wait for work keep a CPU busy; a little faster where nothing else needs the CPU.

    Raises
    ------
    ConfigurationError
        An option has a value that is not allowed, or belongs to the other kind of engine.
    RuntimeUnavailableError
        ONNX Runtime, the provider or tritonclient is not there, or did not load.
    ModelRepositoryError
        The model repository can't be used.
    HubError
        A hub does not have the model, does not give it, or can't be reached.
    ServerUnavailableError
        No server answers.

    Examples
    --------
    >>> import numpy as np
    >>> engine = open_engine("model_repository", threads=1)
    >>> expression = np.zeros((2, engine.manifest.dimensions.genes), dtype=np.float32)
    >>> engine.run("encoder_scm", {"expression": expression}, ["endogenous"])["endogenous"].shape
    (2, 3, 32)
    >>> engine.close()
    """
    location = os.fspath(location)
    if is_address(location):
        _refuse_local_options(location, threads=threads, provider=provider)
        try:
            from causcell.engine.triton.engine import TritonEngine
        except ModuleNotFoundError as error:
            raise RuntimeUnavailableError(f"{location} needs {error.name}; install causcell[triton]") from error
        return TritonEngine(location, connection)
    from causcell.engine.onnx import OnnxEngine

    if connection is not None:
        kind = "a model on a hub" if is_hub_name(location) else "a folder"
        raise ConfigurationError(f"location {location!r} is {kind}; a connection is for servers: leave it out")
    return OnnxEngine(location, threads=threads, provider=provider or "cpu", spinning=spinning)


def _refuse_local_options(location: str, **options: object) -> None:
    for name, value in options.items():
        if value is not None:
            raise ConfigurationError(
                f"{name} is {value!r}, but is chosen where {location} is served, not by its client; leave it out"
            )
