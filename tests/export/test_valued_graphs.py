"""Graphs of a model whose concepts have values: verified against the trained model, at every batch size."""

from pathlib import Path

import numpy as np
import pytest
from valued_cells import valued_cells, valued_config

from causcell.engine.runtime import load_runtime
from causcell.repository.names import ABDUCTION, PRIOR, value_name
from causcell_export.graphs import example_inputs, graphs
from causcell_export.onnx_file import write_onnx
from causcell_export.torchscript import write_torchscript
from causcell_export.translation import TRACE_BATCH
from causcell_export.triton_config import triton_config
from causcell_export.verification import BATCHES, verify_onnx, verify_torchscript
from causcell_training import Run, fit


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("valued")
    return fit(valued_cells(), folder / "run", config=valued_config(folder, **{"optimisation.epochs": 2}))


def test_signatures_are_the_contracts(run: Run) -> None:
    found = graphs(run.model)
    width, concept = run.model.schema.value_slices[-1].stop, (6, 4)
    assert {name: each.shape for name, each in found[PRIOR].info.inputs.items()} == {"values": (width,)}
    assert {name: each.shape for name, each in found[PRIOR].info.outputs.items()} == {"mean": (5, 4), "logvar": (5, 4)}
    assert {name: each.shape for name, each in found[ABDUCTION].info.inputs.items()} == {
        "exogenous": concept,
        "values": (width,),
    }
    outputs = list(found["scm"].info.outputs)
    assert outputs[-2:] == [value_name("age"), value_name("dose")]
    assert len(outputs) == 1 + 5 + 2
    assert "dims: 5" in triton_config(PRIOR, found[PRIOR].info, parameters={})


@pytest.mark.parametrize("name", [PRIOR, ABDUCTION, "scm"])
def test_exported_graph_gives_the_trained_models_values(run: Run, tmp_path: Path, name: str) -> None:
    expression = run.held_out().X.toarray()
    graph = graphs(run.model)[name]
    examples = {batch: example_inputs(run.model, expression, batch)[name] for batch in {*BATCHES, TRACE_BATCH}}
    if name != "scm":
        assert all(np.isnan(examples[batch]["values"]).any() for batch in (7, 256))
    write_onnx(graph, examples[TRACE_BATCH], tmp_path / "onnx" / "model.onnx", {})
    parity = verify_onnx(name, graph, tmp_path / "onnx" / "model.onnx", {batch: examples[batch] for batch in BATCHES})
    assert parity.flips == 0
    write_torchscript(graph, examples[TRACE_BATCH], tmp_path / "script" / "model.pt")
    assert verify_torchscript(name, graph, tmp_path / "script" / "model.pt", examples).flips == 0


def test_concepts_without_a_value_do_not_change_the_others_priors(run: Run, tmp_path: Path) -> None:
    """What is fed for an unlabelled concept, NaN or 0, changes no other concept's prior: to the bit."""
    graph = graphs(run.model)[PRIOR]
    examples = example_inputs(run.model, run.held_out().X.toarray(), TRACE_BATCH)[PRIOR]
    write_onnx(graph, examples, tmp_path / "onnx" / "model.onnx", {})
    session = load_runtime().InferenceSession(str(tmp_path / "onnx" / "model.onnx"), providers=["CPUExecutionProvider"])
    schema = run.model.schema
    values = np.concatenate([each.values[:1] for each in schema.concepts], axis=1)
    both = [session.run(None, {"values": values})]
    values[:, schema.value_slices[1]] = np.nan
    both.append(session.run(None, {"values": values}))
    for one, other in zip(*both, strict=True):
        np.testing.assert_array_equal(np.delete(one, 1, axis=1), np.delete(other, 1, axis=1))
        assert np.isfinite(other).all()
