"""Triton's ``config.pbtxt``, made from Triton's typed messages: only what the native ONNX Runtime backend accepts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as triton

from causcell.errors import ConfigurationError
from causcell.repository.manifest import GraphInfo, TensorInfo
from causcell.repository.served import (
    CARRIER_GRAPH,
    CARRIER_MODEL,
    DIGEST_PARAMETER,
    MANIFEST_PARAMETER,
    REFERENCE_BYTES_PARAMETER,
)

MAX_BATCH_SIZE = 1024

_MOST = 1024  # instances, or threads

DEVICES: dict[str, triton.ModelInstanceGroup] = {
    "cpu": triton.ModelInstanceGroup(kind=triton.ModelInstanceGroup.KIND_CPU, count=1),
    "gpu": triton.ModelInstanceGroup(kind=triton.ModelInstanceGroup.KIND_GPU, count=2),
}
"""Instances of each model. On a CPU one uses all threads; on a GPU the copies of one overlap the work of the other."""

_THREAD_PARAMETERS = {
    "onnxruntime": ("intra_op_thread_count", "inter_op_thread_count"),
    "pytorch": ("INTRA_OP_THREAD_COUNT", "INTER_OP_THREAD_COUNT"),
}
"""Names, in each backend, of the parameters for threads within an operation, and for operations at once."""


@dataclass(frozen=True)
class CpuSettings:
    """How many copies of each model a server for CPUs runs, and their threads.

    Threads of a pool that wait for work keep CPUs busy. With one thread there is no pool: as many instances as CPUs, of
    one thread each, answer many clients with the least CPU; one instance with all threads answers one client soonest.

    Attributes
    ----------
    instances
        Copies of each graph's model.
    threads
        Compute threads of each copy; as the server is told, if not given.

    Raises
    ------
    ConfigurationError
        A number is below 1, or above what servers have.
    """

    instances: int = 1
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("instances", self.instances), ("threads_per_instance", self.threads)):
            if value is not None and (isinstance(value, bool) or not 1 <= value <= _MOST):
                raise ConfigurationError(f"{name} is {value}; take 1 to {_MOST}, such as the CPUs of the server")

    def parameters(self, backend: str) -> dict[str, str]:
        """Return the entries of a model's configuration that set its threads."""
        if self.threads is None:
            return {}
        within, at_once = _THREAD_PARAMETERS[backend]
        return {within: str(self.threads), at_once: "1"}


QUEUE_DELAY_MICROSECONDS = 100
"""Longest time that a request waits for others to be batched with: small beside the time of a batch."""

WARM_UP_BATCHES = (1, 256)
WARM_UP_STEPS = 20

_TYPES = {
    "float32": triton.TYPE_FP32,
    "float16": triton.TYPE_FP16,
    "int64": triton.TYPE_INT64,
    "uint8": triton.TYPE_UINT8,
}


def triton_config(
    name: str,
    info: GraphInfo,
    *,
    parameters: Mapping[str, str],
    backend: Literal["onnxruntime", "pytorch"] = "onnxruntime",
    device: str = "cpu",
    cpu: CpuSettings | None = None,
) -> str:
    """Write the text of ``config.pbtxt`` for a graph.

    The PyTorch backend knows tensors by their place: their names get the suffix ``__<place>`` that it asks for.

    Parameters
    ----------
    name
        Name of the model, which is its folder's.
    info
        Inputs and outputs.
    parameters
        Entries that clients read.
    backend
        Triton's backend.
    device
        ``cpu`` or ``gpu``; see `DEVICES`.
    cpu
        Instances and threads of a model for ``cpu``.
    """
    instances = triton.ModelInstanceGroup()
    instances.CopyFrom(DEVICES[device])
    if cpu is not None and device == "cpu":
        instances.count = cpu.instances
        parameters = {**parameters, **cpu.parameters(backend)}
    positional = backend == "pytorch"
    config = triton.ModelConfig(
        name=name,
        backend=backend,
        max_batch_size=MAX_BATCH_SIZE,
        input=_tensors(triton.ModelInput, info.inputs, positional),
        output=_tensors(triton.ModelOutput, info.outputs, positional),
        version_policy=triton.ModelVersionPolicy(latest=triton.ModelVersionPolicy.Latest(num_versions=1)),
        instance_group=[instances],
        dynamic_batching=triton.ModelDynamicBatching(max_queue_delay_microseconds=QUEUE_DELAY_MICROSECONDS),
        model_warmup=[_warm_up(info, batch, positional) for batch in WARM_UP_BATCHES],
        parameters={key: triton.ModelParameter(string_value=value) for key, value in parameters.items()},
    )
    return text_format.MessageToString(config)


def graph_parameters(digest: str) -> dict[str, str]:
    """Return the parameters of a graph's configuration: the SHA-256 of its file."""
    return {DIGEST_PARAMETER: digest}


def reference_config(manifest: str, size: int) -> str:
    """Write ``config.pbtxt`` for the model that carries the manifest and ``size`` bytes of reference cells."""
    parameters = {MANIFEST_PARAMETER: manifest, REFERENCE_BYTES_PARAMETER: str(size)}
    return triton_config(CARRIER_MODEL, CARRIER_GRAPH, parameters=parameters)


def _tensors(message: Any, tensors: dict[str, TensorInfo], positional: bool) -> list[Any]:
    return [
        message(
            name=_name(name, place, positional),
            data_type=_TYPES[tensor.dtype],
            dims=list(tensor.shape),
        )
        for place, (name, tensor) in enumerate(tensors.items())
    ]


def _warm_up(info: GraphInfo, batch: int, positional: bool) -> triton.ModelWarmup:
    """Make a warm-up request of zeros, at a batch size that is served and, in a loop, for some steps."""
    inputs = {
        _name(name, place, positional): triton.ModelWarmup.Input(
            data_type=_TYPES[tensor.dtype],
            dims=[WARM_UP_STEPS if size < 0 else size for size in tensor.shape],
            zero_data=True,
        )
        for place, (name, tensor) in enumerate(info.inputs.items())
    }
    return triton.ModelWarmup(name=f"batch {batch}", batch_size=batch, inputs=inputs)


def _name(name: str, place: int, positional: bool) -> str:
    return f"{name}__{place}" if positional else name
