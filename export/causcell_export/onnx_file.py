"""Writing of PyTorch modules as ONNX files."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass

from causcell._internal.collection_pause import pause_collection
from causcell._internal.quiet import quiet_loggers
from causcell.repository.manifest import TensorInfo
from causcell.repository.served import CHUNK
from causcell_export.graphs import Graph

OPSET = 20
"""Operator set, which ONNX Runtime 1.17 and newer read, and so Triton 24.03 and newer."""

IR_VERSION = 9

TRACE_BATCH = 7
"""Cells of the batch that is traced, an odd number: exporters take a batch of 1 for a constant."""


def write_onnx(graph: Graph, example: Mapping[str, np.ndarray], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a graph as an ONNX file; the batch axis is free, and others where the graph's information says so.

    Parameters
    ----------
    graph
        The module, its inputs and outputs.
    example
        Inputs by name for a batch of `TRACE_BATCH` cells.
    path
        The file; its folder is made.
    metadata
        Entries of ``metadata_props``.
    """
    inputs = tuple(torch.from_numpy(example[name]) for name in graph.info.inputs)
    with torch.no_grad(), _quiet(), _operators_built_once(), pause_collection():
        program = torch.onnx.export(
            graph.module,
            inputs,
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=tuple(_free_axes(name, tensor) for name, tensor in graph.info.inputs.items()),
            input_names=list(graph.info.inputs),
            output_names=list(graph.info.outputs),
        )
        assert program is not None
        RemoveUnusedNodesPass()(program.model)  # constants of a loop's body that the exporter leaves
    model = program.model_proto
    model.ir_version = IR_VERSION
    _strip(model.graph)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True)
    onnx.save(model, path)


def write_chunks(content: bytes, path: Path) -> None:
    """Write bytes as an ONNX file that returns them by chunks; see `causcell.repository.served.CARRIER_GRAPH`."""
    count = -(-len(content) // CHUNK)
    table = np.frombuffer(content.ljust(count * CHUNK, b"\0"), dtype=np.uint8).reshape(count, CHUNK)
    chunk = onnx.helper.make_tensor_value_info("chunk", onnx.TensorProto.INT64, ["batch", 1])
    found = onnx.helper.make_tensor_value_info("bytes", onnx.TensorProto.UINT8, ["batch", 1, CHUNK])
    gather = onnx.helper.make_node("Gather", ["table", "chunk"], ["bytes"], axis=0)
    weights = [onnx.numpy_helper.from_array(table, "table")]
    graph = onnx.helper.make_graph([gather], "reference", [chunk], [found], weights)
    opset = onnx.helper.make_opsetid("", OPSET)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="causcell")
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True)
    onnx.save(model, path)


def matrix_products(path: Path) -> tuple[tuple[int, int], ...]:
    """List the shapes [k x n] of the weight matrices that rows of an ONNX file's batch meet; those of a loop once."""

    def list_products(graph: onnx.GraphProto, shapes: dict[str, tuple[int, ...]]) -> list[tuple[int, int]]:
        shapes = shapes | {weight.name: tuple(weight.dims) for weight in graph.initializer}
        products = []
        for node in graph.node:
            attributes = {attribute.name: attribute for attribute in node.attribute}
            if node.op_type in ("Gemm", "MatMul") and node.input[1] in shapes:
                k, n = shapes[node.input[1]]
                transposed = "transB" in attributes and attributes["transB"].i
                products.append((n, k) if transposed else (k, n))
            bodies = [each.g for each in node.attribute if each.type == onnx.AttributeProto.GRAPH]
            products += [product for body in bodies for product in list_products(body, shapes)]
        return products

    return tuple(list_products(onnx.load(path).graph, {}))


def _strip(graph: onnx.GraphProto) -> None:
    """Remove what the exporter tells of this machine: source lines and names of modules."""
    tensors: list[Any] = [*graph.input, *graph.output, *graph.value_info, *graph.initializer]
    for part in (graph, *graph.node, *tensors):
        del part.metadata_props[:]
        part.doc_string = ""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _strip(attribute.g)


def _free_axes(name: str, tensor: TensorInfo) -> dict[int, Any]:
    free = {axis: torch.export.Dim(f"{name}_{axis}") for axis, size in enumerate(tensor.shape, start=1) if size < 0}
    return {0: torch.export.Dim("batch"), **free}


@functools.cache
def _build_operators(build: Callable[..., Any], **given: Any) -> Any:
    return build(**given)


@contextlib.contextmanager
def _operators_built_once() -> Iterator[None]:
    """Have PyTorch build its table of ONNX operators once for all graphs: half a second each, and none changes it."""
    from torch.onnx._internal.exporter import _registration

    table: Any = getattr(_registration, "ONNXRegistry", None)
    build = getattr(table, "from_torchlib", None)
    if build is None:  # another version of PyTorch: slower, and right
        yield
        return
    own = vars(table).get("from_torchlib", build)
    table.from_torchlib = staticmethod(functools.partial(_build_operators, build))
    try:
        yield
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
