"""Instances and threads of models on CPUs, as an export sets them and a server takes them."""

import contextlib
import shutil
from pathlib import Path

import pytest
from exported import read_config
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as triton

from causcell.engine.open import open_engine
from causcell.errors import ConfigurationError
from causcell.repository.manifest import Manifest
from causcell.serve.server import TritonServer
from causcell_export import export
from causcell_export.triton_config import CpuSettings, graph_parameters, triton_config


def written(manifest: Manifest, graph: str, cpu: CpuSettings | None, **options: str) -> triton.ModelConfig:
    text = triton_config(graph, manifest.graphs[graph], parameters=graph_parameters("0" * 64), cpu=cpu, **options)
    return text_format.Parse(text, triton.ModelConfig())


@pytest.fixture
def manifest(generator) -> Manifest:
    return generator.manifest


def test_instances_of_one_thread_each(manifest):
    """One thread has no pool, and so none that spins while it waits."""
    config = written(manifest, "decoder", CpuSettings(instances=6, threads=1))
    assert [(group.kind, group.count) for group in config.instance_group] == [(triton.ModelInstanceGroup.KIND_CPU, 6)]
    assert {key: value.string_value for key, value in config.parameters.items()} == {
        **graph_parameters("0" * 64),
        "intra_op_thread_count": "1",
        "inter_op_thread_count": "1",
    }


def test_without_settings_a_configuration_is_as_ever(manifest):
    """One instance, and no threads: the server is told those."""
    assert written(manifest, "decoder", None) == written(manifest, "decoder", CpuSettings())
    assert written(manifest, "decoder", None).instance_group[0].count == 1
    assert "intra_op_thread_count" not in written(manifest, "decoder", None).parameters


def test_a_gpus_configuration_has_none_of_it(manifest):
    assert written(manifest, "decoder", CpuSettings(4, 1), device="gpu") == written(
        manifest, "decoder", None, device="gpu"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"instances": 0}, "instances is 0; take 1 to 1024, such as the CPUs of the server"),
        ({"instances": 2000}, "instances is 2000; take 1 to 1024"),
        ({"threads_per_instance": -1}, "threads_per_instance is -1; take 1 to 1024"),
        ({"threads_per_instance": 0}, "threads_per_instance is 0; take 1 to 1024"),
    ],
    ids=str,
)
def test_numbers_that_can_not_be(tmp_path, options, message):
    """Refused before the run is read."""
    with pytest.raises(ConfigurationError, match=message):
        export(tmp_path / "no run", tmp_path / "out", **options)


@pytest.mark.serving
def test_a_server_runs_as_many_instances_as_were_exported(repository, manifest, tmp_path):
    """Without being told threads: each has the one that its configuration says."""
    folder = Path(shutil.copytree(repository, tmp_path / "models"))
    digest = graph_parameters(manifest.files["scm/1/model.onnx"])
    (folder / "scm" / "config.pbtxt").write_text(
        triton_config("scm", manifest.graphs["scm"], parameters=digest, cpu=CpuSettings(instances=3, threads=1))
    )
    with TritonServer(folder, verify=False) as server, contextlib.closing(open_engine(server.grpc)) as engine:
        instances = {model["name"]: model["instances"] for model in engine.status()[0]["models"]}
        stubs = [path for path in Path("/proc").glob("[0-9]*/cmdline") if is_instance(path, server, "scm")]
        threads = [len(list((path.parent / "task").iterdir())) for path in stubs]
    assert instances == dict.fromkeys(instances, 1) | {"scm": 3}
    assert len(stubs) == 3
    assert len(set(threads)) == 1


def is_instance(cmdline: Path, server: TritonServer, model: str) -> bool:
    """Tell if a process is one of the server's, for the model."""
    try:
        words = cmdline.read_bytes().decode().split("\0")
        status = (cmdline.parent / "status").read_text()
    except OSError:
        return False
    return f"NSpgid:\t{server.process.pid}" in status and any(f"/{model}/" in word for word in words)


def test_the_option_reaches_the_files(repository):
    """The manifest's digests cover every configuration of a graph, so that instances can't change unseen."""
    names = Manifest.from_json((repository / "manifest.json").read_bytes(), "manifest").files
    for graph in ("decoder", "sampler", "scm"):
        assert f"{graph}/config.pbtxt" in names
        assert read_config(repository, graph).instance_group[0].count == 1
