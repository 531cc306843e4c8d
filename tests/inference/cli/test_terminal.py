"""The main path in a terminal (a pseudo-terminal of 80 columns): check, train, export, inspect, generate, trial."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from pathlib import Path

import pytest
from commands import CONSOLE_SCRIPT, SMALL_MODEL
from simulation import simulated_cells

pytest.importorskip("torch", reason="takes causcell[train]")


def in_a_terminal(words: list[object], folder: Path) -> str:
    """What a command shows in a terminal; it ends with status 0."""
    own, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    program = [str(CONSOLE_SCRIPT), *map(str, words)]
    environment = os.environ | {"COLUMNS": "80", "TERM": "xterm"}
    with subprocess.Popen(program, cwd=folder, stdin=its, stdout=its, stderr=its, env=environment) as process:
        os.close(its)
        shown = b""
        while True:
            try:
                part = os.read(own, 65536)
            except OSError:  # its end was closed
                break
            shown += part
            if not part:
                break
    os.close(own)
    text = shown.decode()
    assert process.returncode == 0, text
    return text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_the_main_path_shows_how_far_it_is(tmp_path: Path) -> None:
    simulated_cells(160).write_h5ad(tmp_path / "cells.h5ad")
    concepts = ["--concept", "stim", "--concept", "cell_type"]
    assert "stim" in in_a_terminal(["check", "cells.h5ad", *concepts], tmp_path)
    trained = in_a_terminal(["train", "cells.h5ad", *concepts, "--genes", "40", "--out", "run", *SMALL_MODEL], tmp_path)
    assert re.search(r"epoch 2 of at most 2, held-out \d\.\d+ \(best \d\.\d+\)", trained)
    assert re.search(r"trained on \d+ cells x 40 genes, 2 epochs", trained)
    exported = in_a_terminal(["export", "run", "--out", "models"], tmp_path)
    assert "exported and verified: models" in exported
    assert "verdicts" in in_a_terminal(["inspect", "models"], tmp_path)
    words = ["cells.h5ad", "--models", "models", "--do", "stim=IFN", "--threads", "1"]
    assert "100%" in in_a_terminal(["generate", *words, "--out", "atlas.zarr"], tmp_path)
    assert (tmp_path / "atlas.zarr" / "zarr.json").is_file()
    in_a_terminal(["trial", *words, "--out", "effects.h5ad"], tmp_path)
