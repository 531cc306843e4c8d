"""Names of concepts that meet names of ours, or hold odd characters: nothing is written over, from cells to atlas."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from short_runs import small_config

from causcell import Generator
from causcell_export import export
from causcell_training import fit

INNER = ("part", "cell", "index", "factual", "split", "filled", "logits", "X")
ODD = ("ünï cödé", "quote\"'s", "(a) [b] {c}", "<b>&amp", "%s{} $HOME", " #a.b ", "x" * 190)


@pytest.mark.slow
@pytest.mark.parametrize("names", [INNER, ODD], ids=["inner names", "odd characters"])
def test_no_name_of_a_concept_is_written_over(cells: anndata.AnnData, tmp_path: Path, names: tuple[str, ...]) -> None:
    """Each concept keeps its own labels in held-out cells, results, files and the atlas."""
    adata, rng = cells.copy(), np.random.default_rng(0)
    labels = {name: rng.choice(["u", "v"], adata.n_obs) for name in names}
    adata.obs = pd.DataFrame(labels, index=adata.obs_names)
    quick = {"concept": names, "edge": (f"{names[0]}:{names[1]}",), "genes": 20, "optimisation.epochs": 1}
    run = fit(adata, tmp_path / "run", config=small_config(**quick))
    held_out = run.held_out()
    assert set(run.provenance["held_out"]) == {"pcc", "mse"}
    assert set(held_out.obs["causcell:part"]) == {"choose", "report"}
    with Generator.open(export(run, tmp_path / "models"), threads=1) as generator:
        embedded = generator.embed(adata)
        do = dict.fromkeys(names, "u")
        generator.write_atlas(adata, tmp_path / "atlas.zarr", do=[{}, do])
        assert names[0] in generator._repr_html_() or "&" in generator._repr_html_()
    embedded.write_h5ad(tmp_path / "embedded.h5ad")
    atlas = anndata.read_zarr(tmp_path / "atlas.zarr")
    embedded = anndata.read_h5ad(tmp_path / "embedded.h5ad")
    for name in names:
        own = pd.Series(labels[name], index=adata.obs_names)
        assert (held_out.obs[name].astype(str) == own[held_out.obs_names]).all()
        assert (embedded.obs[name].astype(str) == own).all()
        assert f"X_causcell_{name}" in embedded.obsm
        factual = atlas[atlas.obs["intervention"] == "factual"].obs
        assert (factual[f"{name}_factual"].astype(str).to_numpy() == labels[name]).all()
        assert (factual[name].astype(str).to_numpy() == labels[name]).all()
        assert (atlas[atlas.obs["intervention"] != "factual"].obs[name] == "u").all()
