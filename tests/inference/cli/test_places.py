"""Places that are URLs or in the home folder: refused or expanded, by every command and function that takes one.

Where URLs are taken: tests/inference/atlas/test_object_storage.py, tests/inference/cells/test_remote_cells.py.
"""

import re
from pathlib import Path

import anndata
import pytest
import typer
from commands import COMMANDS, refused, run_command

from causcell.atlas.materialize import materialize_atlas
from causcell.atlas.verify import verify_atlas
from causcell.cli.main import build_app
from causcell.errors import ConfigurationError
from causcell.evaluation.report import write_report
from causcell.generator import Generator
from causcell_export import export
from causcell_export.demo import run_demo
from causcell_training import Run, fit

URLS = ("s3://bucket/out", "gs://bucket/out", "https://host/out", "file:///data/out")
STORES = {"generate": ("s3://", "gs://"), "materialize": ("s3://", "gs://")}
"""Commands that write to object stores too, and the beginnings of their URLs."""

SUFFIX = {"embed": ".h5ad", "trial": ".h5ad", "generate": ".zarr", "materialize": ".zarr", "bench": ".json"}
REQUIRED = {
    "train": ["DATA", "--concept", "stim"],
    "export": ["RUN"],
    "embed": ["DATA", "--models", "MODELS"],
    "generate": ["DATA", "--models", "MODELS"],
    "trial": ["DATA", "--models", "MODELS", "--concept", "stim"],
    "materialize": ["ATLAS", "--models", "MODELS"],
    "evaluate": ["DATA", "--models", "MODELS"],
    "bench": ["MODELS"],
    "benchmark": ["DATA", "--concept", "stim"],
    "demo": [],
}


def writers() -> set[str]:
    """Commands with an option --out."""
    group = typer.main.get_command(build_app())
    return {name for name, command in group.commands.items() if any("--out" in each.opts for each in command.params)}


def test_every_command_that_writes_is_tried() -> None:
    assert writers() == set(REQUIRED)
    assert writers() < set(COMMANDS)


@pytest.fixture
def given(data: Path, repository: Path, run: Run) -> dict[str, Path]:
    return {"DATA": data, "MODELS": repository, "RUN": run.path, "ATLAS": data.with_name("absent.zarr")}


def words_of(command: str, given: dict[str, Path]) -> list[object]:
    return [command, *(given.get(word, word) for word in REQUIRED[command])]


@pytest.mark.parametrize(
    ("command", "url"),
    [(command, url) for command in sorted(REQUIRED) for url in URLS if not url.startswith(STORES.get(command, "-"))],
)
def test_a_url_is_refused_as_a_place(
    command: str, url: str, given: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    place = url + SUFFIX.get(command, "")
    message = refused(capsys, *words_of(command, given), "--out", place)
    assert re.fullmatch(rf"error: --out '?{re.escape(place)}'? is a URL.*; give (a|the) path.*\n", message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["ftp://host/cells.h5ad", "file:///data/cells.h5ad"])
@pytest.mark.parametrize("command", ["train", "embed", "generate", "trial", "evaluate", "benchmark"])
def test_a_url_of_another_kind_is_refused_as_cells(
    command: str, url: str, given: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    words = words_of(command, given | {"DATA": Path(url)})
    message = refused(capsys, *words, "--out", tmp_path / f"out{SUFFIX.get(command, '')}")
    assert f"{url!r} is a URL" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["embed", "generate", "trial", "evaluate", "bench"])
def test_a_url_of_a_store_is_no_model(
    command: str, given: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word if word != given["MODELS"] else "s3://bucket/models" for word in words_of(command, given)]
    message = refused(capsys, *words, "--out", tmp_path / f"out{SUFFIX.get(command, '')}")
    assert "s3://bucket/models" in message
    assert "grpc" in message
    assert list(tmp_path.iterdir()) == []


def test_functions_refuse_a_url_too(
    generator: Generator, cells: anndata.AnnData, run: Run, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    calls = {
        "write_atlas": lambda: generator.write_atlas(cells, "https://host/a.zarr"),
        "write_atlas as a file": lambda: generator.write_atlas(cells, Path("s3://bucket/a.h5ad")),
        "fit": lambda: fit(cells, "s3://bucket/run", concepts=["stim"]),
        "export": lambda: export(run, "s3://bucket/models"),
        "materialize_atlas": lambda: materialize_atlas(generator.model, "https://host/a.zarr", "b.zarr"),
        "verify_atlas": lambda: verify_atlas("https://host/a.zarr"),
        "write_report": lambda: write_report(Path("s3://bucket/report"), "", {}, []),
        "run_demo": lambda: run_demo(Path("s3://bucket/demo")),
        "embed": lambda: generator.embed("ftp://host/cells.h5ad"),
        "counterfactual": lambda: generator.counterfactual("ftp://host/cells.h5ad"),
    }
    for name, call in calls.items():
        with pytest.raises(ConfigurationError, match=r"'\w+://\w+/[\w.]+' is a URL"):
            pytest.fail(f"{name} returned {call()}")
    assert list(tmp_path.iterdir()) == []


def test_home_is_expanded(data: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a shell does it where an option and its value are two words: --out=~/cells.h5ad is one."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cells.h5ad").write_bytes(data.read_bytes())
    (tmp_path / "models").symlink_to(made / "models")
    words = ["~/cells.h5ad", "--models=~/models", "--no-progress"]
    assert run_command("embed", *words, "--out=~/deep/embedded.h5ad") == 0
    assert run_command("generate", *words, "--do", "stim=IFN", "--out=~/deep/atlas.zarr") == 0
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["atlas.zarr", "embedded.h5ad"]
    assert run_command("verify", "~/deep/atlas.zarr", "--no-progress") == 0
    assert not (tmp_path / "~").exists()
