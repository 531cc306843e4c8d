"""Metrics register in one place: built-in ones, a process's own, other distributions'; and keep to a contract."""

import json
import os
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pytest

from causcell.errors import ConfigurationError
from causcell.evaluation.contract import check_metric
from causcell.evaluation.quality import measure_effect, measure_quality
from causcell.evaluation.registry import GROUP, KINDS, Metric, MetricRegistry, registered_metrics

OUTSIDE = """
import numpy as np
from causcell.evaluation.registry import Metric

def median_error(real, generated):
    return float(np.median(np.abs(real - generated)))

def centre_distance(real, generated, bandwidth):
    return float(np.linalg.norm(real.mean(axis=0) - generated.mean(axis=0))) / bandwidth

def size_ratio(predicted, real):
    return float(np.linalg.norm(predicted) / np.linalg.norm(real)) if real.any() else None

MEDIAN_ERROR = Metric("median_error", median_error, "cells", "lower")
CENTRE_DISTANCE = Metric("centre_distance", centre_distance, "distribution", "lower")
SIZE_RATIO = Metric("size_ratio", size_ratio, "effect", "one")
NO_METRIC = median_error
TAKEN = Metric("mse", median_error, "cells", "lower")
"""
"""A module of another distribution: the worked example of metrics from outside the package."""

BUILT_IN = [metric for kind in KINDS for metric in registered_metrics(kind)]


def install(folder: Path, entries: dict[str, str], module: str = "outside_metrics") -> Path:
    """Lay a distribution into a folder, as an installer does: a module, and metadata with its entry points."""
    folder.mkdir(exist_ok=True)
    (folder / f"{module}.py").write_text(OUTSIDE)
    information = folder / f"{module}-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    lines = [f"{name} = {module}:{target}" for name, target in entries.items()]
    (information / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]) + "\n")
    return folder


@pytest.mark.parametrize("metric", BUILT_IN, ids=lambda metric: f"{metric.kind}-{metric.name}")
def test_built_in_metrics_keep_to_the_contract(metric: Metric) -> None:
    check_metric(metric)


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
        (Metric("a", lambda cells: 1.0, "summary", "real"), "plainly wrong"),
        (Metric("a", lambda predicted, real: float(predicted @ real / (real @ real)), "effect", "one"), "returned nan"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_the_contract_tells_what_a_metric_breaks(metric: Metric, message: str) -> None:
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
    ],
)
def test_a_metric_that_makes_no_sense_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Metric(**{"name": "a", "function": len, "kind": "cells", "better": "lower"} | values)


def test_names_and_titles_are_never_overwritten() -> None:
    registry = MetricRegistry([Metric("a", len, "cells", "lower", title="A")])
    for clash in (
        Metric("a", len, "cells", "lower"),
        Metric("a", len, "summary", "real"),
        Metric("A", len, "label", "one"),
    ):
        with pytest.raises(ConfigurationError, match="registered already"):
            registry.register(clash)
    shift = registry.register(Metric("a", len, "effect", "higher"))  # of shifts: another table
    assert registry.of_kind("effect") == (shift,)
    assert [metric.title for metric in registry.of_kind("cells")] == ["A"]


def test_metrics_of_other_distributions_are_found_when_one_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(install(tmp_path / "lazy", {"error": "MEDIAN_ERROR"}, "lazy_metrics"))
    registry = MetricRegistry(BUILT_IN, group=GROUP)
    assert "lazy_metrics" not in sys.modules
    *built_in, found = registry.of_kind("cells")
    assert [metric.name for metric in built_in] == ["pcc", "mse"]
    assert found.name == "median_error"
    check_metric(found)
    with pytest.raises(ConfigurationError, match=r"'median_error'.*registered already"):
        registry.register(found)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("ABSENT", r"metric 'broken' \(.*:ABSENT\) of .* can't be loaded \(AttributeError.*mend or uninstall"),
        ("NO_METRIC", "is a function; the entry point must name a causcell.evaluation.registry.Metric"),
        ("TAKEN", "metric 'broken'.*clashes with 'mse'"),
    ],
)
def test_an_unusable_metric_of_another_distribution_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, message: str
) -> None:
    entries = {"a_good_one": "MEDIAN_ERROR", "broken": target}
    monkeypatch.syspath_prepend(install(tmp_path / "site", entries, f"broken_{target.lower()}"))
    registry = MetricRegistry(BUILT_IN, group=GROUP)
    for _ in range(2):  # it is not forgotten by a second attempt, nor is the good one added
        with pytest.raises(ConfigurationError, match=message):
            registry.of_kind("cells")


def test_metrics_without_a_value_are_left_out() -> None:
    real = np.random.default_rng(0).random((4, 30))
    assert "energy_distance" not in measure_quality(real, real, np.array(list("abcd")))
    assert measure_effect(real[0], real[1], np.zeros(30, dtype=bool))["AUC"] is None


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


def test_evaluate_needs_no_torch_and_reports_metrics_of_other_distributions(
    repository: Path, cells: anndata.AnnData, tmp_path: Path
) -> None:
    others = cells.copy()
    others.obs_names = [f"new_{name}" for name in cells.obs_names]  # none was trained on: half of them are test cells
    others.write_h5ad(tmp_path / "cells.h5ad")
    metrics = {"error": "MEDIAN_ERROR", "centre": "CENTRE_DISTANCE", "size": "SIZE_RATIO"}
    site = install(tmp_path / "site", metrics)
    words = ["evaluate", "cells.h5ad", "--models", str(repository), "--out", "report", "--threads", "1"]
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
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
    assert list(effects["model, do"]) == ["pcc", "spearman", "top_overlap", "slope", "size ratio", "AUC"]
    assert effects["no change"]["size ratio"]["mean"] == 0
    line = next(line for line in done.stdout.splitlines() if line.split()[:2] == ["PCC", "MSE"])
    assert line.split() == ["PCC", "MSE", "median", "error"]
