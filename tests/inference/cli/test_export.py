"""``causcell export``: what it tells, and runs that it refuses."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import check_missing, refused, run_command, says, truncate, without_package

from causcell_export import exporter as exporting
from causcell_training import Run


@pytest.mark.slow
def test_export_tells_what_it_verified(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("export", made / "run", "--out", tmp_path / "models", "--torchscript", "--deploy") == 0
    out, err = capsys.readouterr()
    for graph in ("encoder_scm", "scm", "denoiser"):
        assert f"{graph}: largest difference" in out
        assert f"{graph}_torchscript: largest difference" in out
    assert "verdicts on the concepts, from held-out cells:\n  stim: " in out
    assert f"exported and verified: {tmp_path / 'models'}" in out
    assert {"README.md", "Caddyfile", "compose.yaml", "Dockerfile"} <= {
        path.name for path in (tmp_path / "models").iterdir()
    }
    assert err.splitlines()[:2] == ["reading the run", "writing and verifying encoder_scm"]
    assert run_command("export", made / "run", "--out", tmp_path / "again", "--no-progress") == 0
    assert capsys.readouterr().err == ""


BAD_RUNS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "nothing": (shutil.rmtree, ["no finished training run", "train first"]),
    "unfinished": (
        lambda r: ((r / "run.json").unlink(), (r / "checkpoints").mkdir()),
        ["no finished training run", "--resume"],
    ),
    "truncated weights": (lambda r: truncate(r / "weights.safetensors"), ["can't be read", "train again"]),
    "truncated description": (lambda r: (r / "run.json").write_text('{"config": {'), ["can't be read", "train again"]),
    "no weights": (lambda r: (r / "weights.safetensors").unlink(), ["weights.safetensors", "train again"]),
    "no held-out cells": (lambda r: (r / "held_out.h5ad").unlink(), ["held_out.h5ad", "train again"]),
    "truncated held-out cells": (lambda r: truncate(r / "held_out.h5ad"), ["held_out.h5ad", "train again"]),
}


@pytest.mark.parametrize("kind", BAD_RUNS)
def test_runs_that_can_not_be_exported(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    make, fragments = BAD_RUNS[kind]
    path = tmp_path / "run"
    shutil.copytree(run.path, path)
    make(path)
    says(refused(capsys, "export", path, "--out", tmp_path / "models"), *fragments)
    assert {each.name for each in tmp_path.iterdir()} <= {"run"}


def test_a_run_without_reference_cells_can_not_be_exported(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_write_graphs", lambda *_: {})  # they take seconds, and come first
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "run" / "reference.npz").unlink()
    says(refused(capsys, "export", tmp_path / "run", "--out", tmp_path / "models"), "reference.npz")
    assert {each.name for each in tmp_path.iterdir()} == {"run"}


@pytest.mark.parametrize("package", ["onnx", "tritonclient"])
def test_export_without_its_packages_names_the_extra(run: Run, tmp_path: Path, package: str) -> None:
    done = without_package(package, "export", run.path, "--out", tmp_path / "models")
    check_missing(done, f"{package!r}", "causcell[export]")
