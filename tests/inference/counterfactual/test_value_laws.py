"""The laws of interventions on values, for every kind of concept, on the model of `valued_model`.

Everything said to be kept is kept bit for bit; see that module for the graph: stim and age are causes of stage.
"""

from collections.abc import Iterator
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from valued_model import SCHEMA, ValuedEngine, valued_cells

from causcell.cells.collection import open_cells
from causcell.counterfactual.interventions import Intervention
from causcell.counterfactual.request import make_request
from causcell.counterfactual.scm import StructuralCausalModel
from causcell.counterfactual.tables import ResultTable
from causcell.errors import CausCellWarning, ConfigurationError
from causcell.generator import Generator
from causcell.randomness import cell_keys

STIM, AGE, PERTURBATION, STAGE, UNEXPLAINED = range(5)

VALUES: list[tuple[str, Any]] = [
    ("age", 35.5),
    ("age", 70),
    ("perturbation", "C+A"),
    ("stage", 1),
    ("stim", "IFN"),
]
"""A value of each kind that no reference cell has, or that is drawn from the prior by ``target="prior"``."""

values = pytest.mark.parametrize(("concept", "value"), VALUES)
pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")


@pytest.fixture(scope="module")
def engine(generator: Generator) -> ValuedEngine:
    return ValuedEngine(generator.engine)


@pytest.fixture(scope="module")
def valued(engine: ValuedEngine) -> Iterator[Generator]:
    with Generator(engine, batch_size=64) as opened:
        yield opened


@pytest.fixture(scope="module")
def some(cells: anndata.AnnData) -> anndata.AnnData:
    return valued_cells(cells[:96].copy())


@pytest.fixture(scope="module")
def batch(valued: Generator, some: anndata.AnnData) -> dict[str, Any]:
    """Cells as `StructuralCausalModel.intervene` takes them."""
    with valued.bind(open_cells(some)) as bound:
        chosen = bound.read(slice(0, 96))
        labels, numbers = bound.labels, bound.numbers
    exogenous = valued.model.scm.inform(valued.model.encode(chosen.expression).mean, labels, numbers)
    return {
        "exogenous": exogenous,
        "endogenous": valued.model.scm.factual(exogenous)["endogenous"],
        "labels": labels,
        "numbers": numbers,
        "keys": cell_keys(0, chosen.names),
    }


def act(valued: Generator, batch: dict[str, Any], do: dict[str, Any], mode: Any = "do", draw: int = 0) -> Any:
    intervention = Intervention.of(SCHEMA, do, "prior")
    return valued.model.scm.intervene(intervention, **batch, mode=mode, draw=draw)


# -- embeddings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["do", "isolated"])
@values
def test_non_descendants_never_change(valued, batch, mode, concept, value):
    i = SCHEMA.index(concept)
    kept = sorted({*range(4), UNEXPLAINED} - {i} - SCHEMA.descendants([i]))
    result = act(valued, batch, {concept: value}, mode)
    np.testing.assert_array_equal(result.endogenous[:, kept], batch["endogenous"][:, kept])
    np.testing.assert_array_equal(result.labels[:, kept[:-1]], batch["labels"][:, kept[:-1]])
    for place, other in enumerate(SCHEMA.numeric):
        if other in kept:
            np.testing.assert_array_equal(result.numbers[:, place], batch["numbers"][:, place])


@values
def test_the_target_is_drawn_from_its_prior(valued, engine, batch, concept, value):
    i = SCHEMA.index(concept)
    result = act(valued, batch, {concept: value})
    row = np.zeros((1, SCHEMA.value_slices[-1].stop), dtype=np.float32)
    row[0, SCHEMA.value_slices[i]] = SCHEMA[concept].parse_value(value)
    prior = engine.run("prior", {"values": row})
    error = (result.endogenous[:, i] - prior["mean"][0, i]) / np.exp(0.5 * prior["logvar"][0, i])
    changed = (result.endogenous[:, i] != batch["endogenous"][:, i]).any(axis=1)
    assert changed.mean() > 0.4
    assert abs(error[changed].mean()) < 0.15
    assert error[changed].std() == pytest.approx(1, abs=0.1)


@values
def test_descendants_follow_from_the_target(valued, engine, batch, concept, value):
    i = SCHEMA.index(concept)
    result = act(valued, batch, {concept: value})
    z = result.endogenous
    expected = batch["exogenous"][:, STAGE] + z[:, STIM] + np.float32(0.5) * z[:, AGE]
    if concept != "stage":
        np.testing.assert_allclose(z[:, STAGE], expected, atol=1e-5)
    moved = (z[:, STAGE] != batch["endogenous"][:, STAGE]).any(axis=1)
    assert moved.any() == (concept != "perturbation")
    if i in SCHEMA.parents(STAGE):
        logits = engine.run("scm", {"exogenous": z, "forced": z, "mask": np.ones(z.shape[:2], np.float32)})
        predicted = logits["logits_stage"].argmax(axis=1)
        np.testing.assert_array_equal(result.labels[moved, STAGE], predicted[moved])
        np.testing.assert_array_equal(result.numbers[moved, 1], SCHEMA["stage"].values[predicted[moved], 0])


@pytest.mark.parametrize("mode", ["do", "exogenous", "isolated"])
@pytest.mark.parametrize(("concept", "value"), [("age", 30), ("perturbation", "B+A"), ("stim", "IFN")])
def test_a_cell_that_has_the_value_keeps_everything(valued, some, batch, mode, concept, value):
    """Also where its embedding would be drawn from the prior."""
    result = act(valued, batch, {concept: value}, mode)
    carries = (some.obs[concept].astype(object) == value).to_numpy()
    assert 0 < carries.sum() < 96
    np.testing.assert_array_equal(result.endogenous[carries], batch["endogenous"][carries])
    np.testing.assert_array_equal(result.labels[carries], batch["labels"][carries])
    np.testing.assert_array_equal(result.numbers[carries], batch["numbers"][carries])
    moved = (result.endogenous != batch["endogenous"])[:, SCHEMA.index(concept)].any(axis=1)
    np.testing.assert_array_equal(moved, ~carries)


def test_another_number_of_the_same_bin_is_another_value(valued, batch):
    """The bin [40, 60] holds 40 and 60; cells of 60 are moved by do(age=40), and by no do of their bin."""
    result = act(valued, batch, {"age": 40})
    sixty = batch["numbers"][:, 0] == SCHEMA["age"].parse_value(60)[0]
    assert sixty.any()
    assert (result.endogenous != batch["endogenous"])[sixty, AGE].any(axis=1).all()
    by_bin = valued.model.scm.intervene(Intervention.of(SCHEMA, {"age": "[40, 60]"}), **batch)
    np.testing.assert_array_equal(by_bin.endogenous[sixty], batch["endogenous"][sixty])
    np.testing.assert_array_equal(by_bin.numbers[sixty], batch["numbers"][sixty])


def test_a_grid_of_values_shares_its_noise(valued, engine, batch):
    """A cell's course over a grid is as smooth as the prior: what differs from its mean is the same at every value."""
    far = {**batch, "numbers": np.full_like(batch["numbers"], np.nan), "labels": np.full_like(batch["labels"], -1)}
    rests = []
    for age in np.arange(20, 60, 2.5):
        value = np.zeros((1, SCHEMA.value_slices[-1].stop), dtype=np.float32)
        value[0, SCHEMA.value_slices[AGE]] = SCHEMA["age"].parse_value(age)
        mean = engine.run("prior", {"values": value})["mean"][0, AGE]
        rests.append(act(valued, far, {"age": age}).endogenous[:, AGE] - mean)
    assert np.abs(np.diff(rests, axis=0)).max() < 1e-5
    other = act(valued, far, {"age": 20}, draw=1).endogenous[:, AGE] - act(valued, far, {"age": 20}).endogenous[:, AGE]
    assert np.abs(other).min(axis=1).max() > 0


@values
def test_what_a_cell_has_of_its_own_is_kept_at_values_too(valued, engine, batch, concept, value):
    """The prior's mean at the value less that at the cell's own; there is one course over a grid, and no draw."""
    i = SCHEMA.index(concept)
    intervention = Intervention.of(SCHEMA, {concept: value}, "own")
    found = [valued.model.scm.intervene(intervention, **batch, keep_own=True, draw=draw).endogenous for draw in (0, 1)]
    known = batch["labels"][:, i] >= 0
    np.testing.assert_array_equal(found[0][known], found[1][known])
    moved = (found[0] != batch["endogenous"])[:, i].any(axis=1)
    assert (moved & known).any()
    if intervention.values:
        target = np.zeros((1, SCHEMA.value_slices[-1].stop), dtype=np.float32)
        target[0, SCHEMA.value_slices[i]] = SCHEMA[concept].parse_value(value)
        values = valued.model.scm.prior.encode_values(batch["labels"], batch["numbers"])
        own = engine.run("prior", {"values": np.nan_to_num(values)})
        difference = engine.run("prior", {"values": target})["mean"][0, i] - own["mean"][:, i]
        rows = moved & known
        np.testing.assert_allclose(found[0][rows, i], (batch["endogenous"][:, i] + difference)[rows], atol=1e-5)
    others = sorted({*range(4), UNEXPLAINED} - {i} - SCHEMA.descendants([i]))
    np.testing.assert_array_equal(found[0][:, others], batch["endogenous"][:, others])


def test_a_value_is_evaluated_once(generator, batch):
    fresh = ValuedEngine(generator.engine)
    scm = StructuralCausalModel(fresh)
    for draw in range(3):
        for age in (33, 44):
            scm.intervene(Intervention.of(SCHEMA, {"age": age}), **batch, draw=draw)
    assert fresh.runs["prior"] == 2


# -- results -----------------------------------------------------------------------------------------------------------

MIXED: list[dict[str, Any]] = [
    {},
    {"age": 35.5},
    {"perturbation": "C+A"},
    {"stage": 1},
    {"age": 70, "stim": "IFN"},
    {"perturbation": "A+B"},
    {"age": "[20, 30)"},
]


@pytest.fixture(scope="module")
def mixed(valued, some):
    return valued.counterfactual(some, MIXED, seed=3)


def rows(result: anndata.AnnData, intervention: str) -> anndata.AnnData:
    return result[result.obs["intervention"] == intervention]


def test_factual_rows_are_those_without_any_intervention(valued, some, mixed):
    factual = valued.reconstruct(some, seed=3)
    np.testing.assert_array_equal(rows(mixed, "factual").X, factual.X)
    again = rows(mixed, "factual").obs.set_axis(factual.obs.index)
    for column in ("age", "perturbation", "stage", "stim"):
        assert again[column].astype(str).tolist() == factual.obs[column].astype(str).tolist()


def test_obs_holds_what_was_set(mixed, some):
    assert (rows(mixed, "age=35.5").obs["age"] == 35.5).all()
    assert (rows(mixed, "perturbation=A+C").obs["perturbation"] == "A+C").all()
    assert (rows(mixed, "stage=1").obs["stage"] == 1.0).all()
    assert (rows(mixed, "stim=IFN;age=70").obs["age"] == 70).all()
    factual = rows(mixed, "factual").obs
    np.testing.assert_array_equal(factual["age"], some.obs["age"])
    np.testing.assert_array_equal(factual["age_factual"], some.obs["age"])
    np.testing.assert_array_equal(factual["stage"], some.obs["stage"])
    assert set(factual["perturbation"]) == {"A", "A+B", "C", "ctrl"}
    of_bin = rows(mixed, "age=[20, 30)").obs  # reference cells of the bin: its median
    assert (of_bin["age"] == 20).all()


def test_what_is_extrapolated_is_marked(mixed):
    marked = set(mixed.obs["intervention"][mixed.obs["extrapolated"]])
    assert marked == {"perturbation=A+C", "stim=IFN;age=70"}
    unseen = mixed.obs.groupby("intervention", observed=True)["unseen_combination"].mean()
    assert unseen["perturbation=A+C"] == 1
    assert unseen["stage=1"] == 1


def test_a_warning_tells_of_extrapolation_once(valued, some):
    with pytest.warns(CausCellWarning) as told:
        valued.counterfactual(some, [{"age": 70}, {"age": 90}])
    about = [str(each.message) for each in told if "beyond what the model was trained on" in str(each.message)]
    assert len(about) == 1
    assert "'age=70', 'age=90' are beyond" in about[0]
    assert "(age from 20 to 60)" in about[0]


def test_plain_models_have_no_such_column(generator, few):
    assert "extrapolated" not in generator.counterfactual(few, {"stim": "IFN"}).obs


def test_a_cell_does_not_depend_on_its_batch(engine, some, mixed):
    """Nor on order: one cell alone, and the cells backwards."""
    with Generator(engine, batch_size=64) as alone:
        backwards = alone.counterfactual(some[::-1].copy(), MIXED, seed=3)
    expected = mixed[backwards.obs_names]
    close = np.abs(backwards.X - expected.X) <= 1e-4
    assert (~close).mean() <= 1e-3
    for column in ("age", "stage", "extrapolated"):
        np.testing.assert_array_equal(backwards.obs[column], expected.obs[column])


def test_a_cell_does_not_depend_on_the_interventions_beside_it(valued, some, mixed):
    for do in MIXED[1:]:
        alone = valued.counterfactual(some, do, seed=3)
        name = alone.obs["intervention"].iloc[0]
        np.testing.assert_array_equal(alone.X, rows(mixed, name).X)


def test_the_order_of_a_grid_does_not_matter(valued, some):
    up = valued.counterfactual(some, grid=["age=20:60:8"])
    down = valued.counterfactual(some, grid=["age=60:20:-8"])
    assert up.obs["intervention"].cat.categories.tolist() == [f"age={age}" for age in range(20, 61, 8)]
    for name in up.obs["intervention"].cat.categories:
        np.testing.assert_array_equal(rows(up, name).X, rows(down, name).X)


def test_the_prior_of_labels(valued, some):
    """``target="prior"`` draws embeddings of known labels too; without it they are reference cells'."""
    reference = valued.counterfactual(some, {"stim": "IFN"}, store="embeddings").obsm["X_causcell"]
    prior = valued.counterfactual(some, {"stim": "IFN"}, target="prior", store="embeddings")
    k = valued.manifest.dimensions.embedding
    changed = (some.obs["stim"] != "IFN").to_numpy()
    assert (prior.obsm["X_causcell"][changed, :k] != reference[changed, :k]).all()
    np.testing.assert_array_equal(prior.obsm["X_causcell"][~changed], reference[~changed])
    assert (prior.obs["stim"] == "IFN").all()
    assert prior.uns["causcell"]["target"] == "prior"


def test_plain_models_have_no_prior(generator, few):
    with pytest.raises(ConfigurationError, match=r"'stim=IFN' asks for .* this model has no priors.*age:"):
        generator.counterfactual(few, {"stim": "IFN"}, target="prior")


def test_the_prior_tells_nothing_of_what_is_a_concepts_own(valued, some):
    with pytest.raises(ConfigurationError, match=r"mode='exogenous' replaces what is stage's own.*take mode='do'"):
        valued.counterfactual(some, {"stage": 1}, mode="exogenous")
    a = valued.counterfactual(some, {"age": 33}, mode="exogenous")
    b = valued.counterfactual(some, {"age": 33}, mode="do")
    np.testing.assert_allclose(a.X, b.X, atol=1e-4)  # age has no parents


def test_parents_are_matched_among_reference_cells_alone(valued, some):
    with pytest.raises(ConfigurationError, match="match_parents=True chooses among reference cells"):
        valued.counterfactual(some, {"stage": 1}, match_parents=True)
    valued.counterfactual(some, [{"stage": 1}, {"stage": 2}], match_parents=True)


def test_an_unknown_target(valued, some):
    with pytest.raises(ConfigurationError, match="target 'priors' is not known; did you mean 'prior'"):
        valued.counterfactual(some, {"stage": 1}, target="priors")


def test_embed_predicts_numbers(valued, some):
    embedded = valued.embed(some)
    ages = embedded.obs["age_predicted"]
    assert ages.dtype == np.float64
    assert ages.notna().all()
    assert ages.nunique() > 50
    assert set(embedded.obs["stage_predicted"]) <= {0.0, 2.0, 4.0}
    assert set(embedded.obs["perturbation_predicted"]) <= {"A", "A+B", "C", "ctrl"}


def test_abduction_is_told_numbers(valued, some):
    """A cell's own number informs its embedding, within one bin too."""
    other = some.copy()
    other.obs["age"] = other.obs["age"].replace(60.0, 50.0)
    a, b = (valued.reconstruct(each, store="embeddings").obsm["X_causcell"] for each in (some, other))
    moved = (a != b).any(axis=1)
    np.testing.assert_array_equal(moved, (some.obs["age"] == 60).to_numpy())


def test_summaries_hold_mean_numbers(valued, some):
    summary = valued.counterfactual(some, [{}, {"age": 35.5}], store="summary", draws=3)
    assert (rows(summary, "age=35.5").obs["age"] == 35.5).all()
    np.testing.assert_array_equal(rows(summary, "factual").obs["age"], some.obs["age"])


def test_counterfactual_results_are_written_and_read(mixed, tmp_path):
    mixed.write_h5ad(tmp_path / "mixed.h5ad")
    again = anndata.read_h5ad(tmp_path / "mixed.h5ad")
    pd.testing.assert_series_equal(again.obs["age"], mixed.obs["age"])
    assert again.obs["extrapolated"].tolist() == mixed.obs["extrapolated"].tolist()


# -- what no training cell has -----------------------------------------------------------------------------------------


def test_cells_with_a_set_that_no_training_cell_has_are_told(valued: Generator, some: anndata.AnnData) -> None:
    cells = some[:20].copy()
    cells.obs["perturbation"] = ["A+C", None, "C+A", *["A"] * 17]
    with (
        valued.bind(open_cells(cells)) as bound,
        pytest.warns(CausCellWarning, match=r"^2 cells carry 'A\+C' of"),
    ):
        codes = bound.labels[:, PERTURBATION]
    assert codes.tolist() == [-1, -1, -1, *[0] * 17]


def test_cells_without_a_label_are_not(
    valued: Generator, some: anndata.AnnData, recwarn: pytest.WarningsRecorder
) -> None:
    cells = some[:20].copy()
    cells.obs["perturbation"] = [None, *["A"] * 19]
    with valued.bind(open_cells(cells)) as bound:
        assert bound.labels[0, PERTURBATION] == -1
    assert not recwarn.list


def test_the_columns_that_are_announced_are_those_of_results(valued: Generator, mixed: anndata.AnnData) -> None:
    """With the mark of what is extrapolated."""
    form = ResultTable.of(valued.model, make_request(valued.manifest, MIXED))
    columns = form.own_columns()
    assert columns == list(form.example(0))
    assert mixed.obs.columns[: len(columns)].tolist() == columns
