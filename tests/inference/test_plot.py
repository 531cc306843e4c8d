"""Figures show what is in the data, on the axes that they are given."""

import anndata
import numpy as np
import pandas as pd
import pytest

from causcell.errors import ConfigurationError

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("agg")

from matplotlib import pyplot as plt  # noqa: E402

from causcell.plot import counterfactual_embedding, effect_heatmap, intervention_effects, top_genes  # noqa: E402


@pytest.fixture
def atlas():
    """40 cells of two types; ``stim=IFN`` raises G3 by 2 in type B, and lowers G5 by 1 in both."""
    rng = np.random.default_rng(0)
    factual = rng.random((40, 30)).astype(np.float32) + 1
    kinds = np.array(["B", "T"] * 20)
    moved = factual.copy()
    moved[kinds == "B", 3] += 2
    moved[:, 5] -= 1
    obs = pd.DataFrame(
        {
            "intervention": pd.Categorical(np.tile(["factual", "stim=IFN"], 40)),
            "cell_type_factual": pd.Categorical(np.repeat(kinds, 2), categories=["B", "T", "NK"]),
        },
        index=[str(i) for i in range(80)],
    )
    values = np.stack([factual, moved], axis=1).reshape(80, 30)
    return anndata.AnnData(values, obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(30)]))


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_effects_are_differences_of_means_by_label(atlas):
    effects = intervention_effects(atlas, by="cell_type_factual")
    assert effects.index.tolist() == ["B", "T"]
    expected = np.zeros((2, 30))
    expected[0, 3], expected[:, 5] = 2, -1
    np.testing.assert_allclose(effects, expected, atol=1e-6)
    np.testing.assert_allclose(intervention_effects(atlas, "stim=IFN").loc["all cells", "G3"], 1, atol=1e-6)


def test_a_store_of_effects_needs_no_factual_rows(atlas):
    effects = atlas[1::2].copy()
    effects.X = effects.X - atlas[::2].X
    effects.uns["causcell"] = {"store": "effects"}
    pd.testing.assert_frame_equal(
        intervention_effects(effects, by="cell_type_factual"),
        intervention_effects(atlas, by="cell_type_factual"),
        atol=1e-6,
    )


def test_heat_map_shows_the_most_changed_genes_of_every_label(atlas):
    ax = effect_heatmap(atlas, "stim=IFN", by="cell_type_factual", genes=2)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["G3", "G5"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["B", "T"]
    np.testing.assert_allclose(ax.images[0].get_array(), [[2, -1], [0, -1]], atol=1e-6)
    low, high = ax.images[0].get_clim()
    assert low == -high  # no change is white


def test_top_genes_are_those_of_the_largest_mean_change(atlas):
    ax = top_genes(atlas, "stim=IFN", by="cell_type_factual", genes=2)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["G5", "G3"]
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], [-1, 1], atol=1e-6)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["B", "T"]


@pytest.mark.parametrize(
    "draw",
    [
        lambda atlas, ax: effect_heatmap(atlas, by="cell_type_factual", ax=ax),
        lambda atlas, ax: top_genes(atlas, ax=ax),
        lambda atlas, ax: counterfactual_embedding(atlas[::2], atlas[1::2], color="cell_type_factual", ax=ax),
    ],
)
def test_figures_are_drawn_on_the_axes_given(atlas, draw, tmp_path):
    figure, ax = plt.subplots()
    assert draw(atlas, ax) is ax
    assert ax.get_title()
    figure.savefig(tmp_path / "figure.png")


def test_what_cannot_be_shown(atlas):
    with pytest.raises(ConfigurationError, match=r"'stim=ctrl' is not in the atlas; name one of 'stim=IFN'"):
        intervention_effects(atlas, "stim=ctrl")
    with pytest.raises(ConfigurationError, match="no column 'donor'; its columns are"):
        intervention_effects(atlas, by="donor")
    with pytest.raises(ConfigurationError, match="no factual rows to compare with"):
        intervention_effects(atlas[1::2])
