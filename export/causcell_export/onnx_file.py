"""Writing of PyTorch modules as ONNX files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from causcell.repository.served import CHUNK
from causcell_export.graphs import Graph, Sampler
from causcell_export.sampler_loop import loop_denoiser
from causcell_export.translation import OPSET, translate
from causcell_export.translation import TRACE_BATCH as TRACE_BATCH

IR_VERSION = 9


def write_onnx(graph: Graph, example: Mapping[str, np.ndarray], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a graph as an ONNX file; the batch axis is free, and others where the graph's information says so.

    Parameters
    ----------
    graph
        The module, its inputs and outputs.
    example
        Inputs by name for a batch of `causcell_export.translation.TRACE_BATCH` cells.
    path
        The file; its folder is made.
    metadata
        Entries of ``metadata_props``.
    """
    _save(translate(graph, example), path, metadata)


def write_sampler(graph: Graph, denoiser: Path, path: Path, metadata: Mapping[str, str]) -> None:
    """Write the graph ``sampler``, a loop around that of the file of the graph ``denoiser``; see `write_onnx`."""
    assert isinstance(graph.module, Sampler)
    _save(loop_denoiser(onnx.load(denoiser), graph.module, graph.info), path, metadata)


def write_part(model: onnx.ModelProto, graph: Graph, path: Path, metadata: Mapping[str, str]) -> None:
    """Write the part of a model that a graph's outputs take, with the graph's inputs; see `write_onnx`."""
    whole = onnx_ir.from_proto(model)
    tensors = {"inputs": whole.graph.inputs, "outputs": whole.graph.outputs}
    for kind, names in {"outputs": graph.info.outputs, "inputs": graph.info.inputs}.items():
        kept = [each for each in tensors[kind] if each.name in names]
        tensors[kind].clear()
        tensors[kind].extend(kept)
    RemoveUnusedNodesPass()(whole)
    _save(onnx_ir.to_proto(whole), path, metadata)


def _save(model: onnx.ModelProto, path: Path, metadata: Mapping[str, str]) -> None:
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
