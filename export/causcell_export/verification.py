"""Verification of exported graphs against the trained model: names, axes, shapes, then values on real cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from causcell.engine.runtime import load_runtime
from causcell.errors import ExportVerificationError, format_list
from causcell.repository.manifest import Parity, TensorInfo
from causcell_export.graphs import Graph

BATCHES = (1, 7, 256)

_ONNX_TYPES = {"float32": "tensor(float)", "float16": "tensor(float16)", "int64": "tensor(int64)"}
_FLOAT16_SPACING = 2.0**-10
"""Spacing of float16 values of size 1: a difference in the last bit of float32 may round to neighbours."""

Examples = Mapping[int, Mapping[str, np.ndarray]]
"""Inputs of a graph by batch size."""


def verify_onnx(name: str, graph: Graph, path: Path, examples: Examples) -> Parity:
    """Check an ONNX file against its module, on one compute thread of ONNX Runtime.

    Parameters
    ----------
    name
        Name of the graph, for messages.
    graph
        The trained model's module, its inputs and outputs, and the tolerance.
    path
        The file.
    examples
        Inputs of the graph by batch size.

    Returns
    -------
    Differences found, over all outputs and batches.

    Raises
    ------
    ExportVerificationError
        Names, types, axes or shapes are not the contract's, or values differ by more than the graph's tolerance.
    """
    runtime = load_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # of several, those that wait keep CPUs busy
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    _check_signature(name, "inputs", graph.info.inputs, session.get_inputs())
    _check_signature(name, "outputs", graph.info.outputs, session.get_outputs())
    outputs = list(graph.info.outputs)
    return _check_values(name, graph, examples, lambda inputs: session.run(outputs, dict(inputs)))


def verify_torchscript(name: str, graph: Graph, path: Path, examples: Examples) -> Parity:
    """Check the values of a TorchScript file against its module's; see `verify_onnx`.

    Raises
    ------
    ExportVerificationError
        Values differ by more than the graph's tolerance.
    """
    module = torch.jit.load(str(path))

    @torch.no_grad()
    def run(inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return _as_list(module(*(torch.from_numpy(inputs[key]) for key in graph.info.inputs)))

    return _check_values(name, graph, examples, run)


def _check_signature(name: str, what: str, tensors: Mapping[str, TensorInfo], found: list[Any]) -> None:
    names = [each.name for each in found]
    if names != list(tensors):
        raise ExportVerificationError(
            f"{name}: {what} are {format_list(names)}, the contract says {format_list(tensors)}"
        )
    for each in found:
        tensor = tensors[each.name]
        if not isinstance(each.shape[0], str):
            raise ExportVerificationError(f"{name}: the batch axis of {each.name!r} is fixed at {each.shape[0]}")
        shape = tuple(-1 if isinstance(size, str) else size for size in each.shape[1:])
        if shape != tensor.shape or each.type != _ONNX_TYPES[tensor.dtype]:
            raise ExportVerificationError(
                f"{name}: {each.name!r} is {each.type} {each.shape}, the contract says {tensor.dtype} {tensor.shape}"
            )


def _check_values(
    name: str, graph: Graph, examples: Examples, run: Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]
) -> Parity:
    largest, total, count, beyond = 0.0, 0.0, 0, 0
    for batch, inputs in examples.items():
        with torch.no_grad():
            expected = _as_list(graph.module(*(torch.from_numpy(inputs[key]) for key in graph.info.inputs)))
        for output, here, there in zip(graph.info.outputs, run(inputs), expected, strict=True):
            if here.shape != there.shape:
                raise ExportVerificationError(f"{name}: {output!r} has shape {here.shape} for a batch of {batch}")
            if not np.isfinite(here).all():
                raise ExportVerificationError(
                    f"{name}: {output!r} is not finite for a batch of {batch} real cells. Nothing was written"
                )
            limit = max(graph.tolerance.limit, _FLOAT16_SPACING if here.dtype == np.float16 else 0.0)
            difference = np.abs(here.astype(np.float32) - there) / (1 + np.abs(there))
            within = difference[difference <= limit]
            flips = difference.size - within.size
            if flips > np.ceil(graph.tolerance.beyond * difference.size):
                raise ExportVerificationError(
                    f"{name}: {output!r} differs from the trained model by {difference.max():.3g} for a batch of "
                    f"{batch} real cells, {flips} of {difference.size} values by more than the limit {limit:g}. "
                    "Nothing was written"
                )
            if here.dtype != np.float16:  # the others' values once more
                largest, beyond = max(largest, float(within.max(initial=0))), beyond + flips
                total, count = total + float(within.sum()), count + difference.size
    return Parity(maximum=largest, mean=total / count, limit=graph.tolerance.limit, flips=beyond / count)


def _as_list(outputs: torch.Tensor | tuple[torch.Tensor, ...]) -> list[np.ndarray]:
    return [each.numpy() for each in (outputs if isinstance(outputs, tuple) else (outputs,))]
