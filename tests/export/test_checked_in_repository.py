"""The model repository that stands in the source tree: the demo's model, as exported."""

from pathlib import Path

import numpy as np
import pytest
from paths import MODEL_REPOSITORY

from causcell._internal.digests import file_digest
from causcell.generator import Generator
from causcell.repository.folder import open_repository
from causcell.repository.manifest import Manifest
from causcell.serve.deployment import FILES, write_deployment
from causcell_export.demo import demo_cells
from causcell_export.triton_config import graph_parameters, triton_config

REPOSITORY = MODEL_REPOSITORY

DOCUMENTS = FILES
"""How to deploy it: not exported, and for people to change."""

MOST_BYTES = 9_000_000
"""It is cloned with the source by everyone."""


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    """Opening verifies every digest."""
    return open_repository(REPOSITORY).manifest


def test_digests_hold_and_cover_every_file(manifest: Manifest) -> None:
    files = {path.relative_to(REPOSITORY).as_posix(): path for path in REPOSITORY.rglob("*") if path.is_file()}
    del files["manifest.json"], files["reference/config.pbtxt"]  # which holds the manifest
    for name in DOCUMENTS:
        del files[name]
    assert manifest.files == {name: file_digest(path) for name, path in files.items()}


def test_its_documents_are_those_that_export_writes(tmp_path: Path) -> None:
    write_deployment(tmp_path)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (REPOSITORY / name).read_bytes(), f"copy {name}, they are one text"


def test_it_is_the_demos_model(manifest: Manifest) -> None:
    assert manifest.concept_schema.names == ("bulk_labels", "phase")
    assert [(edge.parent, edge.child) for edge in manifest.edges] == [("bulk_labels", "phase")]
    assert manifest.concept_schema["phase"].labels == ("G1", "G2M", "S")
    assert manifest.genes.names == tuple(demo_cells().var_names)
    assert manifest.expression.scale == "log1p"


def test_configurations_are_what_this_version_writes(manifest: Manifest) -> None:
    for name, info in manifest.graphs.items():
        parameters = graph_parameters(manifest.files[f"{name}/1/model.onnx"])
        for device, file in (("cpu", "config.pbtxt"), ("gpu", "configs/gpu.pbtxt")):
            expected = triton_config(name, info, parameters=parameters, device=device)
            assert (REPOSITORY / name / file).read_text() == expected


def test_it_is_small(manifest: Manifest) -> None:
    size = sum(path.stat().st_size for path in REPOSITORY.rglob("*") if path.is_file())
    assert size < MOST_BYTES


def test_it_was_exported_within_its_limits_and_measured(manifest: Manifest) -> None:
    assert all(parity.maximum <= parity.limit for parity in manifest.parity.values())
    assert all(preset.quality is not None for preset in manifest.presets.values())


def test_it_generates_counterfactual_cells() -> None:
    cells = demo_cells()
    with Generator.open(REPOSITORY, threads=1) as generator:
        result = generator.counterfactual(cells, do={"phase": "S"}, preset="mean")
    assert result.obs_names.tolist() == cells.obs_names.tolist()
    assert result.var_names.tolist() == cells.var_names.tolist()
    assert (result.obs["phase"] == "S").all()
    assert np.isfinite(result.X).all()
    assert result.X.min() >= 0
    # what it says of a cell resembles that cell more than the average one
    real = cells[:, result.var_names].X.toarray()
    kept = np.asarray(result.obs["phase_factual"] == "S")
    error = ((result.X[kept] - real[kept]) ** 2).mean()
    assert error < ((real[kept] - real.mean(axis=0)) ** 2).mean()
