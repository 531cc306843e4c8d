"""The model repository: Triton's configurations, complete digests, presets, and an export that fails leaves nothing."""

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from exported import GRAPHS, read_config
from tritonclient.grpc import model_config_pb2 as triton

import causcell_export
from causcell._internal.digests import file_digest
from causcell.errors import ExportVerificationError, OutputExistsError, RunError
from causcell.repository.folder import open_repository
from causcell.repository.manifest import Manifest
from causcell.repository.served import CHUNK
from causcell_export import export
from causcell_export import exporter as exporting
from causcell_export.graphs import Graph
from causcell_export.onnx_file import write_onnx
from causcell_export.quality import default_preset
from causcell_export.triton_config import graph_parameters, triton_config
from causcell_training import Run
from causcell_training.heads import SpikeSlabHead

MODELS = (*GRAPHS, "reference")

ONNX_TYPES = {
    onnx.TensorProto.FLOAT: triton.TYPE_FP32,
    onnx.TensorProto.FLOAT16: triton.TYPE_FP16,
    onnx.TensorProto.INT64: triton.TYPE_INT64,
    onnx.TensorProto.UINT8: triton.TYPE_UINT8,
}


@pytest.fixture(scope="module")
def manifest(repository: Path) -> Manifest:
    return open_repository(repository).manifest


# -- Triton ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("graph", MODELS)
def test_a_configuration_asks_for_its_folder_and_warms_up_with_its_inputs(repository: Path, graph: str) -> None:
    config = read_config(repository, graph)
    assert config.name == graph  # Triton asks for the folder's name
    assert config.max_batch_size >= 256
    for warm_up in config.model_warmup:
        assert {name: tensor.data_type for name, tensor in warm_up.inputs.items()} == {
            tensor.name: tensor.data_type for tensor in config.input
        }


@pytest.mark.parametrize("graph", MODELS)
def test_the_configuration_agrees_with_the_onnx_file(repository: Path, graph: str) -> None:
    config = read_config(repository, graph)
    model = onnx.load(repository / graph / "1" / "model.onnx").graph
    for stated, tensors in ((config.input, model.input), (config.output, model.output)):
        assert [each.name for each in stated] == [tensor.name for tensor in tensors]
        for each, tensor in zip(stated, tensors, strict=True):
            kind = tensor.type.tensor_type
            assert each.data_type == ONNX_TYPES[kind.elem_type]
            # Triton adds the batch, and writes a free axis as -1
            assert list(each.dims) == [-1 if dim.dim_param else dim.dim_value for dim in kind.shape.dim[1:]]


@pytest.mark.parametrize("graph", GRAPHS)
def test_the_configuration_is_what_the_manifest_makes(repository: Path, manifest: Manifest, graph: str) -> None:
    parameters = graph_parameters(manifest.files[f"{graph}/1/model.onnx"])
    expected = triton_config(graph, manifest.graphs[graph], parameters=parameters)
    assert (repository / graph / "config.pbtxt").read_text() == expected


@pytest.mark.parametrize("graph", GRAPHS)
def test_the_configuration_for_gpus_differs_in_its_instances_alone(repository: Path, graph: str) -> None:
    cpu, gpu = read_config(repository, graph), read_config(repository, graph, "configs/gpu.pbtxt")
    assert [group.kind for group in cpu.instance_group] == [triton.ModelInstanceGroup.KIND_CPU]
    assert [group.kind for group in gpu.instance_group] == [triton.ModelInstanceGroup.KIND_GPU]
    for config in (cpu, gpu):
        config.ClearField("instance_group")
    assert cpu == gpu


NATIVE = {
    "name",
    "backend",
    "version_policy",
    "max_batch_size",
    "input",
    "output",
    "instance_group",
    "dynamic_batching",
    "parameters",
    "model_warmup",
}
"""Fields that Triton's native ONNX Runtime backend knows of: any other would bind the model to one kind of server."""


def test_configurations_hold_what_the_native_backend_accepts_alone(repository: Path) -> None:
    files = [path.relative_to(repository) for path in repository.rglob("*.pbtxt")]
    assert len(files) == 2 * len(GRAPHS) + 1
    for model, *rest in (file.parts for file in files):
        config = read_config(repository, model, "/".join(rest))
        assert {field.name for field, _ in config.ListFields()} == NATIVE
        assert config.backend == "onnxruntime"
        assert all(key.startswith("causcell.") for key in config.parameters)  # none that tells a backend anything
        assert {field.name for group in config.instance_group for field, _ in group.ListFields()} == {"count", "kind"}
        for tensor in (*config.input, *config.output):
            assert {field.name for field, _ in tensor.ListFields()} == {"name", "data_type", "dims"}
        assert (repository / model / "1" / "model.onnx").is_file()  # where the backend looks if it is not told


def test_the_model_named_reference_carries_what_clients_of_a_server_need(repository: Path) -> None:
    """The manifest, and the reference cells' bytes by chunks."""
    parameters = read_config(repository, "reference").parameters
    fields = json.loads(parameters["causcell.manifest"].string_value)
    assert fields == json.loads((repository / "manifest.json").read_text())
    content = (repository / "reference.npz").read_bytes()
    assert int(parameters["causcell.reference_bytes"].string_value) == len(content)
    session = onnxruntime.InferenceSession(repository / "reference" / "1" / "model.onnx")
    chunks = np.arange(-(-len(content) // CHUNK))[:, None]
    (served,) = session.run(None, {"chunk": chunks})
    assert served.shape == (len(chunks), 1, CHUNK)
    assert served.tobytes()[: len(content)] == content


def test_a_graphs_matrix_products_are_the_networks(run: Run, manifest: Manifest) -> None:
    """Written out for the decoder: concepts, two blocks of attention and feed-forward, the head's two maps."""
    config, genes = run.model.config, len(run.model.preprocessing.genes)
    width, concepts = config.width, run.model.schema.size
    token = config.heads * (config.embedding + concepts)
    block = [(width, token), (token, width), (width, 2 * width), (width, 2 * width), (2 * width, width)]
    body = [(concepts * config.embedding, width), *(config.blocks * block), (width, genes), (width, genes)]
    assert sorted(manifest.graphs["decoder"].products) == sorted(body)
    for graph in ("denoiser", "sampler"):  # and x_t; in a loop they are a step's
        assert sorted(manifest.graphs[graph].products) == sorted([*body, (genes, width)])


def test_every_folder_but_one_is_a_graph_of_the_manifest(repository: Path, manifest: Manifest) -> None:
    """Triton takes every folder for a model; the one beside the graphs is for its clients."""
    folders = {path.name for path in repository.iterdir() if path.is_dir()}
    assert folders - {"reference"} == set(manifest.graphs) == set(manifest.parity) == set(GRAPHS)


# -- manifest ----------------------------------------------------------------------------------------------------------


def test_every_file_but_the_manifest_has_its_digest(repository: Path, manifest: Manifest) -> None:
    files = {path.relative_to(repository).as_posix(): path for path in repository.rglob("*") if path.is_file()}
    del files["manifest.json"], files["reference/config.pbtxt"]  # which holds the manifest
    assert manifest.files == {name: file_digest(path) for name, path in files.items()}


def test_no_file_is_a_pickle(repository: Path) -> None:
    kinds = {path.suffix for path in repository.rglob("*") if path.is_file()}
    assert kinds == {".json", ".npz", ".onnx", ".pbtxt"}
    with np.load(repository / "reference.npz", allow_pickle=False) as arrays:  # raises for a pickled array
        assert all(arrays[name].dtype.kind in "fi" for name in arrays.files)


def test_the_manifest_is_plain_json(repository: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    json.loads((repository / "manifest.json").read_text(), parse_constant=refuse)


def test_the_manifest_holds_the_models_panel_concepts_and_scale(run: Run, manifest: Manifest) -> None:
    model = run.model
    assert manifest.concept_schema == model.schema
    stated, trained = manifest.preprocessing, model.preprocessing
    assert (stated.genes, stated.scale, stated.normalisation_genes) == (
        trained.genes,
        trained.scale,
        trained.normalisation_genes,
    )
    np.testing.assert_array_equal(stated.mean, trained.mean)  # not a bit is lost in the text
    np.testing.assert_array_equal(stated.deviation, trained.deviation)
    np.testing.assert_array_equal(manifest.schedule.alpha_bar, model.schedule.alpha_bar)
    assert manifest.dimensions.model_dump() == {"genes": 50, "concepts": 4, "embedding": 8}
    assert manifest.training_cells == run.training_cells
    assert manifest.provenance == run.provenance
    assert run.versions.items() <= manifest.versions.items()


def test_reference_cells_are_the_runs(run: Run, repository: Path) -> None:
    found = open_repository(repository).reference
    np.testing.assert_array_equal(found.exogenous, run.reference.exogenous)
    np.testing.assert_array_equal(found.labels, run.reference.labels)
    np.testing.assert_array_equal(found.combinations, run.reference.combinations)


def test_parity_was_measured_and_is_within_its_limit(manifest: Manifest) -> None:
    for parity in manifest.parity.values():
        assert 0 <= parity.mean <= parity.maximum <= parity.limit <= 1e-3
        assert 0 <= parity.flips <= 1e-3


def test_every_preset_has_its_quality_on_the_test_cells(run: Run, manifest: Manifest) -> None:
    assert set(manifest.presets) == {"draw", "balanced", "accurate", "mean"}
    for preset in manifest.presets.values():
        assert preset.quality is not None
        assert {"pcc", "mse", "cells", "nonzero", "nonzero_real", "nonzero_mean"} <= set(preset.quality)
        assert preset.quality["cells"] == run.provenance["cells"]["report"]
        assert np.isfinite(list(preset.quality.values())).all()
    # the mean preset is the mean estimate that training measured on the same cells, at abar 0 in place of 4e-5; both
    # are rounded to 4 digits
    for measure, value in run.provenance["held_out"].items():
        assert manifest.presets["mean"].quality[measure] == pytest.approx(value, abs=2e-4, rel=2e-4)


def test_every_preset_has_its_speed(manifest: Manifest) -> None:
    """A preset of fifty steps is slower than one of one step by several times."""
    assert set(manifest.speed) == set(manifest.presets)
    assert manifest.speed["draw"] > 5 * manifest.speed["accurate"] > 0


STEPS = {"draw": 1, "balanced": 10, "accurate": 50, "mean": 1}


@pytest.mark.parametrize(
    ("distances", "chosen"),
    [
        ({"draw": [0.1, 0.2], "balanced": [0.1, 0.2], "accurate": [0.1, 0.2], "mean": [3.0, 3.0]}, "draw"),
        ({"draw": [0.2, 0.2], "balanced": [0.1, 0.1], "accurate": [0.1, 0.1], "mean": [3.0, 3.0]}, "balanced"),
        ({"draw": [0.2, 0.2], "balanced": [0.16, 0.16], "accurate": [0.1, 0.1], "mean": [3.0, 3.0]}, "accurate"),
        ({"draw": [0.05, 0.3], "balanced": [0.1, 0.1], "accurate": [0.1, 0.1], "mean": [3.0, 3.0]}, "draw"),
        ({"draw": [0.125, 0.125], "balanced": [0.1, 0.1], "accurate": [0.1, 0.1], "mean": [3.0, 3.0]}, "draw"),
        ({"draw": [0.135, 0.135], "balanced": [0.1, 0.1], "accurate": [0.1, 0.1], "mean": [3.0, 3.0]}, "balanced"),
        ({"draw": [1.3, 1.3], "balanced": [1.3, 1.3], "accurate": [0.8, 0.8], "mean": [0.7, 0.7]}, "mean"),
        ({"draw": None, "balanced": None, "accurate": None, "mean": None}, "draw"),
        ({}, "draw"),
    ],
    ids=[
        "equal",
        "steps help",
        "all steps help",
        "within noise",
        "within a hundredth of the mean",
        "more than that",
        "a mean is better",
        "too few cells",
        "none",
    ],
)
def test_the_default_preset_is_the_cheapest_that_is_about_as_good_as_many_steps(
    distances: dict[str, list[float] | None], chosen: str
) -> None:
    assert default_preset(STEPS, distances) == chosen


# -- failures ----------------------------------------------------------------------------------------------------------

Tamper = Callable[[Graph, Mapping[str, np.ndarray], Path, Mapping[str, str]], None]


def with_other_weights(
    graph: Graph, example: Mapping[str, np.ndarray], path: Path, metadata: Mapping[str, str]
) -> None:
    """The file of a model whose weights are all a thousandth larger."""
    module = deepcopy(graph.module)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.001)
    write_onnx(replace(graph, module=module), example, path, metadata)


def with_a_fixed_batch(
    graph: Graph, example: Mapping[str, np.ndarray], path: Path, metadata: Mapping[str, str]
) -> None:
    write_onnx(graph, example, path, metadata)
    model = onnx.load(path)
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_value = 7
    onnx.save(model, path)


def with_other_names(graph: Graph, example: Mapping[str, np.ndarray], path: Path, metadata: Mapping[str, str]) -> None:
    outputs = {f"out_{i}": tensor for i, tensor in enumerate(graph.info.outputs.values())}
    write_onnx(replace(graph, info=graph.info.model_copy(update={"outputs": outputs})), example, path, metadata)


@pytest.mark.parametrize(
    ("tamper", "fragments"),
    [
        (with_other_weights, ["encoder_scm", "differs from the trained model", "the limit 0.0001"]),
        (with_a_fixed_batch, ["encoder_scm", "batch axis", "'expression'", "fixed at 7"]),
        (with_other_names, ["encoder_scm", "'out_0'", "'exogenous_mean'"]),
    ],
)
def test_a_graph_that_is_not_the_trained_model_is_not_exported(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tamper: Tamper, fragments: list[str]
) -> None:
    monkeypatch.setattr(exporting, "write_onnx", tamper)
    with pytest.raises(ExportVerificationError) as error:
        export(run, tmp_path / "repository")
    for fragment in fragments:
        assert fragment in str(error.value)
    assert list(tmp_path.iterdir()) == []  # neither there nor beside it


def test_a_graph_that_answers_nan_is_not_exported(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the model itself does: a difference of NaN is below no limit and above none."""
    broken = replace(run, model=deepcopy(run.model))
    with torch.no_grad():
        broken.model.encoder.output.bias[0] = torch.nan
    with pytest.raises(ExportVerificationError, match="encoder_scm"):
        export(broken, tmp_path / "repository")
    assert list(tmp_path.iterdir()) == []


def test_an_export_tells_its_stages_where_it_is_asked_to(
    run: Run, manifest: Manifest, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    again = export(run, tmp_path / "repository", progress=True)
    told = capfd.readouterr().err.splitlines()
    assert told[0] == "reading the run"
    for name in manifest.graphs:
        assert f"writing and verifying {name}" in told
    for name in manifest.presets:
        assert f"timing preset {name}" in told
        for purpose in ("to choose by", "to report on"):
            stage = re.compile(rf"judging preset {name} on \d+ cells {purpose}, [123] of 3")
            judged = [line for line in told if stage.fullmatch(line)]
            assert len(judged) == 3
    # and what is written is the same: batches that are filled otherwise move nothing beyond rounding
    found = open_repository(again).manifest
    assert found.files == manifest.files
    for name, preset in manifest.presets.items():
        assert found.presets[name].quality == pytest.approx(preset.quality, abs=1e-4)


def test_what_exists_is_refused_and_left_as_it_is(run: Run, tmp_path: Path) -> None:
    taken = tmp_path / "repository"
    taken.mkdir()
    (taken / "mine").write_text("kept")
    with pytest.raises(OutputExistsError, match="exists already"):
        export(run, taken)
    assert (taken / "mine").read_text() == "kept"
    assert [path.name for path in tmp_path.rglob("*")] == ["repository", "mine"]


def test_a_folder_without_a_run_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no finished training run.*train first"):
        export(tmp_path, tmp_path / "repository")
    assert list(tmp_path.iterdir()) == []


# -- old names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "name", "new"),
    [
        ("causcell_export.repository", "export", "causcell_export.exporter"),
        ("causcell_export.repository", "default_preset", "causcell_export.exporter"),
        ("causcell_export.benchmark", "run_benchmark", "causcell_export.cross_validation"),
    ],
)
def test_modules_that_moved_are_found_by_their_old_names(old: str, name: str, new: str) -> None:
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} is deprecated; use {new}"):
        module = importlib.import_module(old)
    assert callable(getattr(module, name))


def test_presets_are_read_from_the_heads_by_their_old_name_too() -> None:
    with pytest.warns(DeprecationWarning, match=r"use causcell_training\.heads\.head_class\(\)\.presets"):
        presets = exporting.PRESETS
    assert presets["spike_slab"] == SpikeSlabHead.presets


def test_the_package_shows_what_is_public() -> None:
    assert dir(causcell_export) == ["export"]


# -- time --------------------------------------------------------------------------------------------------------------


def test_an_export_does_not_import_what_trains() -> None:
    """Lightning takes a second, and scikit-learn half a one."""
    script = (
        "import sys, causcell_export.exporter; print(sorted({'lightning', 'sklearn', 'scanpy'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
