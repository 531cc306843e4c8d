"""docs/effects.md: its example on counts runs as a script, and its table of columns is whole.

The rest of the page is a notebook, which the build of the site runs, and which looks at what it finds.
"""

import re
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from atlases import run_example
from paths import ROOT
from scipy import sparse

from causcell.generator import Generator
from causcell.get import effects_df

pytest.importorskip("scanpy", reason="takes causcell[evaluate]")

GUIDE = (ROOT / "docs" / "effects.md").read_text()
(EXAMPLE,) = re.findall(r"(?ms)^```python\n(.*?)^```", GUIDE)
COLUMNS = ["donor_factual", "intervention", "cell_type_factual"]


def test_every_column_of_a_table_is_described(generator: Generator, few: anndata.AnnData) -> None:
    table = effects_df(generator.trial(few, "cell_type", draws=1))
    described = re.findall(r"(?m)^\| (`[^|]*`) \|", GUIDE[GUIDE.index("| column | is |") :])
    assert re.findall(r"`(\w+)`", " ".join(described)) == list(table.columns)


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
    run_example(tmp_path, EXAMPLE)
    samples = anndata.read_h5ad(tmp_path / "samples.h5ad")
    assert samples.X.dtype == np.int64
    whole = cells.to_df().astype(np.int64).join(obs).groupby(COLUMNS, observed=True)
    kept = whole.size() >= 10
    assert 0 < kept.sum() < len(kept)
    assert samples.obs[COLUMNS].astype(str).agg(tuple, axis=1).tolist() == list(kept.index[kept])
    np.testing.assert_array_equal(samples.X, whole.sum()[kept].to_numpy())
    assert samples.obs["cells"].tolist() == whole.size()[kept].tolist()


def test_gene_sets_are_well_formed() -> None:
    sets = [line.split("\t") for line in (ROOT / "docs" / "gene_sets.gmt").read_text().splitlines()]
    for name, described, *genes in sets:
        assert described.startswith("own short list"), name
        assert len(set(genes)) == len(genes) > 10
    assert {"ISG15", "IFIT1"} <= set(sets[0][2:])
