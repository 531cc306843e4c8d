"""Model repositories that are not as they were exported: every command that opens one says what is wrong."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import embed_words, generate_words, refused, says, truncate

from causcell.repository.manifest import PLAIN_SCHEMA_VERSION, SCHEMA_VERSION


def edited_manifest(models: Path) -> None:
    text = (models / "manifest.json").read_text()
    (models / "manifest.json").write_text(text.replace('"ctrl"', '"rest"', 1))


def newer_manifest(models: Path) -> None:
    text = (models / "manifest.json").read_text()
    (models / "manifest.json").write_text(
        text.replace(f'"schema_version": {PLAIN_SCHEMA_VERSION}', '"schema_version": 99', 1)
    )


def lacking_manifest(models: Path) -> None:
    (models / "manifest.json").write_text('{"schema_version": 1}')


BAD_REPOSITORIES: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "truncated graph": (
        lambda m: truncate(m / "denoiser/1/model.onnx"),
        ["denoiser/1/model.onnx", "truncated", "export"],
    ),
    "missing graph": (lambda m: (m / "scm/1/model.onnx").unlink(), ["scm/1/model.onnx", "missing", "export again"]),
    "truncated reference": (lambda m: truncate(m / "reference.npz"), ["reference.npz", "truncated", "export again"]),
    "edited configuration": (
        lambda m: (m / "scm/config.pbtxt").write_text("name: 'scm'"),
        ["scm/config.pbtxt", "changed", "export again"],
    ),
    "edited manifest": (edited_manifest, ["manifest.json", "edited after export", "restore it, or export again"]),
    "newer manifest": (
        newer_manifest,
        ["manifest.json", "schema version 99", f"up to {SCHEMA_VERSION}", "update causcell"],
    ),
    "truncated manifest": (lambda m: truncate(m / "manifest.json") or truncate(m / "manifest.json"), ["manifest.json"]),
    "lacking manifest": (lacking_manifest, ["manifest.json", "not a valid manifest", "export again"]),
    "no manifest": (
        lambda m: (m / "manifest.json").unlink(),
        ["no model repository", "manifest.json", "causcell export"],
    ),
    "nothing": (shutil.rmtree, ["no model repository", "manifest.json", "causcell export"]),
}


@pytest.mark.parametrize("kind", BAD_REPOSITORIES)
def test_repositories_that_are_not_as_exported(
    folder: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    make, fragments = BAD_REPOSITORIES[kind]
    models = tmp_path / "models"
    shutil.copytree(repository, models)
    make(models)
    good = folder / "good.h5ad"
    for words in (
        ["inspect", models],
        ["inspect", models, "--json"],
        generate_words(good, models, tmp_path / "atlas.zarr", "--do", "stim=IFN"),
        embed_words(good, models, tmp_path / "embedded.h5ad"),
    ):
        says(refused(capsys, *words), *fragments)
    assert {path.name for path in tmp_path.iterdir()} <= {"models"}


def test_a_location_that_is_no_path(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", folder / "good.h5ad", "--models", "ftp://host/models", "--out", tmp_path / "atlas.zarr"]
    says(refused(capsys, *words), "ftp://host/models")
