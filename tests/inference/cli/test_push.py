"""``causcell push``, and every command that takes a model by its name on a hub: each a process of its own."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import anndata
import numpy as np
import pytest
from commands import CONSOLE_SCRIPT, check_missing, generate_words, refused, run_command, says, without_package
from false_hub import FalseHub, environment, run_hub

NAME = "hf://lab/simulated"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FalseHub]:
    pytest.importorskip("huggingface_hub", reason="takes causcell[hub]")
    with run_hub() as running:
        yield running


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where huggingface_hub keeps what it downloads."""
    return tmp_path_factory.mktemp("home")


def command(hub: FalseHub, home: Path, *words: object, **more: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [CONSOLE_SCRIPT, *map(str, words)],
        env=os.environ | environment(hub, home) | more,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture(scope="module")
def pushed(hub: FalseHub, home: Path, repository: Path) -> dict[str, object]:
    words = ["--license", "cc-by-4.0", "--data", "simulated", "--json"]
    done = command(hub, home, "push", repository, NAME, *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_is_told(hub: FalseHub, home: Path, repository: Path, pushed: dict[str, object]):
    done = command(hub, home, "push", repository, NAME, "--license", "cc-by-4.0", "--data", "simulated")
    lines = done.stdout.splitlines()
    assert lines[0] == f"shared {pushed['name']}"
    assert lines[1] == f"{pushed['files']} files, {pushed['size']:,} bytes: {pushed['url']}"
    assert done.stderr == "No files have been modified since last commit. Skipping to prevent empty commit.\n"
    assert lines[2] == f"open it anywhere: causcell inspect {NAME}"


def test_inspect(hub: FalseHub, home: Path, repository: Path, pushed: dict[str, object], capsys):
    assert run_command("inspect", repository, "--json") == 0
    expected = json.loads(capsys.readouterr().out)
    for name in (pushed["name"], NAME):
        assert json.loads(command(hub, home, "inspect", name, "--json").stdout) == expected
    offline = command(hub, home, "inspect", NAME, "--json", HF_HUB_OFFLINE="1")
    assert json.loads(offline.stdout) == expected
    assert offline.stderr == ""


@pytest.mark.slow
def test_an_atlas_by_two_workers_is_that_of_the_folder(
    hub: FalseHub, home: Path, repository: Path, pushed: dict[str, object], folder: Path, tmp_path: Path
):
    """Workers open the model themselves, of the same commit."""
    cells = folder / "good.h5ad"
    here, there = tmp_path / "here.zarr", tmp_path / "there.zarr"
    assert run_command(*generate_words(cells, repository, here, "--do", "stim=IFN")) == 0
    words = generate_words(cells, NAME, there, "--do", "stim=IFN", "--workers", 2)
    done = command(hub, home, *words)
    assert done.returncode == 0, done.stderr
    assert "Fetching" not in done.stderr  # no bars without a terminal
    found, expected = anndata.read_zarr(there), anndata.read_zarr(here)
    np.testing.assert_array_equal(found.X.toarray(), expected.X.toarray())
    assert found.obs.equals(expected.obs)


def test_dry_run_prints_the_card_and_asks_no_hub(repository: Path, capsys: pytest.CaptureFixture[str]):
    assert run_command("push", repository, NAME, "--license", "cc0-1.0", "--dry-run") == 0
    out, err = capsys.readouterr()
    assert out.startswith('---\nlicense: "cc0-1.0"\n')
    says(err, "not sent: ", f" bytes, to {NAME}", "  manifest.json", "  README.md", "  scm/1/model.onnx")
    assert run_command("push", repository, NAME, "--license", "cc0-1.0", "--dry-run", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["card"] + "\n" == out
    assert {"README.md", "manifest.json"} <= set(told["files"])


def test_a_card_that_was_printed_can_be_pushed(
    hub: FalseHub, home: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert run_command("push", repository, NAME, "--license", "cc0-1.0", "--dry-run") == 0
    (tmp_path / "card.md").write_text(capsys.readouterr().out.replace("# simulated", "# Ours"))
    done = command(hub, home, "push", repository, "hf://lab/ours", "--card", tmp_path / "card.md")
    assert done.returncode == 0, done.stderr
    assert b"# Ours\n" in hub.files("lab/ours")["README.md"]


def test_a_licence_is_asked_for_in_the_words_of_the_command_line(repository: Path, capsys):
    says(refused(capsys, "push", repository, NAME), "--license is missing", "--license cc-by-4.0")
    told = refused(capsys, "push", repository, NAME, "--license", "cc0-1.0", "--card", "card.md")
    says(told, "--license and --data go into a card that is made", "--card card.md")


def test_without_a_token(hub: FalseHub, tmp_path: Path, repository: Path):
    done = command(hub, tmp_path, "push", repository, "hf://lab/new", "--license", "cc0-1.0", HF_TOKEN="")
    assert done.returncode == 2
    says(done.stderr, "error: hf://lab/new ", "Invalid username or password", "`hf auth login`, or set HF_TOKEN")
    assert "lab/new" not in hub.repos


def test_without_the_extra(repository: Path):
    done = without_package("huggingface_hub", "push", repository, NAME, "--license", "cc0-1.0")
    check_missing(done, "needs the package huggingface_hub; install causcell[hub]")
