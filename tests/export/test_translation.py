"""Translation of modules into ONNX: as they are captured where that can be, decomposed where it has to be."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from causcell.repository.manifest import GraphInfo, TensorInfo
from causcell_export.graphs import Graph, Sampler, example_inputs, graphs
from causcell_export.joined_graphs import join_slab
from causcell_export.onnx_file import write_part
from causcell_export.sampler_loop import loop_denoiser
from causcell_export.translation import TRACE_BATCH, translate
from causcell_training import Run

ROW = TensorInfo(dtype="float32", shape=(3,))


class Plain(nn.Module):
    """What the graphs do that PyTorch's exporter decomposes, and we replace: a number minus a tensor, and casts."""

    def forward(self, x: Tensor) -> Tensor:
        return (1 - x).half().float()


class Decomposed(nn.Module):
    """An operator without a translation of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.xlog1py(x, x * x)


class InPlace(nn.Module):
    """A result that is written into after it was made."""

    def forward(self, x: Tensor) -> Tensor:
        y = x + 1
        y[:, 0].mul_(2)
        return y


@pytest.fixture
def decomposed(monkeypatch: pytest.MonkeyPatch) -> list[ExportedProgram]:
    """Programs that are decomposed, as they are."""
    found: list[ExportedProgram] = []
    own = ExportedProgram.run_decompositions

    def count(program: ExportedProgram, *given: Any, **named: Any) -> ExportedProgram:
        found.append(program)
        return own(program, *given, **named)

    monkeypatch.setattr(ExportedProgram, "run_decompositions", count)
    return found


def run_model(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    answers: list[np.ndarray] = session.run(None, dict(inputs))
    return answers


@pytest.mark.parametrize(("module", "times"), [(Plain(), 0), (Decomposed(), 1), (InPlace(), 1)])
def test_a_program_is_decomposed_where_it_has_to_be(
    decomposed: list[ExportedProgram], module: nn.Module, times: int
) -> None:
    graph = Graph(module, GraphInfo(inputs={"x": ROW}, outputs={"y": ROW}))
    rng = np.random.default_rng(0)
    model = translate(graph, {"x": rng.random((TRACE_BATCH, 3), dtype=np.float32)})
    assert len(decomposed) == times
    for batch in (1, TRACE_BATCH, 20):
        x = rng.random((batch, 3), dtype=np.float32)
        (found,) = run_model(model, {"x": x})
        np.testing.assert_allclose(found, module(torch.from_numpy(x.copy())).numpy(), rtol=1e-6, atol=1e-6)


def test_no_graph_of_ours_is_decomposed(run: Run, decomposed: list[ExportedProgram]) -> None:
    """Decomposing takes as long as all else; an operator that needs it is to be replaced, here or in the module."""
    examples = example_inputs(run.model, run.held_out().X.toarray(), TRACE_BATCH)
    translated = {
        name: translate(graph, examples[name]) for name, graph in graphs(run.model).items() if name != "sampler"
    }
    assert decomposed == []
    assert {"denoiser", "decoder", "slab", "encoder_scm", "scm", "abduction"} == set(translated)


@torch.no_grad()
def test_the_sampler_loops_around_the_denoiser(run: Run) -> None:
    """Any number of steps, and no node or weight of the denoiser's other outputs."""
    examples = example_inputs(run.model, run.held_out().X.toarray(), TRACE_BATCH)
    found = graphs(run.model)
    denoiser, sampler = found["denoiser"], found["sampler"]
    assert isinstance(sampler.module, Sampler)
    model = loop_denoiser(translate(denoiser, examples["denoiser"]), sampler.module, sampler.info)
    onnx.checker.check_model(model, full_check=True)
    (loop,) = (node for node in model.graph.node if node.op_type == "Scan")
    (body,) = (attribute.g for attribute in loop.attribute if attribute.name == "body")
    made = [name for node in body.node for name in node.output if name]
    used = {name for node in body.node for name in node.input} | {tensor.name for tensor in body.output}
    assert set(made) - used <= {"loop_s"}  # the scale of noise, which this loop has none of
    assert len(made) == len(set(made))
    whole = {name for node in model.graph.node for name in node.input} | used
    assert {weight.name for weight in model.graph.initializer} <= whole
    inputs = examples["sampler"]
    for steps in (1, 2, 11):
        solver = np.resize(inputs["solver"], (TRACE_BATCH, steps, 5))
        given = inputs | {"solver": np.ascontiguousarray(solver)}
        expected = sampler.module(*(torch.from_numpy(given[name]) for name in sampler.info.inputs))
        np.testing.assert_allclose(run_model(model, given)[0], expected[0].numpy(), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_decoder_and_slab_are_parts_of_one_translation(run: Run, tmp_path: Path) -> None:
    """Each with its own inputs and outputs alone, and nothing that it does not use: the slab has no tail."""
    example = example_inputs(run.model, run.held_out().X.toarray(), TRACE_BATCH)["decoder"]
    found = graphs(run.model)
    whole = translate(join_slab(found["decoder"], found["slab"]), example)
    for name in ("decoder", "slab"):
        graph, path = found[name], tmp_path / name / "model.onnx"
        write_part(whole, graph, path, {})
        part = onnx.load(path)
        assert [each.name for each in part.graph.input] == list(graph.info.inputs)
        assert [each.name for each in part.graph.output] == list(graph.info.outputs)
        used = {each for node in part.graph.node for each in node.input} | set(graph.info.outputs)
        assert {each for node in part.graph.node for each in node.output if each} <= used
        assert {weight.name for weight in part.graph.initializer} <= used
        alone = translate(graph, example)
        assert len(part.graph.node) == len(alone.graph.node)
        inputs = {each: example[each] for each in graph.info.inputs}
        for one, other in zip(run_model(part, inputs), run_model(alone, inputs), strict=True):
            np.testing.assert_array_equal(one, other)
