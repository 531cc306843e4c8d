"""Figures show what is in the data, on the axes that they are given."""

import anndata
import numpy as np
import pandas as pd
import pytest

from causcell.errors import ConfigurationError, DataError

matplotlib = pytest.importorskip("matplotlib")

from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.colors import to_rgba  # noqa: E402

from causcell.plot import (  # noqa: E402
    counterfactual_embedding,
    effect_heatmap,
    intervention_effects,
    top_genes,
    value_course,
)


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
            "source_cell": pd.Categorical(np.repeat([f"cell {i}" for i in range(40)], 2)),
        },
        index=[str(i) for i in range(80)],
    )
    values = np.stack([factual, moved], axis=1).reshape(80, 30)
    return anndata.AnnData(values, obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(30)]))


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


def test_an_effect_compares_rows_with_the_factual_rows_of_the_same_cells(atlas):
    """By a label that the intervention changes, too: every row of do(stim=IFN) carries IFN, and half the cells do."""
    own = np.where(np.arange(40) < 20, "ctrl", "IFN")
    atlas.obs["stim"] = pd.Categorical(np.where(atlas.obs["intervention"] == "factual", np.repeat(own, 2), "IFN"))
    effects = intervention_effects(atlas, by="stim")
    assert effects.index.tolist() == ["IFN"]
    np.testing.assert_allclose(effects.loc["IFN"], intervention_effects(atlas).loc["all cells"], atol=1e-6)
    np.testing.assert_allclose(effects.loc["IFN", ["G3", "G5"]], [1, -1], atol=1e-6)


def test_a_cell_counts_as_often_as_its_rows(atlas):
    """Three rows of one cell and one of another, of two draws of which one is left."""
    rows = [0, 1, 1, 1, 2, 3]
    effects = intervention_effects(atlas[rows])
    np.testing.assert_allclose(effects.loc["all cells", ["G3", "G5"]], [1.5, -1], atol=1e-6)
    with pytest.raises(ConfigurationError, match=r"no factual rows of 1 cells to compare with, such as 'cell 1'"):
        intervention_effects(atlas[[0, 1, 3]])


def test_labels_come_in_their_own_order_and_cells_without_one_come_last(atlas):
    ages = pd.Categorical(
        np.repeat(np.resize(["10", "9", None, "8"], 40), 2), categories=["8", "9", "10"], ordered=True
    )
    atlas.obs["age"] = ages
    assert intervention_effects(atlas, by="age").index.tolist() == ["8", "9", "10", "(unlabelled)"]
    atlas.obs["age"] = np.asarray(ages.astype(float))
    assert intervention_effects(atlas, by="age").index.tolist() == ["8.0", "9.0", "10.0", "(unlabelled)"]


def test_genes_of_one_name_are_shown_once_each(atlas):
    atlas.var_names = ["twin" if name in ("G3", "G5") else name for name in atlas.var_names]
    ax = effect_heatmap(atlas, by="cell_type_factual", genes=2)
    np.testing.assert_allclose(ax.images[0].get_array(), [[2, -1], [0, -1]], atol=1e-6)
    ax = top_genes(atlas, genes=2)
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], [-1, 1], atol=1e-6)


def test_values_that_are_not_finite_are_told_by_their_gene(atlas):
    atlas.X[5, 7] = np.nan
    with pytest.raises(DataError, match=r"not finite \(genes 'G7'\)"):
        top_genes(atlas)
    with pytest.raises(DataError, match="not finite"):
        counterfactual_embedding(atlas[::2], atlas[1::2])


def named_colours(ax):
    """Colours of the legend by label."""
    legend = ax.get_legend()
    handles = [to_rgba(handle.get_color()) for handle in legend.legend_handles]
    return dict(zip([text.get_text() for text in legend.get_texts()], handles, strict=True))


def point_colours(ax, marker):
    """Colour of each point that has the marker, by its place."""
    found = {}
    for points in ax.collections:
        hollow = len(points.get_paths()[0].vertices) == 4  # a cross is two lines
        if hollow == (marker == "x"):
            found |= {tuple(place): to_rgba(points.get_facecolor()[0]) for place in np.round(points.get_offsets(), 4)}
    return found


@pytest.mark.parametrize("count", [1, 3, 15, 40])
def test_dots_have_the_colour_of_the_factual_label_and_crosses_of_the_counterfactual_one(atlas, count):
    factual, counterfactual = atlas[::2].copy(), atlas[1::2].copy()
    own = np.array([f"label {i % count}" for i in range(40)])
    factual.obs["stim"] = pd.Categorical(own)
    counterfactual.obs["stim"] = pd.Categorical(["moved"] * 40)
    ax = counterfactual_embedding(factual, counterfactual, color="stim")
    colours = named_colours(ax)
    assert list(colours) == [*factual.obs["stim"].cat.categories, "moved"]
    assert len(set(colours.values())) == count + 1
    centre = factual.X.mean(axis=0)
    plane = np.linalg.svd(factual.X - centre, full_matrices=False)[2][:2].T
    for results, marker in ((factual, "o"), (counterfactual, "x")):
        drawn = point_colours(ax, marker)
        assert len(drawn) == 40
        for place, label in zip((results.X - centre) @ plane, results.obs["stim"], strict=True):
            nearest = min(drawn, key=lambda at, place=place: abs(np.subtract(at, place)).sum())
            np.testing.assert_allclose(nearest, place, atol=1e-3)
            assert drawn[nearest] == colours[label]


def test_every_label_is_in_the_legend_as_it_is(atlas):
    """matplotlib leaves out what begins with an underscore, and reads a formula between dollars."""
    names = {"B": "_hidden", "T": r"$\frac$"}
    atlas.obs["odd"] = pd.Categorical([names[kind] for kind in atlas.obs["cell_type_factual"]])
    for ax in (
        counterfactual_embedding(atlas[::2], atlas[1::2], color="odd"),
        top_genes(atlas, by="odd"),
    ):
        assert sorted(text.get_text() for text in ax.get_legend().get_texts()) == [r"\$\frac\$", "_hidden"]
        ax.figure.canvas.draw()


@pytest.mark.parametrize(
    "label", ["label", "a label of an ontology, which are often of eighty characters and more, like"]
)
def test_legend_and_names_of_forty_labels_are_inside_the_figure(atlas, label):
    atlas.obs["many"] = pd.Categorical(np.repeat([f"{label} {i}" for i in range(40)], 2))
    for ax in (
        counterfactual_embedding(atlas[::2], atlas[1::2], color="many"),
        top_genes(atlas, by="many"),
        effect_heatmap(atlas, by="many"),
    ):
        figure = ax.figure
        figure.canvas.draw()
        box, whole = ax.get_window_extent(), figure.bbox
        assert box.width > 250
        assert box.height > 200
        drawn = ax.get_tightbbox()
        assert drawn.x0 >= whole.x0 - 1
        assert drawn.x1 <= whole.x1 + 1
        assert drawn.y0 >= whole.y0 - 1
        assert drawn.y1 <= whole.y1 + 1


def test_an_embedding_needs_the_same_cells_and_a_plane(atlas):
    factual, counterfactual = atlas[::2], atlas[1::2]
    with pytest.raises(
        ConfigurationError, match="40 rows x 30 genes and counterfactual ones of 39 x 30 are not of the"
    ):
        counterfactual_embedding(factual, counterfactual[1:])
    with pytest.raises(ConfigurationError, match="row 0 is of two cells, 'cell 0', 'cell 39'"):
        counterfactual_embedding(factual, counterfactual[::-1])
    with pytest.raises(ConfigurationError, match="40 cells x 1 genes have no plane"):
        counterfactual_embedding(factual[:, :1], counterfactual[:, :1])
    with pytest.raises(ConfigurationError, match="no column 'donor'"):
        counterfactual_embedding(factual, counterfactual, color="donor")


def test_what_cannot_be_shown(atlas):
    with pytest.raises(ConfigurationError, match=r"'stim=ctrl' is not in the atlas; name one of 'stim=IFN'"):
        intervention_effects(atlas, "stim=ctrl")
    with pytest.raises(ConfigurationError, match="no column 'donor'; its columns are"):
        intervention_effects(atlas, by="donor")
    with pytest.raises(ConfigurationError, match="no factual rows to compare with"):
        intervention_effects(atlas[1::2])


# -- numbers -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def course():
    """Two cells set to four doses: G0 doubles the dose, G1 is the cell's own; and the factual rows."""
    doses = np.array([3.0, 0.0, 1.0, 2.0])
    titles = ["factual", *(f"dose={dose:g}" for dose in doses)]
    obs = pd.DataFrame(
        {
            "source_cell": np.repeat(["a", "b"], 5),
            "intervention": titles * 2,
            "dose": np.tile([9.0, *doses], 2),
        },
        index=[f"row {i}" for i in range(10)],
    )
    values = np.stack([2 * obs["dose"], obs["source_cell"] == "b"], axis=1).astype(np.float32)
    return anndata.AnnData(values, obs=obs, var=pd.DataFrame(index=["G0", "G1"]))


def test_a_course_is_drawn_over_the_numbers_that_were_set(course):
    ax = value_course(course, "dose", ["G0", "G1"], cells=1)
    first, single, second, _ = ax.lines
    for line in (first, single):
        np.testing.assert_array_equal(line.get_xdata(), [0, 1, 2, 3])
        np.testing.assert_array_equal(line.get_ydata(), [0, 2, 4, 6])
    np.testing.assert_array_equal(second.get_ydata(), [0.5] * 4)
    assert ax.get_xlabel() == "do(dose)"


@pytest.mark.parametrize(
    ("concept", "genes", "told"),
    [
        ("stim", "G0", r"obs\['stim'\] holds neither numbers nor ordered labels; .*columns of such are 'dose'\)"),
        ("dose", "G9", "there is no gene 'G9'"),
        ("dose", [], "there is no gene"),
    ],
)
def test_a_course_that_there_is_not(course, concept, genes, told):
    with pytest.raises(ConfigurationError, match=told):
        value_course(course, concept, genes)


def test_a_course_takes_two_numbers(course):
    with pytest.raises(ConfigurationError, match=r"set 'dose' to 1 values.*grid=\['dose=0:10:1'\]"):
        value_course(course[course.obs["intervention"] == "dose=1"], "dose", "G0")


def test_a_course_over_ordered_labels_has_them_at_even_steps(course):
    times = ["early", "mid", "late", "last"]
    course.obs["time"] = pd.Categorical([times[int(dose) % 4] for dose in course.obs["dose"]], times, ordered=True)
    course.obs["intervention"] = [title.replace("dose=", "time=") for title in course.obs["intervention"]]
    ax = value_course(course, "time", "G0")
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [0, 1, 2, 3])
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [0, 2, 4, 6])
    assert [label.get_text() for label in ax.get_xticklabels()] == times
    with pytest.raises(ConfigurationError, match=r"set 'time' to 1 values.*grid=\['time'\]"):
        value_course(course[course.obs["intervention"] == "time=1"], "time", "G0")
    course.obs.loc["row 1", "time"] = np.nan
    with pytest.raises(DataError, match=r"obs\['time'\] lacks the value in rows that set it"):
        value_course(course, "time", "G0")


def test_many_numbers_are_no_labels(atlas):
    atlas.obs["age"] = np.arange(80.0)
    with pytest.raises(ConfigurationError, match=r"obs\['age'\] holds 80 distinct numbers.*value_course"):
        intervention_effects(atlas, by="age")
