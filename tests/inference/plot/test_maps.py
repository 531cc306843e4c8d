"""Real cells beside their counterfactuals: one map, colours that say where a cell came from."""

import anndata
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

import causcell
from causcell.errors import ConfigurationError, RuntimeUnavailableError

pytest.importorskip("umap", reason="takes causcell[evaluate]")
plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture
def pair():
    """60 real cells of two types with 12 genes, and results of 10 of the genes under an intervention."""
    rng = np.random.default_rng(0)
    kinds = np.array(["B", "T"] * 30)
    values = rng.random((60, 12)).astype(np.float32) + 3 * (kinds == "B")[:, None] * (np.arange(12) < 4)
    real = anndata.AnnData(
        values, obs=pd.DataFrame({"kind": pd.Categorical(kinds)}, index=[f"c{i}" for i in range(60)])
    )
    real.var_names = [f"G{i}" for i in range(12)]
    obs = pd.DataFrame({"kind": "T", "kind_factual": kinds, "intervention": "kind=T"}, index=real.obs_names)
    return real, anndata.AnnData(values[:, 1:11] + 0.1, obs=obs, var=real.var.iloc[1:11])


def test_both_stand_on_one_map(pair):
    real, other = pair
    left, right = causcell.pl.umap_pair(real, other, seed=1)
    assert left.figure is right.figure
    before, grey, after = (np.asarray(each.get_offsets()) for each in (*left.collections, *right.collections))
    np.testing.assert_array_equal(before, grey)
    assert before.shape == after.shape == (60, 2)
    assert "do(kind=T)" in right.get_title()


def test_factual_cells_have_a_panel_between(pair):
    real, other = pair
    panels = causcell.pl.umap_pair(real, other, factual=other[:40], color="kind")
    assert [ax.get_title().partition(",")[0] for ax in panels] == [
        "60 real cells",
        "40 cells as the model makes them",
        "60 counterfactual cells",
    ]


def test_a_counterfactual_cell_keeps_the_colour_that_it_had_as_scanpy_stored_it(pair):
    real, other = pair
    real.uns["kind_colors"] = ["#112233", "#445566"]
    left, right = causcell.pl.umap_pair(real, other, color="kind")
    drawn = {to_hex(each.get_facecolor()[0]): len(each.get_offsets()) for each in right.collections[1:]}
    assert drawn == {"#112233": 30, "#445566": 30}  # by kind_factual: by kind all would be T
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["B", "T"]
    assert left.get_legend() is None


def test_counts_are_taken_as_log_values(pair, monkeypatch):
    """The map is made from log1p of counts per 10,000, over all genes that the cells have."""
    import umap

    mapped = []
    monkeypatch.setattr(umap.UMAP, "fit_transform", lambda self, points: mapped.append(points) or points[:, :2])
    real, other = pair
    counts, logs = real.copy(), real.copy()
    counts.X = np.round(np.expm1(real.X)).astype(np.float32)
    logs.X = np.log1p(counts.X * (10_000 / counts.X.sum(axis=1, keepdims=True)))
    for cells in (counts, logs):
        causcell.pl.umap_pair(cells, other)
    distances = [np.linalg.norm(points[:60, None] - points[None, :60], axis=2) for points in mapped]
    np.testing.assert_allclose(*distances, atol=1e-3)  # the sign of a principal component is free


def test_many_cells_are_thinned(pair):
    real, other = pair
    left, _ = causcell.pl.umap_pair(real, other, most=20)
    assert len(left.collections[0].get_offsets()) == 20


def test_genes_that_the_real_cells_lack_are_named(pair):
    real, other = pair
    with pytest.raises(ConfigurationError, match=r"lack 1 of the results' 10 genes: 'G3'"):
        causcell.pl.umap_pair(real[:, real.var_names != "G3"], other)
    with pytest.raises(ConfigurationError, match="1 real and 60 counterfactual cells make no map"):
        causcell.pl.umap_pair(real[:1], other)


def test_without_umap_learn_the_extra_is_named(pair, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "umap", None)
    with pytest.raises(RuntimeUnavailableError, match=r"'umap-learn'; install causcell\[evaluate\]"):
        causcell.pl.umap_pair(*pair)
