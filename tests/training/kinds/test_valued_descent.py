"""Trainings that start from a run whose concepts have values: what grows, what stays, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from short_runs import weights
from valued_cells import valued_cells, valued_config

from causcell import Generator
from causcell.errors import ConceptError, UnknownConceptError
from causcell_export import export
from causcell_training import Run, TrainConfig, fit
from causcell_training.config import load_config
from causcell_training.data.grown_concepts import grow_schema
from causcell_training.descent import read_heritage, read_numbers

STEPS = {"descent.steps": 12, "descent.freeze": "none", "optimisation.batch_size": 32}


def settings(**overrides: object) -> TrainConfig:
    """Settings of a few steps."""
    return load_config(overrides=STEPS | {name.replace("__", "."): value for name, value in overrides.items()})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a concept of each kind, one of whose drugs is known by its features alone."""
    folder = tmp_path_factory.mktemp("valued")
    config = valued_config(folder)
    trained = fit(valued_cells(), folder / "run", config=config)
    (folder / "drugs.csv").unlink()  # a later training has no need of it
    return trained


def new_cells() -> anndata.AnnData:
    """Cells with ages and a dose beyond the run's, a dose between, a new member and set, and a drug known so far."""
    cells = valued_cells(seed=1)
    rng = np.random.default_rng(2)
    cells.obs["age"] = rng.uniform(50, 90, cells.n_obs)
    cells.obs["dose"] = rng.choice([1, 5, 10, 30], cells.n_obs)
    cells.obs["pert"] = rng.choice(["ctrl", "AA", "AA+C", "B"], cells.n_obs)
    cells.obs["drug"] = rng.choice(["x", "NEW"], cells.n_obs)
    cells.obs["line"] = rng.choice(["hela", "a549"], cells.n_obs)
    return cells


@pytest.fixture(scope="module")
def descended(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fit(new_cells(), tmp_path_factory.mktemp("descended") / "run", start_from=run, config=settings())


def test_places_of_what_was_known_stay_and_new_ones_stand_behind(descended: Run, run: Run) -> None:
    old, new = run.model.schema, descended.model.schema
    assert new["line"].labels == (*old["line"].labels, "a549")
    assert new["age"].labels == old["age"].labels
    age, was = new["age"].value, old["age"].value
    assert age is not None
    assert was is not None
    assert (age.mean, age.deviation, age.bounds, age.low) == (was.mean, was.deviation, was.bounds, was.low)
    assert 85 < (age.high or 0) <= 90
    assert new["dose"].labels == ("0", "1", "10", "30")  # 5 lies between, and is a value alone
    assert new["pert"].labels == (*old["pert"].labels, "AA", "AA+C")
    assert new["pert"].value is not None
    assert new["pert"].value.members == ("A", "B", "C", "AA")
    assert new["drug"].labels == ("x", "y", "z", "NEW")
    for name in ("pert", "dose", "drug"):
        labels = old[name].labels
        known = new[name].values[: len(labels)]
        np.testing.assert_array_equal(known[:, : old[name].values.shape[1]], old[name].values)


def test_values_of_all_cells_are_encoded_as_the_grown_concepts_have_them(descended: Run, run: Run) -> None:
    cells = new_cells()
    schema = descended.model.schema
    codes, values = schema.encode_values(cells.obs)
    between = (cells.obs["dose"] == 5).to_numpy()
    dose = schema.index("dose")
    assert (codes[between, dose] == -1).all()
    assert np.isfinite(values[between, schema.value_slices[dose]]).all()
    again = descended.held_out()
    before = run.held_out()
    pd.testing.assert_frame_equal(
        again.obs.loc[before.obs_names, ["age", "dose"]].astype(float), before.obs[["age", "dose"]].astype(float)
    )
    assert schema["pert"].describe_value(schema["pert"].parse_value("C+AA")) == "AA+C"
    assert descended.provenance["held_out"]["mae_age"] > 0


def test_without_a_step_the_model_is_the_one_that_it_starts_from(run: Run, tmp_path: Path) -> None:
    still = settings(optimisation__learning_rate=1e-12)
    other = fit(new_cells(), tmp_path / "run", start_from=run, config=still)
    old = weights(run)
    for name, array in weights(other).items():  # the moving average of the same numbers rounds
        if name.startswith("target_"):  # fitted when training has ended, to new cells too
            continue
        place = tuple(slice(size) for size in old[name].shape)
        np.testing.assert_allclose(array[place], old[name], atol=1e-6, err_msg=name)
    labels = other.reference.labels
    sizes = [len(concept.labels) for concept in run.model.schema.concepts]
    kept = other.reference.exogenous[(labels < sizes).all(axis=1)][-len(run.reference.labels) :]
    known = {row.tobytes() for row in np.round(run.reference.exogenous.reshape(len(run.reference.labels), -1), 2)}
    found = [row.tobytes() in known for row in np.round(kept.reshape(len(kept), -1), 2)]
    assert np.mean(found) > 0.5  # decoded, encoded, and set right again, where rounding does not part them


@torch.no_grad()
def test_priors_of_old_values_are_as_they_were_before_the_first_step(run: Run, tmp_path: Path) -> None:
    other = fit(new_cells(), tmp_path / "run", start_from=run, config=settings(optimisation__learning_rate=1e-12))
    for name, value in (("age", 33.3), ("dose", 10), ("pert", "A+B"), ("drug", "y"), ("line", "k562")):
        means = []
        for model in (run.model, other.model):
            i = model.schema.index(name)
            asked = torch.from_numpy(model.schema[name].parse_value(value))[None]
            means.append(model.priors[i](asked)[0])
        torch.testing.assert_close(means[0], means[1], atol=1e-5, rtol=1e-4, msg=name)


def test_replayed_cells_have_their_values(run: Run) -> None:
    """Numbers, of which reference cells keep the bin alone, are read from embeddings, and lie in the bin."""
    replayed = read_heritage(run, seed=0).replayed
    values = replayed.encode_values(run.model.schema)
    for name in ("dose", "pert", "drug"):
        i = run.model.schema.index(name)
        labelled = replayed.labels[:, i] >= 0
        expected = run.model.schema[name].values[replayed.labels[labelled, i]]
        np.testing.assert_array_equal(values[i][labelled], expected)
        assert np.isnan(values[i][~labelled]).all()
    i = run.model.schema.index("age")
    age = run.model.schema["age"].value
    assert age is not None
    labelled = replayed.labels[:, i] >= 0
    units, bins = age.in_units(values[i])[labelled, 0], replayed.labels[labelled, i]
    edges = np.array([age.low, *age.bounds, age.high])
    assert (units > edges[bins] - 1e-4).all()
    assert (units < edges[bins + 1] + 1e-4).all()
    assert np.isnan(values[i][~labelled]).all()
    assert set(read_numbers(run.model, run.reference.exogenous, run.reference.labels)) == {i}


@pytest.mark.filterwarnings("ignore:judged on held-out cells")  # twelve steps teach little
def test_a_grown_model_is_exported_and_asked_for_what_is_new(descended: Run, tmp_path: Path) -> None:
    cells = new_cells()[:6].copy()
    with Generator.open(export(descended, tmp_path / "models")) as generator:
        result = generator.counterfactual(cells, {"pert": "AA+C", "age": 88.0})
        assert not result.obs["extrapolated"].any()
        assert (result.obs["pert"] == "AA+C").all()
        with pytest.warns(UserWarning, match="beyond"):
            beyond = generator.counterfactual(cells, {"age": 99.0})
    assert beyond.obs["extrapolated"].all()


def table(folder: Path, rows: str, header: str = "drug,size,charge") -> str:
    """Write a table of features, and name it as a setting does."""
    (folder / "more.csv").write_text(f"{header}\n{rows}\n")
    return f"drug={folder / 'more.csv'}"


OLD_ROWS = "x,1,0\ny,0,1\nz,0,0\nNEW,0.5,0.5"


def test_a_table_given_now_knows_drugs_that_the_run_did_not(run: Run, tmp_path: Path) -> None:
    cells = new_cells()
    cells.obs["drug"] = np.where(cells.obs["drug"] == "NEW", "w", cells.obs["drug"])
    with pytest.raises(ConceptError, match=r"no features of 'w'.*--label-features drug="):
        fit(cells, tmp_path / "run", start_from=run, config=settings())
    given = table(tmp_path, f"{OLD_ROWS}\nw,2,2\nv,3,3")
    grown = fit(cells, tmp_path / "run", start_from=run, config=settings(), label_features=given)
    drug = grown.model.schema["drug"]
    assert drug.labels == ("x", "y", "z", "w")
    assert drug.value is not None
    assert drug.value.known == ("x", "y", "z", "w", "NEW", "v")


def carry(name: str, values: object) -> Callable[[pd.DataFrame], None]:
    """Set a column of cells."""
    return lambda obs: obs.__setitem__(name, values)


@pytest.mark.parametrize(
    ("change", "features", "told"),
    [
        (None, f"{OLD_ROWS}\nw,2,2", None),
        (None, "x,1,0\ny,0,2\nz,0,0", "other numbers for 'y'"),
        (carry("drug", ["x", "w"] * 120), f"{OLD_ROWS}\nw,0,1", "'y' and 'w'.*the same numbers"),
        (carry("age", "old"), None, "which are no numbers"),
    ],
)
def test_what_contradicts_the_run_is_refused(
    run: Run,
    tmp_path: Path,
    change: Callable[[pd.DataFrame], None] | None,
    features: str | None,
    told: str | None,
) -> None:
    cells = new_cells()
    if change is not None:
        change(cells.obs)
    given = None if features is None else table(tmp_path, features)
    if told is None:
        assert fit(cells, tmp_path / "run", start_from=run, config=settings(), label_features=given).path.exists()
        return
    with pytest.raises(ConceptError, match=told):
        fit(cells, tmp_path / "run", start_from=run, config=settings(), label_features=given)
    assert not (tmp_path / "run").exists()


def test_tables_of_other_features_or_concepts_are_refused(run: Run, tmp_path: Path) -> None:
    cells = new_cells()
    with pytest.raises(ConceptError, match="give the same columns"):
        fit(
            cells,
            tmp_path / "run",
            start_from=run,
            config=settings(),
            label_features=table(tmp_path, "x,0", "drug,charge"),
        )
    other = table(tmp_path, OLD_ROWS).removeprefix("drug=")
    with pytest.raises(ConceptError, match="learned without any"):
        fit(cells, tmp_path / "run", start_from=run, config=settings(), label_features=f"line={other}")
    with pytest.raises(UnknownConceptError, match="'drugs'"):
        fit(cells, tmp_path / "run", start_from=run, config=settings(), label_features=f"drugs={other}")


def test_stages_grow_behind_the_last_one(tmp_path: Path) -> None:
    from causcell.concept_columns import schema_from_obs

    stages = ["L1", "L2", "L3"]

    def column(values: list[str], categories: list[str]) -> pd.DataFrame:
        return pd.DataFrame({"stage": pd.Categorical(values, categories=categories, ordered=True)})

    schema = schema_from_obs(column(["L1", "L3"] * 2, stages), ["stage:ordinal"])
    assert schema["stage"].labels == ("L1", "L3")
    grown = grow_schema(schema, column(["L2", "L3", "L4"], [*stages, "L4"]))["stage"]
    assert grown.labels == ("L1", "L3", "L4")
    assert grown.value is not None
    assert (grown.value.ranks, grown.value.numbers, grown.value.high) == (("L1", "L2", "L3", "L4"), (0, 2, 3), 3)
    for wrong in (column(["L0", "L3"], ["L0", "L3"]), pd.DataFrame({"stage": ["L3", "L4"]})):
        with pytest.raises(ConceptError, match="can only stand behind its last one"):
            grow_schema(schema, wrong)


def test_held_out_values_alone_are_no_labels(run: Run, tmp_path: Path) -> None:
    cells = new_cells()
    split = {name: "test" if pert == "AA+C" else "train" for name, pert in cells.obs["pert"].items()}
    grown = fit(cells, tmp_path / "run", start_from=run, config=settings(), split=split)
    pert = grown.model.schema["pert"]
    assert "AA+C" not in pert.labels
    assert "AA" in pert.labels
    assert pert.extrapolates(pert.parse_value("AA+C"))
