"""``causcell evaluate``: cells that the model was trained on are left out, and said to be."""

import json
import sys
from importlib import metadata
from pathlib import Path

import pytest
from commands import run_command

import causcell.evaluation.evaluate as measuring
from causcell.evaluation.evaluate import Evaluation
from causcell.repository.verdicts import Verdict

FACTS = {"cells": {"given": 1, "judged": 1, "left out, as the model was trained on them": 0}}


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


@pytest.mark.parametrize(("score", "status"), [(0.1, 3), (None, 3), (0.6, 0)])
def test_scores_below_what_is_asked_for_are_a_status_of_their_own(
    score: float | None,
    status: int,
    data: Path,
    tmp_path: Path,
    made: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    verdict = Verdict(concept="stim", score=score, reason="so it is")
    monkeypatch.setattr(measuring, "evaluate", lambda *_, **__: Evaluation(FACTS, [], [verdict]))
    words = ["evaluate", data, "--models", made / "models", "--out", tmp_path / "report", "--fail-below", "0.5"]
    assert run_command(*words) == status
    out, err = capsys.readouterr()
    assert out.startswith("Verdicts\n  stim: so it is\n")
    assert ("below --fail-below 0.5: " in err) == (status == 3)
    assert (tmp_path / "report" / "report.json").exists()  # also where it fails
