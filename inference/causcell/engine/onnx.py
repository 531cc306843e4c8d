"""The engine in this process: graphs evaluated by ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from causcell._internal.cpus import available_cpus
from causcell._internal.numbers import MOST_THREADS, whole_number
from causcell.engine.outputs import check_answer
from causcell.engine.protocol import check_request
from causcell.engine.providers import session_provider
from causcell.engine.runtime import load_cuda_libraries, load_runtime
from causcell.engine.status import EndpointStatus
from causcell.errors import (
    CorruptFileError,
    DigestError,
    EngineError,
    RuntimeUnavailableError,
    format_list,
)
from causcell.repository.folder import open_repository
from causcell.repository.manifest import TensorInfo, graph_file

MOST_AT_ONCE = 4
"""Batches that are evaluated at once on CPUs, each from a thread of its own.

Of 16 CPUs more gained nothing: Python makes the random numbers of one batch after those of another. On a GPU draws
were slower with two at once than with one.
"""


class OnnxEngine:
    """Evaluate a model repository's graphs in this process; see `causcell.engine.protocol.Engine`.

    Parameters
    ----------
    path
        Folder of the repository; its digests are verified.
    threads
        Number of compute threads; the CPUs that this process may use, if not given (`causcell._internal.cpus`: quotas
        of containers count; ONNX Runtime ignores ``OMP_NUM_THREADS``). On CPUs up to `MOST_AT_ONCE` of them evaluate a
        batch each, and what are more share these batches' work.
    provider
        One of `causcell.engine.providers.PROVIDERS`: ``cpu`` or ``cuda``.
    spinning
        Let threads that wait for work keep a CPU busy: a little faster on a machine of one's own, many times slower
        beside other processes.

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
    ['encoder_scm', 'scm', 'abduction', 'denoiser', 'sampler', 'decoder', 'slab']
    >>> [endpoint] = engine.status()
    >>> endpoint["runtime"], endpoint["provider"], endpoint["threads"]
    ('ONNX Runtime', 'cpu', 1)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        threads: int | None = None,
        provider: str = "cpu",
        spinning: bool = False,
    ) -> None:
        self._provider, self._provider_options = session_provider(provider)
        if threads is not None:
            threads = whole_number(threads, "threads", 1, MOST_THREADS)
        self._runtime = load_runtime()
        available = self._runtime.get_available_providers()
        if self._provider not in available:
            raise RuntimeUnavailableError(
                f"ONNX Runtime here has no {self._provider}; it has {format_list(available)}: install causcell[gpu] in "
                "place of causcell[cpu]"
            )
        self.at_hand = provider == "cpu"
        self._missing = load_cuda_libraries(self._runtime) if provider == "cuda" else ""
        self._repository = open_repository(path)
        self._options = self._runtime.SessionOptions()
        self.threads: int | None = threads or available_cpus()
        self.concurrency = min(self.threads, MOST_AT_ONCE) if self.at_hand else 1
        self._options.intra_op_num_threads = self.threads // self.concurrency
        self._options.inter_op_num_threads = 1
        self._options.log_severity_level = 3
        self._options.add_session_config_entry("session.load_model_format", "ONNX")  # as it was checked
        if not spinning:
            self._options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._sessions: dict[str, Any] = {}
        self._closed = False
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
        if self._closed:
            raise EngineError(f"the engine of {self._status['address']!r} is closed; open the model again")
        info = check_request(self.manifest, graph, inputs, outputs)
        names = list(info.outputs if outputs is None else outputs)
        session = self._session(graph)
        try:
            answer = dict(zip(names, session.run(names, inputs), strict=True))
        except Exception as error:  # ONNX Runtime's share no base class
            raise EngineError(f"graph {graph!r} failed: {error}") from error
        batch, genes = len(next(iter(inputs.values()))), self.manifest.genes.names
        return check_answer(graph, info, names, batch, answer, origin=graph_file(graph), genes=genes)

    def status(self) -> list[EndpointStatus]:
        """Describe this process: runtime, version, provider and threads."""
        return [self._status.copy()]

    def close(self) -> None:
        """Release the sessions; `run` then raises `EngineError`."""
        self._closed = True
        self._sessions.clear()

    def _session(self, graph: str) -> Any:
        if graph not in self._sessions:
            path, content = self._repository.graph_path(graph), self._repository.read_graph(graph)
            try:
                session = self._runtime.InferenceSession(
                    content, self._options, providers=[(self._provider, self._provider_options)]
                )
                stamp = session.get_modelmeta().custom_metadata_map
            except Exception as error:  # ONNX Runtime's share no base class, and this file may be anything
                raise CorruptFileError(f"{path} can't be loaded by ONNX Runtime: {error}; export again") from error
            if self._provider not in session.get_providers():
                raise RuntimeUnavailableError(
                    f"{self._provider} was asked for, but did not load for {graph!r}: its libraries are missing or do "
                    "not fit the driver" + (f" ({self._missing})" if self._missing else "")
                )
            if stamp.get("causcell.gene_digest") != self.manifest.genes.digest:
                raise DigestError(f"{path} was exported for another gene panel than the manifest's; export again")
            info = self.manifest.graphs[graph]
            _check_signature(path, "inputs", info.inputs, session.get_inputs())
            _check_signature(path, "outputs", info.outputs, session.get_outputs())
            self._sessions[graph] = session
        return self._sessions[graph]


_TYPES = {"float32": "float", "float16": "float16", "int64": "int64", "uint8": "uint8"}
"""Names that ONNX has for element types, by NumPy's."""


def _check_signature(path: Path, what: str, stated: Mapping[str, TensorInfo], found: Sequence[Any]) -> None:
    """Check that a graph's inputs or outputs are those of the manifest, by name and element type."""
    there = {each.name: each.type for each in found}
    expected = {name: f"tensor({_TYPES[tensor.dtype]})" for name, tensor in stated.items()}
    if there != expected:
        raise CorruptFileError(
            f"{path} has {what} {format_list(f'{name}: {kind}' for name, kind in there.items())}, where the manifest "
            f"states {format_list(f'{name}: {kind}' for name, kind in expected.items())}; export again"
        )
