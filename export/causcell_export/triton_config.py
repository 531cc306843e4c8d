"""Triton's ``config.pbtxt``, made from its own typed messages."""

from __future__ import annotations

from typing import Any, Literal

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as triton

from causcell.manifest import GraphInfo, TensorInfo

MAX_BATCH_SIZE = 1024

_TYPES = {"float32": triton.TYPE_FP32, "int64": triton.TYPE_INT64}


def triton_config(name: str, info: GraphInfo, backend: Literal["onnxruntime", "pytorch"] = "onnxruntime") -> str:
    """Text of ``config.pbtxt`` for a graph.

    The PyTorch backend knows tensors by their place: their names get the suffix ``__<place>`` that it asks for.
    """
    positional = backend == "pytorch"
    config = triton.ModelConfig(
        name=name,
        backend=backend,
        max_batch_size=MAX_BATCH_SIZE,
        input=_tensors(triton.ModelInput, info.inputs, positional),
        output=_tensors(triton.ModelOutput, info.outputs, positional),
        dynamic_batching=triton.ModelDynamicBatching(),
    )
    return text_format.MessageToString(config)


def _tensors(message: Any, tensors: dict[str, TensorInfo], positional: bool) -> list[Any]:
    return [
        message(
            name=f"{name}__{place}" if positional else name,
            data_type=_TYPES[tensor.dtype],
            dims=list(tensor.shape),
        )
        for place, (name, tensor) in enumerate(tensors.items())
    ]
