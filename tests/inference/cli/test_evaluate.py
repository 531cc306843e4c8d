"""``causcell evaluate``: cells that the model was trained on are left out, and said to be."""

import json
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from commands import check_missing, refused, run_command, says, without_package
from paths import ROOT

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


@pytest.fixture(scope="module")
def predicted(cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with predictions of a method (control cells a little shifted) and the split that it was trained by."""
    folder = tmp_path_factory.mktemp("predicted")
    control = cells[cells.obs["stim"] == "ctrl"]
    counts = control.X.toarray()
    obs = pd.DataFrame({"source_cell": control.obs_names, "intervention": "stim=IFN"})
    obs.index = [f"{name}|stim=IFN" for name in control.obs_names]
    made = anndata.AnnData(np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4) + 0.1, obs=obs, var=control.var)
    made.write_h5ad(folder / "scgen.h5ad")
    parts = ["test" if i % 2 else "train" for i in range(cells.n_obs)]
    pd.DataFrame({"cell": cells.obs_names, "split": parts}).to_csv(folder / "split.csv", index=False)
    return folder


def test_predictions_of_any_method_are_judged_without_a_model(
    data: Path, predicted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words: list[object] = ["evaluate", data, "--predictions", predicted / "scgen.h5ad", "--out", tmp_path / "report"]
    words += ["--concept", "stim", "--concept", "cell_type", "--split", predicted / "split.csv", "--no-progress"]
    assert run_command(*words, "--estimate", "mean") == 0
    out, err = capsys.readouterr()
    assert "160 of 320 cells judged, 160 left out that the method was trained on" in out
    assert "not answered: interventions on 'cell_type': there is no row of one" in out
    assert err == ""
    content = json.loads((tmp_path / "report" / "report.json").read_text())
    assert content["predictions"]["rows are"] == ["mean"]
    assert content["tables"][0]["name"].startswith("Interventions: stim")
    page = (tmp_path / "report" / "report.html").read_text()
    assert "there is no row of one" in page
    assert "No map of cells: the verdict is that this concept is not to be intervened on." in page
    kept = anndata.read_h5ad(tmp_path / "report" / "shifts.h5ad")
    assert kept.var_names.tolist() == sorted(kept.var_names, key=lambda name: int(name.removeprefix("GENE")))
    assert (kept.obs["concept"] == "stim").all()


def test_the_recipe_of_the_page_runs(
    data: Path, predicted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "evaluation.md").read_text()
    (recipe,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    for source, name in ((data, "cells.h5ad"), (predicted / "scgen.h5ad", "scgen.h5ad"), (predicted / "split.csv", "")):
        shutil.copy(source, tmp_path / (name or source.name))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(recipe, names)
    assert names["evaluation"].tables  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        ([], ["--models", "--predictions", "one of the two"]),
        (["--predictions", "scgen.h5ad", "--models", "nowhere"], ["nowhere"]),
        (["--predictions", "scgen.h5ad"], ["--concept", "--edge"]),
        (["--predictions", "scgen.h5ad", "--concept", "stim"], ["--estimate sample", "--estimate mean"]),
        (["--predictions", "scgen.h5ad", "--concept", "stim", "--estimate", "mean"], ["--split split.csv", "--part"]),
        (
            ["--predictions", "scgen.h5ad", "--concept", "stim", "--estimate", "median"],
            ["'median'", "'mean', 'sample'"],
        ),
        (["--predictions", "scgen.h5ad", "--concept", "stim", "--maps", "tsne"], ["'tsne'", "'umap', 'pca'", "'none'"]),
        (["--predictions", "absent.h5ad", "--concept", "stim", "--estimate", "mean"], ["no file", "absent.h5ad"]),
    ],
)
def test_what_predictions_do_not_say_is_asked_for_by_its_flag(
    data: Path,
    predicted: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    fragments: list[str],
) -> None:
    monkeypatch.chdir(predicted)
    says(refused(capsys, "evaluate", data, *words, "--out", tmp_path / "report", "--no-progress"), *fragments)


def test_a_model_says_itself_what_predictions_do_not(
    data: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--models", repository, "--concept", "stim", "--threads", "1"]
    says(refused(capsys, "evaluate", data, *words, "--out", tmp_path / "report"), "a model says them itself")


def test_a_scorer_that_is_not_installed_is_named(data: Path, tmp_path: Path) -> None:
    words: list[object] = [
        "evaluate",
        data,
        "--models",
        "models",
        "--scorer",
        "cell-eval2",
        "--out",
        tmp_path / "out",
    ]
    check_missing(without_package("cell_eval2", *words), "--scorer cell-eval2", "causcell[scorer]")


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
