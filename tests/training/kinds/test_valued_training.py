"""Training on concepts of each kind: what is read, learned, kept and resumed; and plain labels as they were."""

import csv
import json
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
from short_runs import assert_same_weights, interrupt, weights
from valued_cells import valued_cells, valued_config

from causcell.errors import ConceptError, ConfigurationError, RunError, UnknownConceptError
from causcell.evaluation.simulator import World
from causcell_training import Run, fit
from causcell_training.config import load_config
from causcell_training.data.cells import prepare
from causcell_training.run_folder import write_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("valued")


@pytest.fixture(scope="module")
def adata() -> anndata.AnnData:
    return valued_cells()


@pytest.fixture(scope="module")
def run(adata: anndata.AnnData, folder: Path) -> Run:
    learning = {"optimisation.epochs": 30, "optimisation.learning_rate": 0.01, "optimisation.held_out": 0.3}
    learning |= {"optimisation.batch_size": 32, "objective.classification": 1.0}
    wider = {"model.embedding": 8, "model.encoder_width": 32, "model.components": 24, "model.encoder_dropout": 0}
    config = valued_config(folder, **learning, **wider, **{"optimisation.patience": 30})
    return fit(adata, folder / "run", config=config)


def test_what_was_read_is_in_the_run_folder(run: Run) -> None:
    schema = Run.load(run.path).model.schema
    assert schema.has_values
    assert [each.value and each.value.kind for each in schema.concepts] == [
        None,
        "continuous",
        "ordinal",
        "set",
        "features",
    ]
    assert schema["drug"].value is not None
    assert schema["drug"].value.known == ("x", "y", "z", "NEW")
    assert schema["pert"].labels == ("A", "A+B", "B", "B+C", "C", "ctrl")
    fields = json.loads((run.path / "run.json").read_text())
    assert "value" not in fields["concepts"][0]
    assert 20 < fields["concepts"][1]["value"]["low"] < 25


def test_embeddings_come_to_tell_each_value(run: Run) -> None:
    """Read 36 test cells: better than knowing nothing, by each kind's own measure."""
    measures = run.provenance["held_out"]
    assert measures["r2_age"] > 0.1
    assert measures["spearman_age"] > 0.3
    assert measures["mae_age"] < 10  # of a constant: 10
    assert measures["spearman_dose"] > 0.5
    assert measures["f1_pert"] > 0.5
    with (run.path / "metrics.csv").open() as file:
        names = {row["name"] for row in csv.DictReader(file)}
    assert {"held_out/mae_age", "held_out/mae_dose", "held_out/accuracy_pert", "train/endogenous_kl"} <= names


def test_held_out_cells_keep_their_values(run: Run, adata: anndata.AnnData) -> None:
    held_out = Run.load(run.path).held_out()
    kept = adata.obs.loc[held_out.obs_names]
    assert held_out.obs["age"].isna().any()
    np.testing.assert_allclose(held_out.obs["age"].to_numpy(float), kept["age"].to_numpy(), rtol=1e-6)
    np.testing.assert_array_equal(held_out.obs["dose"].to_numpy(float), kept["dose"].to_numpy())
    for name in ("pert", "drug"):
        assert (
            held_out.obs[name].astype(object).where(held_out.obs[name].notna(), None).tolist()
            == kept[name].where(kept[name].notna(), None).tolist()
        )
    codes, values = run.model.schema.encode_values(held_out.obs)
    expected = run.model.schema.encode_values(kept)
    np.testing.assert_array_equal(codes, expected[0])
    np.testing.assert_allclose(values, expected[1], atol=1e-6)


@torch.no_grad()
def test_priors_of_neighbouring_numbers_are_near_and_members_make_sets(run: Run) -> None:
    model = run.model
    age = model.schema.index("age")
    prior = model.priors[age]
    at = [prior(torch.from_numpy(model.schema["age"].parse_value(number))[None])[0] for number in (30, 30.5, 55)]
    assert (at[0] - at[1]).norm() < 0.1 * (at[0] - at[2]).norm()


@torch.no_grad()
def test_informed_embeddings_move_by_the_prior_of_what_is_known(run: Run) -> None:
    """z' = z + m(v) - m(what is read); an unlabelled concept keeps its z, and reading the truth moves nothing."""
    model = run.model
    exogenous = torch.randn(5, model.schema.size, model.config.embedding, generator=torch.Generator().manual_seed(0))
    z = model.scm(exogenous)
    places = model.schema.value_slices
    values = torch.full((5, places[-1].stop), torch.nan)
    torch.testing.assert_close(model.inform(exogenous, torch.empty(0), values), exogenous, atol=1e-5, rtol=1e-5)
    age = model.schema.index("age")
    values[:3, places[age]] = model.numbers(z)["age"][:3]
    torch.testing.assert_close(model.inform(exogenous, torch.empty(0), values), exogenous, atol=1e-5, rtol=1e-5)
    values[:, places[age]] = 1.5
    moved = model.scm(model.inform(exogenous, torch.empty(0), values)) - z
    prior = model.priors[age]
    expected = prior(torch.full((5, 1), 1.5))[0] - prior(model.numbers(z)["age"])[0]
    torch.testing.assert_close(moved[:, age], expected, atol=1e-5, rtol=1e-5)
    others = [i for i in range(model.schema.size) if i != age]
    torch.testing.assert_close(moved[:, others], torch.zeros_like(moved[:, others]), atol=1e-5, rtol=0)


@torch.no_grad()
def test_label_told_by_a_number_is_that_of_its_bin_or_the_nearest(run: Run) -> None:
    model = run.model
    z = torch.randn(200, model.schema.size, model.config.embedding, generator=torch.Generator().manual_seed(1)) * 3
    numbers, logits = model.numbers(z), model.label_logits(z)
    age, dose = model.schema["age"], model.schema["dose"]
    assert age.value is not None
    assert dose.value is not None
    units = age.value.in_units(numbers["age"].numpy())[:, 0]
    bins = np.searchsorted(age.value.bounds, units, side="right")
    assert (logits[model.schema.index("age")].argmax(dim=1).numpy() == bins).mean() > 0.99  # bounds are rounded
    own = dose.values[:, 0]
    nearest = np.abs(numbers["dose"].numpy() - own).argmin(axis=1)
    np.testing.assert_array_equal(logits[model.schema.index("dose")].argmax(dim=1).numpy(), nearest)


def test_logits_of_sets_are_the_joint_probability_of_members(run: Run) -> None:
    i = run.model.schema.index("pert")
    reader, z = run.model.readers[i], torch.randn(7, run.model.config.embedding)
    with torch.no_grad():
        told, joint = reader.members(z).sigmoid().numpy(), reader.label_logits(z).exp().numpy()
    for code, label in enumerate(run.model.schema["pert"].values):
        np.testing.assert_allclose(joint[:, code], np.where(label > 0.5, told, 1 - told).prod(axis=1), rtol=1e-4)


def test_interrupted_training_is_the_uninterrupted_one(adata: anndata.AnnData, tmp_path: Path) -> None:
    config = valued_config(tmp_path)
    whole = fit(adata, tmp_path / "whole", config=config)
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 4, RuntimeError("power cut"))
        with pytest.raises(RuntimeError, match="power cut"):
            fit(adata, tmp_path / "run", config=config)
    so_far = Run.load(tmp_path / "run", unfinished=True)
    assert so_far.reference.exogenous.shape[1:] == (6, 4)
    resumed = fit(adata, tmp_path / "run", config=config, resume=True)
    assert_same_weights(whole, resumed)
    np.testing.assert_array_equal(whole.reference.exogenous, resumed.reference.exogenous)
    assert whole.provenance["held_out"] == resumed.provenance["held_out"]


def test_resumed_run_keeps_its_options_of_values(adata: anndata.AnnData, tmp_path: Path) -> None:
    config = valued_config(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 4, RuntimeError("power cut"))
        with pytest.raises(RuntimeError, match="power cut"):
            fit(adata, tmp_path / "run", config=config)
    with pytest.raises(RunError, match=r"set_control is .* there and None here"):
        fit(adata, tmp_path / "run", config=config.model_copy(update={"set_control": ()}), resume=True)


def test_set_left_out_of_training_is_known_by_its_members(adata: anndata.AnnData, tmp_path: Path) -> None:
    split = {name: "test" if pert == "A+B" else "train" for name, pert in adata.obs["pert"].items()}
    data = prepare(adata, valued_config(tmp_path), split)
    pert = data.schema.index("pert")
    assert "A+B" not in data.schema["pert"].labels
    left_out = (adata.obs["pert"] == "A+B").to_numpy()
    assert (data.labels[left_out, pert] == -1).all()
    np.testing.assert_array_equal(data.values[pert][left_out], np.tile([1, 1, 0], (left_out.sum(), 1)))
    train = data.part == "train"
    age = data.schema["age"].value
    assert age is not None
    assert age.high == np.nanmax(adata.obs["age"][train])


def test_label_left_out_of_training_is_known_by_its_features(adata: anndata.AnnData, tmp_path: Path) -> None:
    split = {name: "test" if drug == "z" else "train" for name, drug in adata.obs["drug"].items()}
    data = prepare(adata, valued_config(tmp_path), split)
    assert data.schema["drug"].labels == ("x", "y")
    assert data.schema["drug"].extrapolates(data.schema["drug"].parse_value("z"))


ALONE: dict[str, list[str]] = {"set_control": [], "label_features": []}


@pytest.mark.parametrize(
    ("overrides", "error", "told"),
    [
        ({"concept": ["age:number"]}, ConceptError, "'age:number' names no kind"),
        (
            {"concept": ["line:continuous"], "set_control": [], "label_features": []},
            ConceptError,
            "'hela', 'k562', which are no numbers",
        ),
        (
            {"concept": ["nothing:set"], "set_control": [], "label_features": []},
            UnknownConceptError,
            "no column 'nothing'",
        ),
        ({"set_control": ["pert"]}, ConceptError, "'pert' is not of the form NAME=LABEL"),
        ({"set_control": ["pert=nothing"]}, ConceptError, "no cell to train on carries 'nothing'"),
        ({"set_control": ["line=k562"]}, ConceptError, "takes no control label"),
        ({"label_features": ["drug=/nowhere.csv"]}, ConceptError, "can't be read"),
        ({"label_features": ["line=/nowhere.csv"]}, ConceptError, "can't be read"),
    ],
)
def test_options_of_values_that_cannot_be_are_refused(
    adata: anndata.AnnData, tmp_path: Path, overrides: dict[str, list[str]], error: type[Exception], told: str
) -> None:
    config = valued_config(tmp_path, **{"edge": [], **overrides})
    with pytest.raises(error, match=told):
        fit(adata, tmp_path / "run", config=config)
    assert not (tmp_path / "run").exists()


def test_settings_of_plain_labels_are_written_as_they_were(tmp_path: Path) -> None:
    plain = load_config(overrides={"concept": ["stim"]})
    assert {"label_features", "set_control"}.isdisjoint(plain.model_dump())
    with pytest.raises(ConfigurationError, match="label_features"):
        load_config(overrides={"label_features": 3})
    valued = valued_config(tmp_path)
    write_config(tmp_path, valued)
    assert load_config(tmp_path / "config.toml") == valued


# -- plain labels ------------------------------------------------------------------------------------------------------

PLAIN_BEFORE = {
    "train/reconstruction": [1.33362, 1.34147],
    "train/likelihood": [0.678639, 0.675631],
    "train/classification": [3.30269, 3.22044],
    "train/exogenous_kl": [0.244481, 0.240358],
    "train/endogenous_kl": [0.18074, 0.176672],
    "train/adversary": [0.0195573, 0.018498],
    "train/independence": [3.50755, 3.63634],
    "train/discriminators": [2.89143, 2.86895],
    "train/total": [7.14913, 7.12554],
    "held_out/mse": [8.94174, 8.93064],
}
"""Terms of two epochs, by the code of commit 21424ad, which knew plain labels alone."""


def test_model_of_plain_labels_trains_as_before_there_were_others(tmp_path: Path) -> None:
    """Terms agree to six digits: the order of sums is a machine's own."""
    world = World.make(genes=40)
    small = {"width": 32, "blocks": 1, "encoder_width": 32, "encoder_layers": 1, "components": 16, "embedding": 8}
    overrides = {f"model.{name}": value for name, value in small.items()}
    config = load_config(
        overrides={
            "concept": ["treatment", "donor", "cell_type"],
            "genes": "all",
            "optimisation.epochs": 2,
            "optimisation.validate_every": 1,
            "optimisation.accelerator": "cpu",
            "objective.independence_cells": 256,
            "model.last_norm": True,
            **overrides,
        }
    )
    run = fit(world.cells(world.noise(300)), tmp_path / "run", config=config)
    with (run.path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name, before in PLAIN_BEFORE.items():
        now = [float(row["value"]) for row in rows if row["name"] == name]
        assert now == pytest.approx(before, rel=2e-5), name
    assert not any(name.startswith("priors") for name in weights(run))
