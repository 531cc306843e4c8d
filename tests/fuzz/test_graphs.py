"""Graphs of strangers: damaged where it matters, each is refused or evaluated to what the manifest states."""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fuzzing import inputs, tried
from hypothesis import given
from hypothesis import strategies as st
from strangers import ARCHIVED

from causcell.engine.onnx import OnnxEngine
from causcell.engine.open import open_engine
from causcell.engine.outputs import check_answer
from causcell.errors import CausCellError
from causcell.repository.onnx_scan import check_onnx

GRAPHS = ("encoder_scm", "scm", "denoiser", "decoder", "sampler")


@cache
def content_of(graph: str) -> bytes:
    return (ARCHIVED / graph / "1" / "model.onnx").read_bytes()


@cache
def engine() -> OnnxEngine:
    opened = open_engine(ARCHIVED, threads=1)
    assert isinstance(opened, OnnxEngine)
    return opened


def evaluate(graph: str, content: bytes) -> None:
    """Load a graph from these bytes as a repository does whose digest holds, and evaluate it."""
    opened = engine()
    info = opened.manifest.graphs[graph]
    zeros = {
        name: np.zeros((2, *(3 if size < 0 else size for size in tensor.shape)), dtype=tensor.dtype)
        for name, tensor in info.inputs.items()
    }
    opened._sessions.pop(graph, None)
    object.__setattr__(opened._repository, "read_graph", lambda _: content)
    with tried("graph"):
        check_onnx(content, "model.onnx")
        outputs = opened.run(graph, zeros)
        assert check_answer(graph, info, list(info.outputs), 2, outputs, origin="again").keys() == outputs.keys()


@inputs(400)
@given(
    st.sampled_from(GRAPHS),
    st.lists(
        st.tuples(st.floats(0, 0.999), st.integers(0, 6), st.binary(max_size=6)),
        min_size=1,
        max_size=3,
    ),
)
def test_damaged_bytes(graph: str, damage: list[tuple[float, int, bytes]]) -> None:
    """Only looked at: most of what passes is a changed weight."""
    content = content_of(graph)
    for place, removed, added in damage:
        at = int(place * len(content))
        removed = len(added) if removed == 0 else removed  # often nothing moves
        content = content[:at] + added + content[at + removed :]
    with tried("graph, looked at"):
        check_onnx(content, "model.onnx")


EDITS = st.sampled_from(
    [
        "operator",
        "domain",
        "input",
        "output",
        "drop node",
        "swap",
        "dims",
        "type",
        "values",
        "external",
        "outputs",
        "opset",
    ]
)


def edited(graph: str, edit: str, at: int, number: int) -> bytes:
    """Return a graph with one thing changed that its readers look at."""
    model: Any = onnx.load_from_string(content_of(graph))
    nodes, weights = model.graph.node, model.graph.initializer
    node = nodes[at % len(nodes)]
    weight = weights[at % len(weights)] if len(weights) else None
    if edit == "operator":
        node.op_type = ["Add", "Nonsense", "Loop", "Reshape", "MatMul", "Cast", "Identity"][number % 7]
    elif edit == "domain":
        node.domain = ["ai.onnx", "com.microsoft", "ai.onnx.ml", "x"][number % 4]
    elif edit == "input" and node.input:
        node.input[0] = ["", "nothing", *(each.name for each in model.graph.input)][number % 3]
    elif edit == "output" and node.output:
        node.output[0] = "elsewhere"
    elif edit == "drop node":
        nodes.remove(node)
    elif edit == "swap" and len(nodes) > 1:
        other = nodes[number % len(nodes)]
        if len(node.input) and len(other.input):
            node.input[0], other.input[0] = other.input[0], node.input[0]
    elif edit == "dims" and weight is not None:
        del weight.dims[:]
        weight.dims.extend([[1], [2**40], [0], [-1], [1, 1, 1, 4]][number % 5])
    elif edit == "type" and weight is not None:
        weight.data_type = number % 25
    elif edit == "values" and weight is not None and weight.raw_data:
        bad = np.array([np.nan, np.inf, -np.inf, -1e30][number % 4], dtype=np.float32).tobytes()
        weight.raw_data = bad * (len(weight.raw_data) // 4) + weight.raw_data[: len(weight.raw_data) % 4]
    elif edit == "external" and weight is not None:
        weight.data_location = 1
        entry = weight.external_data.add()
        entry.key, entry.value = "location", ["/etc/passwd", "../../manifest.json", "*/_ORT_MEM_ADDR_/*"][number % 3]
    elif edit == "outputs":
        model.graph.output[0].name = "other"
    elif edit == "opset":
        model.opset_import[0].version = [1, 7, 99, 0, -1][number % 5]
    return bytes(model.SerializeToString())


@inputs(80)
@given(st.sampled_from(GRAPHS), EDITS, st.integers(0, 500), st.integers(0, 1000))
def test_graphs_with_one_thing_changed(graph: str, edit: str, at: int, number: int) -> None:
    evaluate(graph, edited(graph, edit, at, number))


def test_graphs_as_they_were_pass() -> None:
    for graph in GRAPHS[:1]:
        evaluate(graph, content_of(graph))
    assert (
        hashlib.sha256(content_of("scm")).hexdigest()
        == json.loads((ARCHIVED / "manifest.json").read_text())["files"]["scm/1/model.onnx"]
    )


@pytest.mark.parametrize("graph", GRAPHS)
def test_weights_of_nan_are_told_before_anything_is_written(graph: str, tmp_path: Path) -> None:
    model: Any = onnx.load_from_string(content_of(graph))
    for weight in model.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT and weight.raw_data:
            weight.raw_data = np.full(len(weight.raw_data) // 4, np.nan, dtype=np.float32).tobytes()
    with pytest.raises(CausCellError):
        opened = engine()
        opened._sessions.pop(graph, None)
        object.__setattr__(opened._repository, "read_graph", lambda _: model.SerializeToString())
        info = opened.manifest.graphs[graph]
        opened.run(
            graph,
            {
                name: np.full((1, *(3 if size < 0 else size for size in tensor.shape)), 0.5).astype(tensor.dtype)
                for name, tensor in info.inputs.items()
            },
        )
