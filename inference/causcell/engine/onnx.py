"""Graphs evaluated in this process by ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import metadata
from types import ModuleType
from typing import Any

import numpy as np

from causcell.engine.protocol import checked_graph
from causcell.errors import (
    ConfigurationError,
    CorruptFileError,
    DigestError,
    EngineError,
    RuntimeUnavailableError,
    format_list,
)
from causcell.repository.folder import open_repository

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxEngine:
    """A model repository's graphs in this process. See `causcell.engine.protocol.Engine`.

    Parameters
    ----------
    path
        Folder of the repository; its digests are verified.
    threads
        Compute threads of each graph; the CPUs that this process may use, if not given. (ONNX Runtime ignores
        ``OMP_NUM_THREADS``.)
    provider
        ``cpu`` or ``cuda``; an error if it does not load.
    spinning
        Whether threads that wait for work keep a CPU busy: not where several workers share a machine.

    Raises
    ------
    RuntimeUnavailableError
        ONNX Runtime is not installed, installed twice, or lacks the provider.
    ModelRepositoryError
        The repository can't be used.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        threads: int | None = None,
        provider: str = "cpu",
        spinning: bool = True,
    ) -> None:
        if provider not in _PROVIDERS:
            raise ConfigurationError(f"provider {provider!r} is not known; known are {format_list(_PROVIDERS)}")
        if threads is not None and threads < 1:
            raise ConfigurationError(f"threads is {threads}; take at least 1")
        self._runtime = _load_runtime()
        self._provider = _PROVIDERS[provider]
        if self._provider not in self._runtime.get_available_providers():
            raise RuntimeUnavailableError(
                f"ONNX Runtime here has no {self._provider}; it has "
                f"{format_list(self._runtime.get_available_providers())}: install causcell[gpu] in place of "
                f"causcell[cpu]"
            )
        self._repository = open_repository(path)
        self._options = self._runtime.SessionOptions()
        self.threads = threads or len(os.sched_getaffinity(0))
        self._options.intra_op_num_threads = self.threads
        self._options.inter_op_num_threads = 1
        self._options.log_severity_level = 3
        if not spinning:
            self._options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._sessions: dict[str, Any] = {}
        self.manifest = self._repository.manifest
        self.reference = self._repository.reference
        self.description = f"ONNX Runtime {self._runtime.__version__}, {self._provider}, {self.threads} threads"

    concurrency = 1

    def run(
        self, graph: str, inputs: dict[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Outputs of a graph, by name. Raises `EngineError` for inputs that are not the graph's."""
        info = checked_graph(self.manifest, graph, inputs)
        names = list(info.outputs if outputs is None else outputs)
        try:
            return dict(zip(names, self._session(graph).run(names, inputs), strict=True))
        except _runtime_errors(self._runtime) as error:
            raise EngineError(f"graph {graph!r} failed: {error}") from error

    def close(self) -> None:
        """Let go of the sessions."""
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
    installed = [name for name in ("onnxruntime", "onnxruntime-gpu") if _is_installed(name)]
    if len(installed) == 2:
        raise RuntimeUnavailableError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other; uninstall both, then install "
            "one: causcell[cpu] or causcell[gpu]"
        )
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"ONNX Runtime can't be imported ({error}); install causcell[cpu] or causcell[gpu]"
        ) from error
    return onnxruntime


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _runtime_errors(runtime: ModuleType) -> tuple[type[Exception], ...]:
    """The exceptions that ONNX Runtime raises; they share no base of their own."""
    state = runtime.capi.onnxruntime_pybind11_state
    return tuple(
        kind
        for name in ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile", "RuntimeException")
        if (kind := getattr(state, name, None)) is not None
    )
