"""The harness of the peers: an adapter end to end, tables that say what results say, requirements that are pinned."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
PEERS = ROOT / "tests" / "benchmarks" / "peers"
PACKAGES = ("inference", "training", "export")

ADAPTER = """
import numpy as np

class Adapter:
    name, version, licence, notes, lines = "fake", "1.0", "none", ("adds one",), 3

    def __init__(self, job):
        self.job = job

    def fit(self, cells):
        assert set(cells.obs["part"]) == {"train", "validation"} and cells.obs["validation"].any()
        self.shift = 0.2

    def mean(self, cells):
        return np.asarray(cells.layers["log1p"].todense())

    def counterfactual_mean(self, cells, do):
        return self.mean(cells) + self.shift

    def embeddings(self, cells):
        return {"unexplained": np.ones((cells.n_obs, 2))}

    def variants(self):
        twice = Adapter(self.job)
        twice.name, twice.shift = "fake twice", 0.4
        return {"twice": twice}
"""


def _run(script: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(str(ROOT / package) for package in PACKAGES)
    command = [sys.executable, str(PEERS / script), *words]
    return subprocess.run(
        command, check=check, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}, timeout=300
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cells of the glioblastoma's form: two conditions, three patients."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    labels = pd.DataFrame(
        {
            "condition": np.tile(["ctrl", "panobinostat"], 150),
            "patient": np.repeat(["PW030", "PW032", "PW034"], 100),
        },
        index=[f"cell{i}" for i in range(300)],
    )
    rate = 1 + 4 * (labels["condition"] == "panobinostat").to_numpy()[:, None] * (np.arange(12) % 3 == 0)
    cells = anndata.AnnData(rng.poisson(rate).astype(np.float32), obs=labels)
    cells.var_names = [f"gene{i}" for i in range(12)]
    cells.write_h5ad(folder / "gbm_panobinostat_300genes.h5ad")
    return folder


def test_a_file_with_an_adapter_is_trained_judged_and_resumed(data: Path, tmp_path: Path) -> None:
    (tmp_path / "fake.py").write_text(ADAPTER)
    words = ["--data", str(data), "--systems", str(tmp_path / "fake.py"), "--cases", "gbm-PW030", "--seeds", "1"]
    words += ["--out", str(tmp_path / "out")]
    _run("run.py", *words)
    content = json.loads((tmp_path / "out" / "peers.json").read_text())
    (row,) = content["rows"]
    assert (row["system"], row["case"], row["seed"]) == ("fake", "gbm-PW030", 0)
    assert row["costs"]["name"] == "fake" and row["costs"]["lines"] == 3
    assert set(row["costs"]["rates"]) == {"mean", "counterfactual_mean"}
    table = row["tables"]["trained sources"]["Unseen combinations: interventions: condition"]
    assert table["model, do"]["size"][0] == pytest.approx(
        row["variants"]["twice"]["tables"]["trained sources"]["Unseen combinations: interventions: condition"][
            "model, do"
        ]["size"][0]
        / 2,
        rel=1e-3,
    )
    assert "embedding of unexplained" in str(row["tables"]["tested cells"])
    assert not list((tmp_path / "out" / "work").iterdir())  # predictions are not kept

    other = {**row, "case": "gbm-PW032"}
    old = {**row, "costs": {**row["costs"], "name": "before"}}
    joined = tmp_path / "joined.json"
    joined.write_text(json.dumps({**content, "references": {"gbm-PW032": {}}, "rows": [old, other]}))
    _run("results.py", str(tmp_path / "out"), "--into", str(joined))
    found = json.loads(joined.read_text())
    assert found["rows"] == [row, other]
    assert set(found["references"]) == {"gbm-PW030", "gbm-PW032"}
    _run("results.py", str(tmp_path / "out"), "--into", str(joined), "--anew")
    assert json.loads(joined.read_text())["rows"] == [row]
    again = _run("run.py", *words)
    assert "gbm-PW030" not in again.stdout.replace("peers.json", "")  # nothing was left to do


def test_what_fails_or_comes_too_late_is_told_and_not_kept(data: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(ADAPTER.replace("self.shift = 0.2", "raise ValueError('too few cells')"))
    words = ["--data", str(data), "--systems", str(tmp_path / "broken.py"), "--cases", "gbm-PW030", "--seeds", "1"]
    failed = _run("run.py", *words, "--out", str(tmp_path / "out"))
    assert "failed: ValueError: too few cells" in failed.stdout
    late = _run("run.py", *words, "--out", str(tmp_path / "out"), "--deadline", "0.01")
    assert "the deadline was there before it began" in late.stdout
    assert json.loads((tmp_path / "out" / "peers.json").read_text())["rows"] == []


def test_tables_say_what_the_results_say() -> None:
    checked = _run("table.py", "--check", check=False)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("path", sorted((PEERS / "requirements").glob("*.txt")), ids=lambda path: path.stem)
def test_requirements_are_pinned_and_name_their_systems(path: Path) -> None:
    lines = path.read_text().splitlines()
    pinned = [line for line in lines if line.strip() and not line.startswith("#")]
    assert [line for line in pinned if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+_-]+", line.strip())] == []
    named = [line for line in lines if re.match(r"# (systems|unavailable):", line)]
    assert named
    known = {each.stem for each in (PEERS / "adapters").glob("*.py")}
    for line in named:
        systems = line.partition(":")[2].split(":")[0] if "unavailable" in line else line.partition(":")[2]
        assert {each.strip() for each in systems.split(",")} <= known


def test_the_product_imports_no_peer() -> None:
    imported = re.compile(r"^\s*(?:import|from) (scvi|scgen|cpa|biolord|scDisInFact|cellflow|scpram)\b", re.MULTILINE)
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert files and [str(path) for path in files if imported.search(path.read_text())] == []
