"""A served model is the embedded one: the same cells, from nothing but an address; what does not fit is refused."""

import contextlib
import errno
import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engine_contract import reference_inputs
from paths import shared_memory

from causcell.cells.collection import Cells
from causcell.counterfactual.request import make_request
from causcell.engine.open import open_engine
from causcell.engine.triton.client import TritonClient
from causcell.engine.triton.connection import Connection, parse_location
from causcell.errors import CorruptFileError, DigestError, EngineError, SchemaVersionError
from causcell.generator import Generator
from causcell.repository.manifest import Manifest
from causcell.repository.served import manifest_parameter
from causcell.serve.server import TritonServer

WAYS = {
    "grpc": ("grpc", Connection(shared_memory=False)),
    "grpc, shared memory": ("grpc", Connection()),
    "http": ("http", Connection(shared_memory=False)),
    "http, shared memory": ("http", Connection()),
    "one at a time": ("grpc", Connection(in_flight=1)),
}

pytestmark = pytest.mark.serving


@pytest.fixture(scope="module", params=WAYS)
def served(request, server):
    protocol, connection = WAYS[request.param]
    with Generator.open(getattr(server, protocol), connection=connection, batch_size=64) as opened:
        yield opened


@pytest.fixture(scope="module")
def engine(server):
    with contextlib.closing(open_engine(server.grpc, connection=Connection(in_flight=16))) as opened:
        yield opened


def check_alike(found: np.ndarray, expected: np.ndarray, limit: float = 1e-4, flips: float = 0.0) -> None:
    """To the tolerance of two engines; a draw whose uniform number is at its threshold may flip."""
    beyond = np.abs(found - expected) > limit * (1 + np.abs(expected))
    assert beyond.mean() <= flips


# -- the same model ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"preset": "draw"},
        {"preset": "mean"},
        {"solver": "draw", "steps": 3},
        {"solver": "dpmpp", "steps": 5},
        {"solver": "ddpm", "steps": 4},
        {"preset": "draw", "draws": 2, "mode": "exogenous"},
    ],
    ids=str,
)
def test_counterfactual_cells_are_the_embedded_engines(served, generator, cells, options):
    found = served.counterfactual(cells, {"stim": "IFN"}, seed=3, **options)
    expected = generator.counterfactual(cells, {"stim": "IFN"}, seed=3, **options)
    check_alike(found.X, expected.X, limit=1e-3, flips=1e-3)
    assert found.obs.equals(expected.obs)
    assert found.uns["causcell"]["engine"].startswith("Triton")


@pytest.mark.parametrize("options", [{"preset": "draw"}, {"preset": "mean"}, {"solver": "ddpm", "steps": 2}], ids=str)
def test_float16_is_asked_of_the_server_and_is_float32_rounded(served, cells, options):
    """Half the bytes from the decoder on; the mean is made of the slab, which has float32 alone, and rounded here.

    The client's own loop rounds at its end.
    """
    asked = []
    run = served.engine.run

    def listening(graph, inputs, outputs=None):
        asked.append(outputs)
        return run(graph, inputs, outputs)

    settings = served.solver_settings(**options)
    request = make_request(served.manifest, {"stim": "IFN"}, settings=settings, dtype="float16")
    with served.bind(Cells(cells)) as bound:
        expected = [block.arrays["X"] for block in served.generate(bound, replace(request, dtype="float32"))]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(served.engine, "run", listening)
            found = [block.arrays["X"] for block in served.generate(bound, request)]
    np.testing.assert_array_equal(np.concatenate(found), np.concatenate(expected).astype(np.float16), strict=True)
    assert (("expression_float16",) in asked) == (options.get("preset") == "draw")
    assert (("slab_probability", "slab_mean") in asked) == (options.get("preset") == "mean")
    assert ("expression",) not in asked


def test_embeddings_are_the_embedded_engines(served, generator, cells):
    found, expected = served.embed(cells), generator.embed(cells)
    assert found.obs.equals(expected.obs)
    for name in expected.obsm:
        check_alike(found.obsm[name], expected.obsm[name])


def test_requests_that_the_server_batches_together_are_answered_apart(server, engine, generator):
    """Many small ones at once; the server's own count shows that some were batched."""
    inputs = reference_inputs(generator.engine, 96)
    expected = generator.engine.run("scm", inputs)
    asked = [slice(start, start + 1 + start % 3) for start in range(90)] * 3
    before = engine.statistics()[server.grpc]["scm"]
    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(lambda rows: engine.run("scm", {name: each[rows] for name, each in inputs.items()}), asked)
        )
    after = engine.statistics()[server.grpc]["scm"]
    for rows, answer in zip(asked, answers, strict=True):
        for name, array in expected.items():
            check_alike(answer[name], array[rows])
    assert after["requests"] - before["requests"] == len(asked)
    assert after["executions"] - before["executions"] < len(asked)
    assert after["failed"] == before["failed"]


def test_a_host_that_runs_out_of_shared_memory_goes_on_without(server, generator, monkeypatch, caplog):
    """As in a container, which has 64 MB: a small region is had, a larger one is not."""
    reserve = os.posix_fallocate

    def limited(file, offset, size):
        if size > 4096:
            raise OSError(errno.ENOSPC, "No space left on device")
        reserve(file, offset, size)

    before = shared_memory()
    with contextlib.closing(open_engine(server.grpc)) as engine:
        monkeypatch.setattr(os, "posix_fallocate", limited)
        found = engine.run("encoder_scm", {"expression": np.ones((256, 50), np.float32)}, ("endogenous",))
        assert "no more memory to share" in caplog.text
        assert shared_memory() <= before
    expected = generator.engine.run("encoder_scm", {"expression": np.ones((256, 50), np.float32)}, ("endogenous",))
    check_alike(found["endogenous"], expected["endogenous"])


# -- what does not fit -------------------------------------------------------------------------------------------------


@pytest.fixture
def client(server):
    with contextlib.closing(TritonClient(*parse_location(server.grpc), Connection())) as opened:
        yield opened


def test_what_the_server_itself_refuses_is_an_engine_error_at_once(client, generator):
    """Past the engine's own checks: a shape that the server does not take, and a model that it does not have."""
    with pytest.raises(EngineError, match="expected 3 inputs but got 1"):
        client.infer("scm", {"exogenous": np.zeros((2, 3, 3), np.float32)}, {"endogenous": ("float32", (2, 3, 3))})
    many = {name: np.resize(each, (1025, *each.shape[1:])) for name, each in reference_inputs(generator.engine).items()}
    with pytest.raises(EngineError, match=r"refused the request .*batch-size must be <= 1024"):
        client.infer("scm", many, {"endogenous": ("float32", many["exogenous"].shape)})
    with pytest.raises(EngineError, match="refused the request"):
        client.infer("nothing", {"x": np.zeros((2, 3), np.float32)}, {"y": ("float32", (2, 3))})
    inputs = reference_inputs(generator.engine)
    assert client.infer("scm", inputs, {"endogenous": ("float32", inputs["exogenous"].shape)})  # and goes on


# -- servers of something else -----------------------------------------------------------------------------------------


def edit_config(folder: Path, model: str, pattern: str, text: str) -> None:
    path = folder / model / "config.pbtxt"
    edited, count = re.subn(pattern, lambda _: text, path.read_text())
    assert count == 1
    path.write_text(edited)


def carry(folder: Path, fields: dict) -> None:
    escaped = manifest_parameter(fields).replace("\\", "\\\\").replace('"', '\\"').replace("'", "\\'")
    pattern = r'(?s)(?<=key: "causcell.manifest"\n  value \{\n    string_value: ")(\\.|[^"\\])*(?=")'
    edit_config(folder, "reference", pattern, escaped)


def serve_another_export(folder: Path) -> None:
    edit_config(folder, "decoder", r'(?<=string_value: ")[0-9a-f]{64}', "0" * 64)


def serve_other_reference_cells(folder: Path) -> None:
    edit_config(folder, "reference", r'(?<=causcell.reference_bytes"\n  value \{\n    string_value: ")\d+', "100")


def serve_a_newer_version(folder: Path) -> None:
    carry(folder, json.loads((folder / "manifest.json").read_text()) | {"schema_version": 99})


def serve_an_edited_manifest(folder: Path) -> None:
    carry(folder, json.loads((folder / "manifest.json").read_text()) | {"default_preset": "mean"})


def serve_no_manifest(folder: Path) -> None:
    shutil.rmtree(folder / "reference")


def serve_a_graph_less(folder: Path) -> None:
    shutil.rmtree(folder / "scm")


@pytest.mark.parametrize(
    ("harm", "error", "message"),
    [
        (serve_another_export, DigestError, "serves 'decoder' of another export than its manifest's"),
        (serve_other_reference_cells, DigestError, "reference cells that .* serves are not those of its manifest"),
        (serve_a_newer_version, SchemaVersionError, "schema version 99.*update causcell"),
        (serve_an_edited_manifest, DigestError, "was edited after export"),
        (serve_no_manifest, CorruptFileError, "serves no model 'reference'"),
        (serve_a_graph_less, CorruptFileError, "serves no model 'scm'"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_server_of_something_else(repository, tmp_path, harm, error, message):
    folder = tmp_path / "models"
    shutil.copytree(repository, folder)
    harm(folder)
    with TritonServer(folder, threads=1, verify=False) as server, pytest.raises(error, match=message):
        open_engine(server.grpc)


def test_servers_of_one_location_must_serve_one_model(server, repository, tmp_path):
    folder = tmp_path / "models"
    shutil.copytree(repository, folder)
    fields = json.loads((folder / "manifest.json").read_text())
    fields["provenance"]["seconds"] = 1
    other = Manifest.model_validate(fields).sealed()
    carry(folder, json.loads(other.to_json()))
    with (
        TritonServer(folder, threads=1, verify=False) as second,
        pytest.raises(DigestError, match="must serve the same model"),
    ):
        open_engine(f"{server.grpc},{second.grpc}")
