"""Every Python example of docs/effects.md runs, as a script of its own, and finds what the page says."""

import re
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from atlases import environment
from paths import MODEL_REPOSITORY, ROOT
from scipy import sparse

from causcell.get import effects_df

pytest.importorskip("scanpy", reason="takes causcell[evaluate]")

GUIDE = (ROOT / "docs" / "effects.md").read_text()
EXAMPLES = {
    section.partition("\n")[0]: example
    for section in re.split(r"(?m)^## ", GUIDE)
    for example in re.findall(r"(?ms)^```python\n(.*?)^```", section)
}
"""Examples by the section that they stand in."""

COLUMNS = ["donor_factual", "intervention", "cell_type_factual"]


def run_example(section: str, folder: Path) -> str:
    """Run an example as it stands, where the model and the gene sets are; return what it prints."""
    (folder / "example.py").write_text(EXAMPLES[section])
    (folder / "model_repository").symlink_to(MODEL_REPOSITORY)
    (folder / "docs").symlink_to(ROOT / "docs")
    run = subprocess.run(
        [sys.executable, "example.py"], cwd=folder, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_each_section_has_one_example() -> None:
    assert list(EXAMPLES) == [
        "A trial as a table",
        "Tests in pairs",
        "Counts by replicate, for edgeR, DESeq2 and limma",
        "Gene sets",
    ]
    assert GUIDE.count("```python") == len(EXAMPLES)


def test_a_trial_is_a_table(tmp_path: Path) -> None:
    assert "PCNA" in run_example("A trial as a table", tmp_path)
    table = effects_df(anndata.read_h5ad(tmp_path / "trial.h5ad"))
    described = re.findall(r"(?m)^\| (`[^|]*`) \|", GUIDE[GUIDE.index("| column | is |") :])
    assert re.findall(r"`(\w+)`", " ".join(described)) == list(table.columns)


def test_pairs_are_tested(tmp_path: Path) -> None:
    assert "scores_unpaired" in run_example("Tests in pairs", tmp_path)
    table = pd.read_csv(tmp_path / "by_cell.csv")
    assert (table["pairs"] == 700).all()
    assert (table["pvals"].sort_values()[:50].mean()) < (table["pvals_unpaired"].sort_values()[:50].mean())


def test_counts_are_summed_by_replicate(tmp_path: Path) -> None:
    """Exactly, as whole numbers; samples of few cells and cells without a label are left out."""
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({name: pd.Categorical(rng.choice(["a", "b", "c"], 400)) for name in COLUMNS})
    obs.loc[:20, "donor_factual"] = np.nan
    obs.loc[obs["donor_factual"].eq("b").to_numpy().nonzero()[0][9:], "cell_type_factual"] = "a"
    obs.index = obs.index.map("cell {}".format)
    counts = sparse.random(400, 30, 0.2, "csr", random_state=0, data_rvs=lambda n: rng.integers(1, 2**20, n))
    cells = anndata.AnnData(counts.astype(np.int32), obs=obs)
    cells.write_h5ad(tmp_path / "counts.h5ad")
    run_example("Counts by replicate, for edgeR, DESeq2 and limma", tmp_path)
    samples = anndata.read_h5ad(tmp_path / "samples.h5ad")
    assert samples.X.dtype == np.int64
    whole = cells.to_df().astype(np.int64).join(obs).groupby(COLUMNS, observed=True)
    kept = whole.size() >= 10
    assert 0 < kept.sum() < len(kept)
    assert samples.obs[COLUMNS].astype(str).agg(tuple, axis=1).tolist() == list(kept.index[kept])
    np.testing.assert_array_equal(samples.X, whole.sum()[kept].to_numpy())
    assert samples.obs["cells"].tolist() == whole.size()[kept].tolist()


def test_cell_cycle_genes_come_first_under_do_phase_s(tmp_path: Path) -> None:
    pytest.importorskip("gseapy", reason="the example of gene sets takes gseapy, of causcell[dev]")
    run_example("Gene sets", tmp_path)
    found = pd.read_csv(tmp_path / "gene_sets.csv").sort_values("NES", ascending=False)
    assert found["Term"].iloc[0] == "cell cycle"
    assert found["NES"].iloc[0] > 1.3
    assert {"PCNA", "HMGB2", "STMN1"} <= set(found["Lead_genes"].iloc[0].split(";"))


def test_gene_sets_are_well_formed() -> None:
    sets = [line.split("\t") for line in (ROOT / "docs" / "gene_sets.gmt").read_text().splitlines()]
    for name, described, *genes in sets:
        assert described.startswith("own short list"), name
        assert len(set(genes)) == len(genes) > 10
    assert {"ISG15", "IFIT1"} <= set(sets[0][2:])
