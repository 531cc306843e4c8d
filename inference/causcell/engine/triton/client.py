"""Client of one Triton server: what it serves, in which state, and inference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from causcell.engine.status import EndpointStatus, ModelStatistics, ModelStatus
from causcell.engine.triton.connection import Address, Connection
from causcell.engine.triton.failures import RegionForgottenError
from causcell.engine.triton.messages import CONFIG, INDEX, METADATA, STATISTICS, IndexEntry, ModelConfig, Statistics
from causcell.engine.triton.region_pool import RegionPool
from causcell.engine.triton.shared_memory import place_arrays
from causcell.engine.triton.tensors import ArraySpecs, Place, count_bytes
from causcell.engine.triton.transport import open_transport
from causcell.errors import DeadlineExceededError, ServerUnavailableError

_LARGEST_BODY = 48 << 20
"""Bytes of arrays that one request carries: servers of 2026, and fronts, refuse HTTP bodies above 64 MiB."""


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
        self._transport = open_transport(address, connection)
        self._regions = RegionPool(self._transport, connection)

    def version(self) -> str:
        """Return the version of the server."""
        return self._transport.metadata(METADATA)["version"]

    def is_ready(self) -> bool:
        """Tell if the server answers and all its models are ready."""
        try:
            return self._transport.is_ready()
        except (ServerUnavailableError, DeadlineExceededError):
            return False

    def model_names(self) -> list[str]:
        """List the names of all models, ready or not."""
        return [model["name"] for model in self._transport.index(INDEX)]

    def config(self, model: str) -> ModelConfig:
        """Return the configuration of a model, as Triton completed it."""
        return self._transport.config(CONFIG, model)

    def statistics(self) -> dict[str, ModelStatistics]:
        """Return the counts and mean times of each model since the server started, by its name."""
        stats = self._transport.statistics(STATISTICS)["model_stats"]
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
            "models": [_read_status(model, self.config(model["name"])) for model in self._transport.index(INDEX)],
            "statistics": self.statistics(),
        }

    def shared_regions(self) -> list[str]:
        """List the names of the regions of system shared memory that the server maps, of all clients."""
        return self._regions.names()

    def infer(self, model: str, inputs: Mapping[str, np.ndarray], outputs: ArraySpecs) -> dict[str, np.ndarray]:
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
        for last in (False, True):
            if not self._regions.is_usable():
                break
            try:
                return self._infer_shared(model, inputs, outputs)
            except RegionForgottenError as error:  # restarted while idle, or told by another to forget all
                self._regions.clear()
                if last:
                    self._regions.give_up(error)
            except OSError as error:  # of a new region; what else the server does is an `EngineError`
                self._regions.give_up(error)
        return self._infer_by_wire(model, inputs, outputs)

    def reset(self) -> None:
        """Forget the regions that the server knew: it may have restarted, or may still be writing to them."""
        self._regions.clear()

    def close(self) -> None:
        """Release regions and connections."""
        self._regions.clear()
        self._transport.close()

    def _infer_shared(self, model: str, inputs: Mapping[str, np.ndarray], outputs: ArraySpecs) -> dict[str, np.ndarray]:
        sizes = {name: array.nbytes for name, array in inputs.items()}
        sizes |= {name: count_bytes(spec) for name, spec in outputs.items()}
        offsets, size = place_arrays(sizes.values())
        with self._regions.lend(size) as region:
            places = {
                name: Place(region.name, offset, sizes[name]) for name, offset in zip(sizes, offsets, strict=True)
            }
            for name, array in inputs.items():
                region.write(places[name].offset, array)
            self._transport.infer(model, inputs, outputs, places)
            return {name: region.read(places[name].offset, dtype, shape) for name, (dtype, shape) in outputs.items()}

    def _infer_by_wire(
        self, model: str, inputs: Mapping[str, np.ndarray], outputs: ArraySpecs
    ) -> dict[str, np.ndarray]:
        """Send the arrays, in several requests where one would be larger than servers take."""
        size = sum(array.nbytes for array in inputs.values())
        rows = len(next(iter(inputs.values())))
        if size <= _LARGEST_BODY or rows < 2:
            return self._transport.infer(model, inputs, outputs, {})
        step = max(rows * _LARGEST_BODY // size, 1)
        parts = []
        for start in range(0, rows, step):
            some = {name: array[start : start + step] for name, array in inputs.items()}
            taken = min(step, rows - start)
            wanted = {name: (dtype, (taken, *shape[1:])) for name, (dtype, shape) in outputs.items()}
            parts.append(self._transport.infer(model, some, wanted, {}))
        return {name: np.concatenate([part[name] for part in parts]) for name in outputs}


def _read_status(model: IndexEntry, config: ModelConfig) -> ModelStatus:
    batching = config.get("dynamic_batching", {})
    found: ModelStatus = {
        "name": model["name"],
        "max_batch_size": int(config.get("max_batch_size", 0)),
        "max_queue_delay_microseconds": int(batching.get("max_queue_delay_microseconds", 0)),
        "instances": sum(int(group.get("count", 1)) for group in config.get("instance_group", [])),
    }
    if "version" in model:
        found["version"] = model["version"]
    if "state" in model:
        found["state"] = model["state"]
    if "reason" in model:
        found["reason"] = model["reason"]
    return found


def _read_statistics(model: Statistics) -> ModelStatistics:
    stats: Mapping[str, Any] = model.get("inference_stats", {})

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
