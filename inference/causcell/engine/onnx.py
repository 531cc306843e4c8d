"""The engine in this process: graphs evaluated by ONNX Runtime."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from causcell._internal.cpus import available_cpus
from causcell._internal.versions import installed_versions
from causcell.engine.protocol import check_request
from causcell.engine.providers import EXECUTION_PROVIDERS, check_provider
from causcell.engine.status import EndpointStatus
from causcell.errors import (
    ConfigurationError,
    CorruptFileError,
    DigestError,
    EngineError,
    RuntimeUnavailableError,
    format_list,
)
from causcell.repository.folder import open_repository


class OnnxEngine:
    """Evaluate a model repository's graphs in this process; see `causcell.engine.protocol.Engine`.

    Parameters
    ----------
    path
        Folder of the repository; its digests are verified.
    threads
        Number of compute threads of each graph; the CPUs that this process may use, if not given. (ONNX Runtime
        ignores ``OMP_NUM_THREADS``.)
    provider
        One of `causcell.engine.providers.PROVIDERS`: ``cpu`` or ``cuda``.
    spinning
        Let threads that wait for work keep a CPU busy; turn it off where several workers share a machine.

    Raises
    ------
    ConfigurationError
        There is no such provider, or ``threads`` is below 1.
    RuntimeUnavailableError
        ONNX Runtime is not installed, installed twice, or lacks the provider. `run` raises it too: for a provider that
        ONNX Runtime has and could not load.
    ModelRepositoryError
        The repository can't be used.

    Examples
    --------
    >>> engine = OnnxEngine("model_repository", threads=1)
    >>> list(engine.manifest.graphs)
    ['encoder_scm', 'scm', 'denoiser', 'sampler', 'decoder']
    >>> [endpoint] = engine.status()
    >>> endpoint["runtime"], endpoint["provider"], endpoint["threads"]
    ('ONNX Runtime', 'cpu', 1)
    """

    concurrency = 1

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        threads: int | None = None,
        provider: str = "cpu",
        spinning: bool = True,
    ) -> None:
        self._provider = EXECUTION_PROVIDERS[check_provider(provider)]
        if threads is not None and threads < 1:
            raise ConfigurationError(f"threads is {threads}; take at least 1")
        self._runtime = _load_runtime()
        available = self._runtime.get_available_providers()
        if self._provider not in available:
            raise RuntimeUnavailableError(
                f"ONNX Runtime here has no {self._provider}; it has {format_list(available)}: install causcell[gpu] in "
                "place of causcell[cpu]"
            )
        self._repository = open_repository(path)
        self._options = self._runtime.SessionOptions()
        self.threads: int | None = threads or available_cpus()
        self._options.intra_op_num_threads = self.threads
        self._options.inter_op_num_threads = 1
        self._options.log_severity_level = 3
        if not spinning:
            self._options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._sessions: dict[str, Any] = {}
        self.manifest = self._repository.manifest
        self.reference = self._repository.reference
        self.description = f"ONNX Runtime {self._runtime.__version__}, {self._provider}, {self.threads} threads"
        self._status: EndpointStatus = {
            "address": os.fspath(path),
            "ready": True,
            "runtime": "ONNX Runtime",
            "version": self._runtime.__version__,
            "provider": provider,
            "threads": self.threads,
        }

    def run(
        self, graph: str, inputs: dict[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Evaluate a graph; see `causcell.engine.protocol.Engine.run`."""
        info = check_request(self.manifest, graph, inputs, outputs)
        names = list(info.outputs if outputs is None else outputs)
        try:
            return dict(zip(names, self._session(graph).run(names, inputs), strict=True))
        except _runtime_errors(self._runtime) as error:
            raise EngineError(f"graph {graph!r} failed: {error}") from error

    def status(self) -> list[EndpointStatus]:
        """Describe this process: runtime, version, provider and threads."""
        return [self._status.copy()]

    def close(self) -> None:
        """Release the sessions."""
        self._sessions.clear()

    def _session(self, graph: str) -> Any:
        if graph not in self._sessions:
            path = self._repository.graph_path(graph)
            try:
                session = self._runtime.InferenceSession(str(path), self._options, providers=[self._provider])
            except _runtime_errors(self._runtime) as error:
                raise CorruptFileError(f"{path} can't be loaded by ONNX Runtime: {error}; export again") from error
            if self._provider not in session.get_providers():
                raise RuntimeUnavailableError(
                    f"{self._provider} was asked for, but did not load for {graph!r}: its libraries are missing or do "
                    "not fit the driver"
                )
            stamp = session.get_modelmeta().custom_metadata_map
            if stamp.get("causcell.gene_digest") != self.manifest.genes.digest:
                raise DigestError(f"{path} was exported for another gene panel than the manifest's; export again")
            self._sessions[graph] = session
        return self._sessions[graph]


def _load_runtime() -> ModuleType:
    if len(installed_versions("onnxruntime", "onnxruntime-gpu")) == 2:
        raise RuntimeUnavailableError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other; uninstall both, then install "
            "one: causcell[cpu] or causcell[gpu]"
        )
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"ONNX Runtime can't be imported ({error}); install causcell[cpu] or causcell[gpu]"
        ) from error


def _runtime_errors(runtime: ModuleType) -> tuple[type[Exception], ...]:
    """Return the exceptions that ONNX Runtime raises, which share no base class of their own."""
    state = runtime.capi.onnxruntime_pybind11_state
    return tuple(
        kind
        for name in ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile", "RuntimeException")
        if (kind := getattr(state, name, None)) is not None
    )
