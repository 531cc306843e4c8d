"""The command line itself: help, version, usage errors, debugging, and the installed program."""

import json
import subprocess
import sys
import traceback
from importlib import metadata
from pathlib import Path

import pytest
import typer
from commands import COMMANDS, CONSOLE_SCRIPT, run_command

from causcell.cli.main import build_app, main
from causcell.errors import DataError


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("--help") == 0
    out = capsys.readouterr().out
    for command in COMMANDS:
        assert f" {command} " in out


def test_the_commands_are_these() -> None:
    assert sorted(typer.main.get_command(build_app()).commands) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(command, "--help") == 0
    assert f" {command} [OPTIONS]" in capsys.readouterr().out


def test_version_is_the_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("--version") == 0
    assert capsys.readouterr().out == f"causcell {metadata.version('causcell')}\n"


@pytest.mark.parametrize(
    "words",
    [["inspect", "--colour"], ["paint"], ["embed"], ["generate", "x.h5ad", "--draws", "many"]],
    ids=["unknown option", "unknown command", "missing argument", "not a number"],
)
def test_words_that_are_no_command_are_a_usage_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(*words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Usage:" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("place", [0, 1, 3], ids=["first", "after the command", "last"])
def test_debug_shows_where_an_error_arose(tmp_path: Path, made: Path, place: int) -> None:
    words = ["embed", "absent.h5ad", "--models", str(made / "models"), "--out", str(tmp_path / "x.h5ad")]
    words.insert(place if place < 3 else len(words), "--debug")
    with pytest.raises(DataError, match=r"absent\.h5ad") as error:
        main(words)
    assert "open_source" in "".join(traceback.format_exception(error.value))


def test_the_installed_program_runs_and_needs_no_torch_to_inspect(made: Path) -> None:
    """In a process of its own, as a shell starts it."""
    done = subprocess.run([CONSOLE_SCRIPT, "inspect", made / "models", "--json"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["verified"] is True
    # the entry points of training and export are loaded, what they need is not
    code = f"import sys; sys.argv = ['causcell', 'inspect', {str(made / 'models')!r}]\n"
    code += "import atexit; atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))\n"
    code += "from causcell.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr.strip() == "False"


def test_a_process_that_ends_does_not_search_its_objects() -> None:
    code = "import atexit, gc, sys; sys.argv = ['causcell', '--version']\n"
    code += "atexit.register(lambda: print(gc.get_freeze_count() > 1000))\n"  # after what is registered later
    code += "from causcell.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "True"


def test_the_installed_program_reports_an_error_by_its_status(tmp_path: Path) -> None:
    done = subprocess.run([CONSOLE_SCRIPT, "inspect", tmp_path], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    debugged = subprocess.run([CONSOLE_SCRIPT, "inspect", tmp_path, "--debug"], capture_output=True, text=True)
    assert debugged.returncode != 0
    assert "Traceback" in debugged.stderr
    assert "CorruptFileError" in debugged.stderr


def test_the_module_is_the_command_line(made: Path, tmp_path: Path) -> None:
    """``python -m causcell.cli.main`` does what the program does, and not nothing."""
    module = [sys.executable, "-m", "causcell.cli.main"]
    done = subprocess.run([*module, "inspect", made / "models", "--json"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["verified"] is True
    failed = subprocess.run([*module, "inspect", tmp_path], capture_output=True, text=True)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr.startswith("error: ")
    assert subprocess.run(module, capture_output=True, text=True).stdout.lstrip().startswith("Usage: causcell")
