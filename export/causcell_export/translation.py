"""Translation of PyTorch modules into ONNX models."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from causcell._internal.collection_pause import pause_collection
from causcell._internal.quiet import quiet_loggers
from causcell.repository.manifest import TensorInfo
from causcell_export.graphs import Graph

OPSET = 20
"""Operator set, which ONNX Runtime 1.17 and newer read, and so Triton 24.03 and newer."""

TRACE_BATCH = 7
"""Cells of the batch that is traced, an odd number: exporters take a batch of 1 for a constant."""


def translate(graph: Graph, example: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """Translate a graph; the batch axis is free, and others where the graph's information says so.

    Parameters
    ----------
    graph
        The module, its inputs and outputs.
    example
        Inputs by name for a batch of `TRACE_BATCH` cells.
    """
    inputs = tuple(torch.from_numpy(example[name]) for name in graph.info.inputs)
    axes = tuple(_free_axes(name, tensor) for name, tensor in graph.info.inputs.items())
    with torch.no_grad(), _quiet(), _operators_built_once() as operators, pause_collection():
        captured = torch.export.export(graph.module, inputs, dynamic_shapes=axes)
        _decompose_where_needed(captured, operators)
        program = torch.onnx.export(
            captured,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(graph.info.inputs),
            output_names=list(graph.info.outputs),
        )
        assert program is not None
    return program.model_proto


def _free_axes(name: str, tensor: TensorInfo) -> dict[int, Any]:
    free = {axis: torch.export.Dim(f"{name}_{axis}") for axis, size in enumerate(tensor.shape, start=1) if size < 0}
    return {0: torch.export.Dim("batch"), **free}


def _decompose_where_needed(captured: ExportedProgram, operators: Collection[Any]) -> None:
    """Have the exporter take a captured program as it is, unless an operator of it has to be decomposed.

    Decomposing traces the program twice more, a third of an export's time, to replace what is not among the operators
    that have a translation, and what writes into its inputs. Two of those that our graphs take are replaced here.
    """
    for node in _calls(captured):
        _replace(node)
    if not any(_is_decomposed(node, operators) for node in _calls(captured)):
        captured.run_decompositions = lambda *_, **__: captured


def _calls(captured: ExportedProgram) -> list[Node]:
    modules = [each for each in captured.graph_module.modules() if isinstance(each, GraphModule)]
    return [node for each in modules for node in each.graph.nodes if node.op == "call_function"]


def _replace(node: Node) -> None:
    """Replace a call by the operator that its decomposition is: a cast, or ``number - tensor``."""
    aten = torch.ops.aten
    if node.target is aten.to.dtype and not node.kwargs and len(node.args) == 2:
        tensor, dtype = node.args
        node.target, node.args, node.kwargs = aten._to_copy.default, (tensor,), {"dtype": dtype}
    elif node.target is aten.rsub.Scalar and not node.kwargs and len(node.args) == 2:
        tensor, number = node.args
        node.target, node.args = aten.sub.Tensor, (number, tensor)


def _is_decomposed(node: Node, operators: Collection[Any]) -> bool:
    """Tell whether a call has to be decomposed; assertions, which nothing uses, are left out by the exporter."""
    if not isinstance(node.target, OpOverload):
        return False
    return node.target._schema.is_mutable or (bool(node.users) and node.target.name() not in operators)


@functools.cache
def _build_operators(build: Callable[..., Any], **given: Any) -> Any:
    return build(**given)


@contextlib.contextmanager
def _operators_built_once() -> Iterator[Collection[Any]]:
    """Have PyTorch build its table of ONNX operators once for all graphs: half a second each, and none changes it.

    Given are the names of operators that the table translates; none where another version of PyTorch has no such table,
    and then all is slower, and right.
    """
    from torch.onnx._internal.exporter import _registration

    table: Any = getattr(_registration, "ONNXRegistry", None)
    build = getattr(table, "from_torchlib", None)
    if build is None:
        yield ()
        return
    own = vars(table).get("from_torchlib", build)
    table.from_torchlib = staticmethod(functools.partial(_build_operators, build))
    try:
        yield getattr(table.from_torchlib(opset_version=OPSET), "functions", ())
    finally:
        table.from_torchlib = own


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's progress lines and its notices about packages that are not needed."""
    with (
        quiet_loggers(("torch.onnx", "onnxscript", "onnx_ir"), logging.ERROR),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield
