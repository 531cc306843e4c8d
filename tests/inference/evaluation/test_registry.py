"""Registered metrics: each keeps the contract, those from outside are measured, and no name is taken twice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pytest
from metric_from_outside import CENTRE_DISTANCE, MEDIAN_ERROR, SIZE_RATIO, median_error
from paths import ROOT
from plugins import install_plugin, write_plugin

from causcell.errors import CausCellWarning, ConfigurationError
from causcell.evaluation import Metric, known_metrics, register_metric, registered_metrics
from causcell.evaluation.contract import check_metric
from causcell.evaluation.distances import energy_distance
from causcell.evaluation.quality import measure_effect, measure_quality
from causcell.evaluation.registry import METRICS, metric_titles

BUILTIN = (
    *("pcc", "mse", "energy_distance", "mmd", "correlations", "variance_ratio", "nonzero", "nonzero_mean"),
    *("shift_pcc", "shift_spearman", "shift_top_overlap", "shift_calibration"),
    *("shift_size", "shift_norm_ratio", "shift_error", "shift_AUC"),
    *("shift_recall_up", "shift_recall_down", "shift_mmd_ratio", "shift_energy_ratio"),
)


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr(METRICS, "_loaded", METRICS._loaded.copy())


# -- contract ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "metric", [*BUILTIN, MEDIAN_ERROR, CENTRE_DISTANCE, SIZE_RATIO], ids=lambda metric: getattr(metric, "name", metric)
)
def test_every_metric_keeps_the_contract(metric: str | Metric) -> None:
    check_metric(metric)


def energy(real: np.ndarray, made: np.ndarray, bandwidth: float) -> float:
    return energy_distance(made, real)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (Metric("a", lambda real, made: np.float32(0), "cells", "lower"), "returned a float32"),
        (Metric("a", lambda real, made: float("nan"), "cells", "lower"), "returned nan"),
        (Metric("a", lambda real, made: float(np.random.default_rng().random()), "cells", "lower"), "the same arrays"),
        (Metric("a", lambda real, made: float(real.sort() or 0), "cells", "lower"), "changed an array"),
        (Metric("a", lambda real, made: float((real[0] - made[0]).sum()), "cells", "lower"), "in another order"),
        (Metric("a", lambda real, made: float(((real - made) ** 2).mean()), "cells", "higher"), "plainly wrong"),
        (Metric("a", lambda real, made, bandwidth: None, "distribution", "lower"), "returned None"),
        (
            Metric("a", energy, "distribution", "lower", kernel=lambda squared, bandwidth: squared),
            "its function returned .*, and its kernel makes",
        ),
        (
            Metric("a", energy, "distribution", "lower", prepare=lambda real, bandwidth: lambda made: 0.5),
            "its function returned .*, and its prepare makes 0.5",
        ),
        (Metric("a", lambda cells: 1.0, "summary", "real"), "plainly wrong"),
        (
            Metric("a", lambda predicted, real, shared=1.0: 1 - shared, "effect", "one", of_shared_noise=True),
            r"returned 0.0, and 1.0 for shared=0.0, which is no noise",
        ),
        (Metric("a", lambda predicted, real: float(predicted @ real / (real @ real)), "effect", "one"), "returned nan"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_the_contract_tells_what_is_broken(metric: Metric, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_metric(metric)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "2nd"}, "letters, digits and underscores"),
        ({"name": "error_real"}, "not ending with '_real'"),
        ({"name": "cells"}, "not 'cells'"),
        ({"kind": "cell"}, "kinds are 'cells', 'distribution'"),
        ({"better": "more"}, "take 'higher', 'lower', 'one'"),
        ({"kind": "summary", "better": "higher"}, "take 'real'"),
        ({"function": 1}, "can't be called"),
        ({"of_shared_noise": True}, "of_shared_noise is for kinds 'effect' and 'size' alone"),
    ],
)
def test_a_metric_that_makes_no_sense_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Metric(**{"name": "a", "function": len, "kind": "cells", "better": "lower"} | values)


@pytest.mark.usefixtures("forgotten")
def test_a_name_is_given_once() -> None:
    with pytest.raises(
        ConfigurationError, match=r"metric 'mse' exists already; take another name, or say replace=True"
    ):
        register_metric("mse", median_error, kind="label", better="lower")
    register_metric("mse", median_error, kind="effect", better="lower")  # of shifts: the two are never in one table
    assert known_metrics()[-1] == "shift_mse"
    assert registered_metrics("effect")[-1].name == "mse"
    register_metric("mse", median_error, kind="cells", better="lower", replace=True)
    assert METRICS["mse"].function is median_error
    assert [metric.name for metric in registered_metrics("cells")] == ["pcc", "mse"]


@pytest.mark.usefixtures("forgotten")
def test_a_title_is_given_once_in_a_table() -> None:
    register_metric("median_error", median_error, kind="cells", better="lower", title="MSE")
    with pytest.raises(ConfigurationError, match=r"metric 'median_error' has the title 'MSE', which another one"):
        metric_titles("cells")


def test_an_unknown_metric_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match=r"metric 'spearman' is not known; did you mean 'shift_spearman'\?"):
        check_metric("spearman")


# -- plugins -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("forgotten")
def test_a_plugin_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_plugin(tmp_path, monkeypatch, "causcell.metrics", "median_error = metric_from_outside:MEDIAN_ERROR")
    assert known_metrics() == (*BUILTIN, "median_error")
    assert registered_metrics("cells")[-1] is MEDIAN_ERROR
    with pytest.raises(ConfigurationError, match="metric 'median_error' exists already"):
        register_metric("median_error", lambda real, made: 0.0, kind="cells", better="lower")


def test_a_plugin_does_not_take_the_place_of_a_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_plugin(tmp_path, monkeypatch, "causcell.metrics", "mse = metric_from_outside:MEDIAN_ERROR")
    with pytest.warns(CausCellWarning, match=r"metric 'mse' .*of outside.* is left out"):
        known_metrics()
    assert METRICS["mse"].function is not median_error


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("broken = metric_from_outside:ABSENT", r"'broken' \(.*:ABSENT of outside\) can't be imported: AttributeError"),
        ("function = metric_from_outside:median_error", r"metric 'function' is .*; give a causcell.evaluation.Metric"),
        ("other = metric_from_outside:MEDIAN_ERROR", "'other' is named 'median_error'.*its entry point 'median_error'"),
        ("size_ratio = metric_from_outside:SIZE_RATIO", "kind 'effect'.*its entry point 'shift_size_ratio'"),
    ],
)
def test_a_plugin_that_is_no_usable_metric_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str, message: str
) -> None:
    install_plugin(tmp_path, monkeypatch, "causcell.metrics", entry)
    for _ in range(2):  # it is not forgotten by a second attempt
        with pytest.raises(ConfigurationError, match=message):
            registered_metrics("cells")


# -- measures ----------------------------------------------------------------------------------------------------------


def test_metrics_without_a_value_are_left_out() -> None:
    real = np.random.default_rng(0).random((4, 30))
    assert "energy_distance" not in measure_quality(real, real, np.array(list("abcd")))
    assert measure_effect(real[0], real[1], np.zeros(30), np.zeros(30, dtype=bool))["AUC"] is None


CLIENT_ALONE = """
import importlib.abc, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("torch", "lightning", "onnx", "causcell_training", "causcell_export"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
from causcell.cli import main
main.GROUP = "causcell.commands.of.no.package"
main.main(sys.argv[1:])
"""
"""The command line where the client alone is installed."""


def test_evaluate_needs_no_torch_and_reports_metrics_from_outside(
    repository: Path, cells: anndata.AnnData, tmp_path: Path
) -> None:
    others = cells.copy()
    others.obs_names = [f"new_{name}" for name in cells.obs_names]  # none was trained on: half of them are test cells
    others.write_h5ad(tmp_path / "cells.h5ad")
    site = tmp_path / "site"
    write_plugin(
        site,
        "causcell.metrics",
        "median_error = metric_from_outside:MEDIAN_ERROR",
        "centre_distance = metric_from_outside:CENTRE_DISTANCE",
        "shift_size_ratio = metric_from_outside:SIZE_RATIO",
    )
    words = ["evaluate", "cells.h5ad", "--models", str(repository), "--out", "report", "--threads", "1"]
    path = os.pathsep.join([str(site), str(ROOT / "tests" / "support"), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", CLIENT_ALONE, *words],
        env=os.environ | {"PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    tables = {
        table["name"]: table["rows"]
        for table in json.loads((tmp_path / "report" / "report.json").read_text())["tables"]
    }
    estimate = tables["Mean estimate of the judged cells"]
    assert list(estimate["model, mean estimate"]) == ["PCC", "MSE", "median error"]
    samples = tables["Samples as a distribution"]
    assert samples["real cells (ceiling)"]["centre distance"]["mean"] > 0
    assert samples["model, samples"]["centre distance"]["mean"] > 0
    (effects,) = (rows for name, rows in tables.items() if name.startswith("Interventions: stim"))
    assert list(effects["model, do"]) == [
        *("pcc", "spearman", "top_overlap", "calibration", "size ratio", "size", "norm ratio", "squared error", "AUC"),
        *("recall up", "recall down", "MMD ratio", "energy ratio"),
    ]
    assert effects["no change"]["size ratio"]["mean"] == 0
    line = next(line for line in done.stdout.splitlines() if line.split()[:2] == ["PCC", "MSE"])
    assert line.split() == ["PCC", "MSE", "median", "error"]
