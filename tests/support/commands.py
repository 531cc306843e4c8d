"""What tests of the command line share: how a command is run, and what one that can't be carried out has to say."""

import subprocess
import sys
from pathlib import Path

import anndata
import pytest

from causcell.cli.main import main

CONSOLE_SCRIPT = Path(sys.executable).parent / "causcell"
"""The program that an installation puts beside Python."""

COMMANDS = (
    "train", "evaluate", "export", "benchmark", "demo", "check", "inspect", "embed", "generate", "verify",
    "materialize", "trial", "bench", "serve", "push",
)  # fmt: skip

SMALL_MODEL = [
    *("--set", "model.embedding=4", "--set", "model.width=16", "--set", "model.encoder_width=16"),
    *("--set", "model.blocks=1", "--set", "optimisation.epochs=2", "--set", "optimisation.validate_every=1"),
]
"""Settings of a model that is trained in a second."""


def run_command(*words: object) -> int:
    """Exit status of the command line for these words."""
    with pytest.raises(SystemExit) as exit_:
        main([str(word) for word in words])
    return 0 if exit_.value.code is None else int(exit_.value.code)


def generated(data: Path, made: Path, out: Path, *words: str) -> anndata.AnnData:
    assert run_command("generate", data, "--models", made / "models", "--out", out, "--no-progress", *words) == 0
    return anndata.read_zarr(out)


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The message of a command that can't be carried out; above it may stand the stages that were told."""
    with pytest.raises(SystemExit) as exit_:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert exit_.value.code == 2, err
    assert out == ""
    assert "Traceback" not in err
    lines = err.splitlines(keepends=True)
    begins = [place for place, line in enumerate(lines) if line.startswith("error: ")]
    assert len(begins) == 1, err
    message = lines[begins[0] :]
    assert len(message) <= 2
    assert sum(map(len, message)) < 1200
    return "".join(message)


def says(message: str, *fragments: str) -> None:
    """The message holds each fragment, in any order."""
    missing = [fragment for fragment in fragments if fragment not in message]
    assert not missing, f"{missing} not in {message!r}"


# -- words of a command that writes to a place -------------------------------------------------------------------------


def train_words(data: Path, out: Path, *words: object, concept: str = "stim") -> list[object]:
    return ["train", data, "--out", out, "--concept", concept, "--genes", "all", "--no-progress", *words]


def generate_words(data: Path, models: Path | str, out: Path, *words: object) -> list[object]:
    return ["generate", data, "--models", models, "--out", out, "--no-progress", *words]


def embed_words(data: Path, models: Path, out: Path, *words: object) -> list[object]:
    return ["embed", data, "--models", models, "--out", out, "--no-progress", *words]


# -- an environment that lacks something -------------------------------------------------------------------------------


def without_package(package: str, *words: object) -> subprocess.CompletedProcess[str]:
    """The command line in a process in which a package is not installed."""
    code = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
from causcell.cli.main import main
main({[str(word) for word in words]!r})
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def check_missing(done: subprocess.CompletedProcess[str], *fragments: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    says(done.stderr, *fragments)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])
