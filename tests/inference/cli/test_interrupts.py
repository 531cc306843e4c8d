"""A command that is stopped ends with the status of its signal and one sentence on how to go on; nothing is left."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from atlases import environment
from commands import CONSOLE_SCRIPT, run_command

from causcell._internal.interrupts import Terminated
from causcell.atlas.journal import FOLDER
from causcell.errors import RuntimeUnavailableError
from causcell.generator import Generator

STOPS = {"Ctrl-C": (KeyboardInterrupt, 130, "interrupted: "), "SIGTERM": (Terminated, 143, "ended by SIGTERM: ")}


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize(
    ("command", "said"), [("generate", "the same command goes on with it"), ("embed", "run the same command again")]
)
def test_it_says_how_to_go_on(
    stop: str,
    command: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kind, status, begins = STOPS[stop]

    def opened(*words: object, **options: object) -> None:
        raise kind

    monkeypatch.setattr(Generator, "open", opened)
    words = [
        command,
        "x.h5ad",
        "--models",
        tmp_path,
        "--out",
        tmp_path / ("x.zarr" if command == "generate" else "x.h5ad"),
    ]
    assert run_command(*words) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(begins)
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_sentence_of_the_command_itself_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def opened(*words: object, **options: object) -> None:
        raise Terminated("go on with --resume")

    monkeypatch.setattr(Generator, "open", opened)
    assert run_command("embed", "x.h5ad", "--models", tmp_path, "--out", tmp_path / "x.h5ad") == 143
    assert capsys.readouterr().err == "ended by SIGTERM: go on with --resume\n"


def left_in(folder: Path) -> list[str]:
    """Names in a folder for temporary files, but for that of ONNX Runtime's telemetry, which is not the program's."""
    return sorted(path.name for path in folder.iterdir())


def _stopped(
    words: list[object], tmp: Path, number: int, begun: Callable[[], bool]
) -> subprocess.CompletedProcess[str]:
    """Run the program in a group of its own, and send the group a signal as batch systems do, once it has begun."""
    tmp.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [CONSOLE_SCRIPT, *map(str, words)],
        env=environment(TMPDIR=str(tmp), OMP_WAIT_POLICY="PASSIVE"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        for _ in range(2400):
            if begun() or process.poll() is not None:
                break
            time.sleep(0.02)
        assert process.poll() is None, process.communicate()
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=30)
        return subprocess.CompletedProcess([], process.returncode, out, err)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("number", "status", "workers"), [(signal.SIGTERM, 143, 2), (signal.SIGTERM, 143, 1), (signal.SIGINT, 130, 2)]
)
def test_an_atlas_that_is_stopped_leaves_no_process_and_no_temporary_file(
    number: int, status: int, workers: int, data: Path, made: Path, tmp_path: Path
) -> None:
    atlas = tmp_path / "atlas.zarr"
    words = ["generate", data, "--models", made / "models", "--out", atlas, "--grid", "stim", "--no-progress"]
    words += ["--solver", "draw", "--steps", 300, "--batch-size", 4, "--chunk-size", 1600, "--shard-size", 1600]
    words += ["--workers", workers]
    done = _stopped(words, tmp_path / "tmp", number, lambda: any((atlas / FOLDER / "shards").glob("*.json")))
    assert done.returncode == status, done.stderr
    assert "the same command goes on with it" in done.stderr
    assert "Traceback" not in done.stderr
    assert left_in(tmp_path / "tmp") == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["atlas.zarr", "tmp"]
    assert not (atlas / FOLDER / "work").exists()


def test_a_signal_that_an_import_swallows_is_no_error_of_the_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def opened(*words: object, **options: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            raise RuntimeUnavailableError("ONNX Runtime can't be imported (initialization failed)") from None

    monkeypatch.setattr(Generator, "open", opened)
    assert run_command("embed", "x.h5ad", "--models", tmp_path, "--out", tmp_path / "x.h5ad") == 143
    assert capsys.readouterr().err == "ended by SIGTERM: nothing is left half written; run the same command again\n"
