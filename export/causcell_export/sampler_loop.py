"""The graph ``sampler``: a loop around the graph ``denoiser``, which is translated once for both."""

from __future__ import annotations

import onnx
import onnx_ir
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from onnx_ir.passes.common import RemoveUnusedNodesPass

from causcell.repository.manifest import GraphInfo, TensorInfo
from causcell_export.graphs import Sampler

_TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "int64": TensorProto.INT64}
_PREFIX = "loop_"
"""What names begin with that are added to the denoiser's."""

_COLUMNS = ("t", "a", "b", "c", "s")
"""Columns of a solver's table."""


def loop_denoiser(denoiser: onnx.ModelProto, sampler: Sampler, info: GraphInfo) -> onnx.ModelProto:
    """Wrap a denoiser's graph into the loop that `causcell_export.graphs.Sampler` runs.

    Parameters
    ----------
    denoiser
        The graph ``denoiser``: ``x_t``, ``timestep`` and ``endogenous`` to ``x0``, and what the loop does not use.
    sampler
        The loop's module, of which the scale of expression is taken.
    info
        Inputs and outputs of the graph ``sampler``.

    Returns
    -------
    A model whose loop, the operator Scan, takes any number of steps.
    """
    scale = {name: getattr(sampler.expression, name).numpy() for name in ("mean", "deviation")}
    weights = [numpy_helper.from_array(value, _own(name)) for name, value in scale.items()]
    weights.append(helper.make_tensor(_own("zero"), TensorProto.FLOAT, [], [0.0]))
    nodes = [
        helper.make_node("Shape", ["noise"], [_own("shape")]),
        _node("Expand", "zero", "shape", to="x0_start"),
        helper.make_node("Transpose", ["solver"], [_own("rows")], perm=[1, 0, 2]),
        helper.make_node(
            "Scan",
            ["noise", _own("x0_start"), _own("rows")],
            [_own("x_end"), _own("x0_end")],
            num_scan_inputs=1,
            body=_build_step(denoiser.graph),
        ),
        _node("Mul", "x_end", "deviation", to="scaled"),
        _node("Add", "scaled", "mean", to="shifted"),
        helper.make_node("Max", [_own("shifted"), _own("zero")], ["expression"]),
        helper.make_node("Cast", ["expression"], ["expression_float16"], to=TensorProto.FLOAT16),
    ]
    graph = helper.make_graph(
        nodes,
        "sampler",
        [_describe(name, tensor) for name, tensor in info.inputs.items()],
        [_describe(name, tensor) for name, tensor in info.outputs.items()],
        [*denoiser.graph.initializer, *weights],
    )
    whole = helper.make_model(graph, opset_imports=denoiser.opset_import, ir_version=denoiser.ir_version)
    model = onnx_ir.from_proto(whole)
    RemoveUnusedNodesPass()(model)  # what the denoiser's other outputs alone take
    looped: onnx.ModelProto = onnx_ir.to_proto(model)
    looped.producer_name, looped.producer_version = denoiser.producer_name, denoiser.producer_version
    return looped


def _own(name: str) -> str:
    """Return a name that none of the denoiser's is."""
    return f"{_PREFIX}{name}"


def _node(operator: str, *inputs: str, to: str) -> NodeProto:
    """Make a node among names of the loop's own."""
    return helper.make_node(operator, [_own(each) for each in inputs], [_own(to)])


def _build_step(denoiser: onnx.GraphProto) -> onnx.GraphProto:
    """Build one step: ``x_t``, the x0 before and a solver's row (t, a, b, c, s) to the next ``x_t`` and to ``x0``."""
    columns = [_own(column) for column in _COLUMNS]
    before = [
        helper.make_node("Split", [_own("row")], columns, axis=1, num_outputs=len(columns)),
        helper.make_node("Cast", [_own("t")], ["timestep"], to=TensorProto.INT64),
    ]
    after = [
        helper.make_node("Mul", [_own("a"), "x_t"], [_own("kept")]),
        helper.make_node("Mul", [_own("b"), "x0"], [_own("moved")]),
        _node("Add", "kept", "moved", to="first_order"),
        _node("Mul", "c", "x0_before", to="second_order"),
        _node("Add", "first_order", "second_order", to="x_next"),
    ]
    (cells,) = (each.type for each in denoiser.input if each.name == "x_t")
    rows = helper.make_tensor_type_proto(TensorProto.FLOAT, ["batch", len(columns)])
    inputs = {"x_t": cells, _own("x0_before"): cells, _own("row"): rows}
    outputs = {_own("x_next"): cells, "x0": cells}
    return helper.make_graph(
        [*before, *denoiser.node, *after],
        "step",
        [helper.make_value_info(name, kind) for name, kind in inputs.items()],
        [helper.make_value_info(name, kind) for name, kind in outputs.items()],
    )


def _describe(name: str, tensor: TensorInfo) -> ValueInfoProto:
    sizes = [f"{name}_{axis}" if size < 0 else size for axis, size in enumerate(tensor.shape, start=1)]
    return helper.make_tensor_value_info(name, _TYPES[tensor.dtype], ["batch", *sizes])
