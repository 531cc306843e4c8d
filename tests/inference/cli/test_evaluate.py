"""``causcell evaluate``: cells that the model was trained on are left out, and said to be."""

import json
import sys
from importlib import metadata
from pathlib import Path

import pytest
from commands import run_command


def test_evaluate_leaves_out_what_was_trained_on_and_says_so(
    made: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["evaluate", data, "--models", made / "models", "--finer", "donor", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", ["causcell", *map(str, words)])  # as the shell leaves it
    assert run_command(*words, "--out", tmp_path / "report", "--no-progress") == 0
    out, err = capsys.readouterr()
    content = json.loads((tmp_path / "report" / "report.json").read_text())
    trained = json.loads((made / "models" / "manifest.json").read_text())["training_cells"]["count"]
    assert f"{320 - trained} of 320 cells judged, {trained} left out that the model was trained on" in out
    assert content["command"] == " ".join(["causcell", *map(str, words)])
    assert content["versions"]["causcell"] == metadata.version("causcell")
    assert (tmp_path / "report" / "report.html").stat().st_size > 10_000
    assert err == ""
    assert run_command(*words, "--out", tmp_path / "report") == 2
    assert "exists already" in capsys.readouterr().err
