"""TorchScript twins of the graphs, for Triton's PyTorch backend."""

from pathlib import Path

import numpy as np
import pytest
import torch
from exported import GRAPHS, read_config
from tritonclient.grpc import model_config_pb2 as triton

from causcell.generator import Generator
from causcell.repository.folder import open_repository
from causcell.repository.manifest import Manifest
from causcell_export import export
from causcell_export.graphs import example_inputs, graphs
from causcell_training import Run

pytestmark = pytest.mark.slow  # models are exported


@pytest.fixture(scope="module")
def with_torchscript(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported from the run's folder, which is as good as the run."""
    return export(run.path, tmp_path_factory.mktemp("torchscript") / "repository", torchscript=True, instances=3)


@pytest.fixture(scope="module")
def manifest(with_torchscript: Path) -> Manifest:
    return open_repository(with_torchscript).manifest


@pytest.mark.parametrize("batch", [1, 7, 256])
@pytest.mark.parametrize("graph", GRAPHS)
@torch.no_grad()
def test_a_twin_gives_the_trained_models_values(run: Run, with_torchscript: Path, graph: str, batch: int) -> None:
    """Within 1e-4, the promise of the repository; the operations are the same, fused at most."""
    held_out = run.held_out().X.toarray()
    inputs = example_inputs(run.model, held_out, batch, seed=1)[graph]
    wrapped = graphs(run.model)[graph]
    tensors = [torch.from_numpy(inputs[name]) for name in wrapped.info.inputs]
    loaded = torch.jit.load(str(with_torchscript / f"{graph}_torchscript" / "1" / "model.pt"))
    found, expected = loaded(*tensors), wrapped.module(*tensors)
    if isinstance(expected, torch.Tensor):
        found, expected = (found,), (expected,)
    assert len(found) == len(expected) == len(wrapped.info.outputs)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("graph", GRAPHS)
def test_tensors_are_known_by_their_place(with_torchscript: Path, manifest: Manifest, graph: str) -> None:
    """The PyTorch backend finds arguments and results by the suffix __<place> of their names."""
    config = read_config(with_torchscript, f"{graph}_torchscript")
    assert (config.name, config.backend) == (f"{graph}_torchscript", "pytorch")
    info = manifest.graphs[graph]
    for stated, tensors in ((config.input, info.inputs), (config.output, info.outputs)):
        assert [each.name for each in stated] == [f"{name}__{place}" for place, name in enumerate(tensors)]
        assert [tuple(each.dims) for each in stated] == [tensor.shape for tensor in tensors.values()]
        kinds = {"float32": triton.TYPE_FP32, "float16": triton.TYPE_FP16, "int64": triton.TYPE_INT64}
        assert [each.data_type for each in stated] == [kinds[tensor.dtype] for tensor in tensors.values()]


def test_parity_is_measured_for_the_twins_too(manifest: Manifest) -> None:
    assert set(manifest.parity) == {*GRAPHS, *(f"{graph}_torchscript" for graph in GRAPHS)}
    assert all(parity.maximum <= parity.limit for parity in manifest.parity.values())


def test_two_exports_of_a_run_are_the_same_model_but_for_the_twins(repository: Path, manifest: Manifest) -> None:
    twins = {
        f"{graph}_torchscript/{file}"
        for graph in GRAPHS
        for file in ("1/model.pt", "config.pbtxt", "configs/gpu.pbtxt")
    }
    plain = open_repository(repository).manifest
    assert set(manifest.files) == set(plain.files) | twins
    alike = {name: digest for name, digest in plain.files.items() if not name.endswith("/config.pbtxt")}
    assert len(alike) >= len(GRAPHS)
    assert alike.items() <= manifest.files.items()  # by digest; the configurations differ by the instances asked for
    assert plain.parity.items() <= manifest.parity.items()
    # beside the files and what is said of them, only the speed that was measured differs
    differ = {name: getattr(plain, name) for name in ("files", "parity", "digest", "speed")}
    assert manifest.model_copy(update=differ) == plain


def test_the_client_generates_from_it_as_from_any(with_torchscript: Path, repository: Path, run: Run) -> None:
    held_out = run.held_out()
    results = []
    for path in (with_torchscript, repository):
        with Generator.open(path, threads=1, batch_size=16) as generator:
            results.append(generator.counterfactual(held_out, do={"stim": "IFN"}, expression="log1p").X)
    np.testing.assert_array_equal(results[0], results[1])


@pytest.mark.parametrize("graph", GRAPHS)
def test_several_instances_have_a_thread_each(with_torchscript: Path, graph: str) -> None:
    """The graph and its twin, whose backends name threads differently; the reference cells have one instance."""
    for name, parameter in ((graph, "intra_op_thread_count"), (f"{graph}_torchscript", "INTRA_OP_THREAD_COUNT")):
        config = read_config(with_torchscript, name)
        assert config.instance_group[0].count == 3
        assert config.parameters[parameter].string_value == "1"
    assert read_config(with_torchscript, "reference").instance_group[0].count == 1
