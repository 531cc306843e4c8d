"""Models of strangers on the command line: one message, exit status 2, no traceback, nothing run."""

import json
from pathlib import Path

import onnx
import pytest
from commands import refused, run_command, says
from strangers import ARCHIVED, stranger


def with_external_data(folder: Path) -> None:
    model = onnx.load(ARCHIVED / "scm" / "1" / "model.onnx")
    weight = model.graph.initializer[0]
    weight.data_location = onnx.TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    stranger(folder, {"scm/1/model.onnx": model.SerializeToString()})


def with_another_backend(folder: Path) -> None:
    config = (ARCHIVED / "scm" / "config.pbtxt").read_text().replace('"onnxruntime"', '"python"')
    stranger(folder, {"scm/config.pbtxt": config.encode()})


def with_a_script(folder: Path) -> None:
    stranger(folder)
    (folder / "scm" / "1" / "model.py").write_text("raise SystemExit('run')")


def with_a_contradiction(folder: Path) -> None:
    stranger(folder, change=lambda fields: fields["dimensions"].update(genes=41))


def with_a_manifest_nested_without_end(folder: Path) -> None:
    stranger(folder)
    (folder / "manifest.json").write_text("[" * 200_000)


def without_the_carriers_configuration(folder: Path) -> None:
    stranger(folder)
    (folder / "reference" / "config.pbtxt").unlink()


FAULTS = {
    with_external_data: "scm/1/model.onnx keeps weights in other files",
    with_another_backend: "scm/config.pbtxt does not name one backend, 'onnxruntime' or 'pytorch'",
    with_a_script: "holds 'scm/1/model.py', which manifest.json does not list",
    with_a_contradiction: "dimensions.genes is for 41 genes, genes.names has 40",
    with_a_manifest_nested_without_end: "it is nested too deeply",
    without_the_carriers_configuration: "reference/config.pbtxt is missing",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("command", ["inspect", "serve"])
def test_a_model_that_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, fault) -> None:
    fault(tmp_path / "models")
    says(refused(capsys, command, tmp_path / "models"), FAULTS[fault])


def test_a_model_that_is_sound_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("inspect", stranger(tmp_path / "models"), "--json") == 0
    assert json.loads(capsys.readouterr().out)["verified"]
