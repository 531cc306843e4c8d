"""Client of one Triton server: what it serves, in which state, and inference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from causcell.engine.status import EndpointStatus, ModelStatistics, ModelStatus
from causcell.engine.triton.connection import Address, Connection
from causcell.engine.triton.region_pool import RegionPool
from causcell.engine.triton.shared_memory import place_arrays
from causcell.engine.triton.transport import Transport
from causcell.errors import DeadlineExceededError, ServerUnavailableError

_TRITON_TYPES = {"float32": "FP32", "int64": "INT64", "uint8": "UINT8"}

_ArraySpecs = Mapping[str, tuple[str, tuple[int, ...]]]
"""Dtype and shape of arrays, by name."""


class TritonClient:
    """Ask one Triton server. Safe to use from several threads.

    Every method raises `ServerUnavailableError` or `DeadlineExceededError` where there is no answer (another try may
    succeed), and `EngineError` where the server refuses.

    Parameters
    ----------
    address
        Address of the server.
    connection
        Deadline, headers, certificates, and if memory is shared; retries are left to the caller.

    Raises
    ------
    RuntimeUnavailableError
        tritonclient is not installed.
    """

    def __init__(self, address: Address, connection: Connection) -> None:
        self.address = address
        self._transport = Transport(address, connection)
        self._regions = RegionPool(self._transport, connection)

    def version(self) -> str:
        """Return the version of the server."""
        return str(self._transport.ask("get_server_metadata")["version"])

    def is_ready(self) -> bool:
        """Tell if the server answers and all its models are ready."""
        try:
            return bool(self._transport.call("is_server_ready"))
        except (ServerUnavailableError, DeadlineExceededError):
            return False

    def model_names(self) -> list[str]:
        """List the names of all models, ready or not."""
        return [model["name"] for model in self._index()]

    def config(self, model: str) -> dict[str, Any]:
        """Return the configuration of a model, as Triton completed it."""
        config = self._transport.ask("get_model_config", model)
        return dict(config.get("config", config))

    def statistics(self) -> dict[str, ModelStatistics]:
        """Return the counts and mean times of each model since the server started, by its name."""
        stats = self._transport.ask("get_inference_statistics")["model_stats"]
        return {each["name"]: _read_statistics(each) for each in stats}

    def status(self) -> EndpointStatus:
        """Describe the server and, if it is ready, its models and what they did."""
        if not self.is_ready():
            return {"address": str(self.address), "ready": False}
        return {
            "address": str(self.address),
            "ready": True,
            "runtime": "Triton",
            "version": self.version(),
            "models": [_read_status(model, self.config(model["name"])) for model in self._index()],
            "statistics": self.statistics(),
        }

    def shared_regions(self) -> list[str]:
        """List the names of the regions of system shared memory that the server maps, of all clients."""
        return self._regions.names()

    def infer(self, model: str, inputs: Mapping[str, np.ndarray], outputs: _ArraySpecs) -> dict[str, np.ndarray]:
        """Evaluate a model.

        Parameters
        ----------
        model
            Name of the model.
        inputs
            Arrays by name, [B x ...].
        outputs
            Dtype and shape (with the batch) of each wanted output, by name.

        Returns
        -------
        The wanted outputs by name.

        Raises
        ------
        ServerUnavailableError, DeadlineExceededError
            No answer; worth another try.
        EngineError
            The server refused the request, or failed at it.
        """
        if self._regions.is_usable():
            try:
                return self._infer_shared(model, inputs, outputs)
            except OSError as error:  # of a new region; what the server does is an `EngineError`
                self._regions.give_up(error)
        tensors = [self._input(name, array) for name, array in inputs.items()]
        for tensor, array in zip(tensors, inputs.values(), strict=True):
            tensor.set_data_from_numpy(np.ascontiguousarray(array))
        wanted = [self._transport.module.InferRequestedOutput(name) for name in outputs]
        result = self._transport.call("infer", model, tensors, outputs=wanted)
        return {name: result.as_numpy(name) for name in outputs}

    def reset(self) -> None:
        """Forget the regions that the server knew: it may have restarted, or may still be writing to them."""
        self._regions.clear()

    def close(self) -> None:
        """Release regions and connections."""
        self._regions.clear()
        self._transport.close()

    def _infer_shared(
        self, model: str, inputs: Mapping[str, np.ndarray], outputs: _ArraySpecs
    ) -> dict[str, np.ndarray]:
        sizes = {name: array.nbytes for name, array in inputs.items()}
        sizes |= {name: int(np.prod(shape)) * np.dtype(dtype).itemsize for name, (dtype, shape) in outputs.items()}
        offsets, size = place_arrays(sizes.values())
        offset = dict(zip(sizes, offsets, strict=True))
        with self._regions.lend(size) as region:
            tensors = []
            for name, array in inputs.items():
                region.write(offset[name], array)
                tensors.append(self._input(name, array))
                tensors[-1].set_shared_memory(region.name, sizes[name], offset[name])
            wanted = []
            for name in outputs:
                wanted.append(self._transport.module.InferRequestedOutput(name))
                wanted[-1].set_shared_memory(region.name, sizes[name], offset[name])
            self._transport.call("infer", model, tensors, outputs=wanted)
            return {name: region.read(offset[name], dtype, shape) for name, (dtype, shape) in outputs.items()}

    def _index(self) -> list[dict[str, str]]:
        """Return name, version, state (and the reason of a failure) of each model."""
        index = self._transport.ask("get_model_repository_index")
        return list(index.get("models", [])) if isinstance(index, dict) else list(index)

    def _input(self, name: str, array: np.ndarray) -> Any:
        return self._transport.module.InferInput(name, list(array.shape), _TRITON_TYPES[array.dtype.name])


def _read_status(model: Mapping[str, str], config: Mapping[str, Any]) -> ModelStatus:
    batching = config.get("dynamic_batching", {})
    found: ModelStatus = {
        "name": model["name"],
        "max_batch_size": int(config.get("max_batch_size", 0)),
        "max_queue_delay_microseconds": int(batching.get("max_queue_delay_microseconds", 0)),
        "instances": sum(int(group.get("count", 1)) for group in config.get("instance_group", [])),
    }
    for key in ("version", "state", "reason"):
        if key in model:
            found[key] = model[key]
    return found


def _read_statistics(model: Mapping[str, Any]) -> ModelStatistics:
    stats = model.get("inference_stats", {})

    def mean_milliseconds(name: str) -> float:
        found = stats.get(name, {})
        return round(int(found.get("ns", 0)) / max(int(found.get("count", 0)), 1) / 1e6, 3)

    return {
        "requests": int(stats.get("success", {}).get("count", 0)),
        "failed": int(stats.get("fail", {}).get("count", 0)),
        "executions": int(model.get("execution_count", 0)),
        "rows": int(model.get("inference_count", 0)),
        "queue_ms": mean_milliseconds("queue"),
        "compute_ms": mean_milliseconds("compute_infer"),
    }
