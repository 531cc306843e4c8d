"""Trainings that start from a finished run: what they take over, what they refuse, and what they say of it."""

import json
import shutil
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from commands import run_command
from short_runs import assert_same_weights, differ, interrupt, weights
from simulation import simulated_cells

from causcell import Generator
from causcell.errors import CausCellWarning, ConfigurationError, DataError, GenePanelError, RunError
from causcell_export import export
from causcell_training import Run, fit
from causcell_training.config import TrainConfig, load_config
from causcell_training.data.split import PART, TEST

STEPS = {"descent.steps": 20, "descent.freeze": "none", "optimisation.batch_size": 32}


def new_cells(cells: anndata.AnnData, label: str = "d4", prefix: str = "new_") -> anndata.AnnData:
    """Cells of one donor under another name and other names: a donor that the model has not seen."""
    chosen = cells[cells.obs["donor"] == "d3"].copy()
    chosen.obs["donor"] = pd.Categorical([label] * chosen.n_obs)
    chosen.obs_names = [prefix + name for name in chosen.obs_names]
    return chosen


def settings(**overrides: object) -> TrainConfig:
    """Settings of a few steps."""
    return load_config(overrides=STEPS | {name.replace("__", "."): value for name, value in overrides.items()})


@pytest.fixture(scope="module")
def descended(finished: Run, cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The shared run, trained further on a new donor."""
    out = tmp_path_factory.mktemp("descended") / "run"
    return fit(new_cells(cells), out, start_from=finished, config=settings())


def test_old_labels_keep_their_codes_and_new_ones_stand_behind(descended: Run, finished: Run) -> None:
    assert descended.model.schema["donor"].labels == (*finished.model.schema["donor"].labels, "d4")
    assert descended.model.schema.edges == finished.model.schema.edges
    for name in ("genes", "scale", "normalisation_genes", "totals"):
        assert getattr(descended.model.preprocessing, name) == getattr(finished.model.preprocessing, name)
    np.testing.assert_array_equal(descended.model.preprocessing.mean, finished.model.preprocessing.mean)


def test_a_run_says_from_which_it_descends(descended: Run, finished: Run) -> None:
    (origin,) = descended.provenance["descends_from"]
    assert origin["cells"] == finished.training_cells.count
    assert origin["new_labels"] == {"donor": ["d4"]}
    assert origin["concepts"]["donor"] == list(finished.model.schema["donor"].labels)
    assert "descends from" in repr(descended)
    assert "descends_from" not in finished.provenance
    assert "descent" not in finished.provenance["config"]


def test_what_the_run_was_trained_on_stays_known(descended: Run, finished: Run, cells: anndata.AnnData) -> None:
    parts = pd.read_csv(finished.path / "split.csv", index_col="cell")["split"]
    trained = parts.index[parts == "train"].tolist()
    assert descended.training_cells.contain(trained).all()
    kept = pd.read_csv(descended.path / "split.csv", index_col="cell")["split"]
    pd.testing.assert_series_equal(kept.loc[parts.index], parts)
    held_out = finished.held_out()
    again = descended.held_out()[held_out.obs_names]
    np.testing.assert_array_equal(again.X.toarray(), held_out.X.toarray())
    assert (again.obs[PART].to_numpy() == held_out.obs[PART].to_numpy()).all()


def test_references_of_old_labels_stay_beside_those_of_new_ones(descended: Run, finished: Run) -> None:
    donor = descended.model.schema.index("donor")
    carried = np.unique(descended.reference.labels[:, donor])
    assert carried.tolist() == [0, 1, 2, 3]
    seen = {tuple(row) for row in descended.reference.combinations.tolist()}
    assert seen >= {tuple(row) for row in finished.reference.combinations.tolist()}


def test_without_a_step_the_model_is_the_one_that_it_starts_from(
    finished: Run, cells: anndata.AnnData, tmp_path: Path
) -> None:
    still = settings(optimisation__learning_rate=1e-12)
    run = fit(new_cells(cells), tmp_path / "run", start_from=finished, config=still)
    old = weights(finished)
    for name, array in weights(run).items():  # the moving average of the same numbers rounds
        place = tuple(slice(size) for size in old[name].shape)
        np.testing.assert_allclose(array[place], old[name], atol=1e-6, err_msg=name)
    known = run.reference.labels[:, run.model.schema.index("donor")] < 3
    kept = run.reference.exogenous[known].reshape(known.sum(), -1)
    before = finished.reference.exogenous.reshape(len(finished.reference.labels), -1)
    assert len(kept) == len(before)
    np.testing.assert_allclose(kept, before, atol=1e-4)  # in the same order; decoded, encoded, and set right again


@pytest.mark.parametrize(("part", "module"), [("encoder", "encoder."), ("decoder", "denoiser.")])
def test_frozen_parts_do_not_move(
    part: str, module: str, finished: Run, cells: anndata.AnnData, tmp_path: Path
) -> None:
    run = fit(new_cells(cells), tmp_path / "run", start_from=finished, freeze=part, config=settings())
    old = weights(finished)
    moved = {
        name for name, array in weights(run).items() if array.shape != old[name].shape or (array != old[name]).any()
    }
    assert not [name for name in moved if name.startswith(module)]
    assert [name for name in moved if not name.startswith(module)]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"concepts": ["stim"]}, r"concepts=\['stim'\] contradicts"),
        ({"edges": ["stim:donor"]}, r"edges=\['stim:donor'\] contradicts"),
        ({"genes": 7}, "genes=7 contradicts"),
        ({"expression": "log1p"}, "expression='log1p' contradicts"),
        ({"config": settings(model__width=64)}, "model.width=64 contradicts"),
        ({"config": settings(optimisation__epochs=3)}, "exclude each other"),
        ({"freeze": ["head"]}, r"freeze=\['head'\]"),
        ({"replay": 1.0}, "replay=1.0"),
    ],
)
def test_what_the_run_decides_is_not_decided_again(
    given: dict[str, object], told: str, finished: Run, cells: anndata.AnnData, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        fit(new_cells(cells), tmp_path / "run", start_from=finished, **given)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_the_same_settings_again_contradict_nothing(finished: Run, cells: anndata.AnnData, tmp_path: Path) -> None:
    config = finished.config.model_copy(update={"optimisation": settings().optimisation})
    run = fit(new_cells(cells), tmp_path / "run", start_from=finished, config=config, replay=0.25)
    assert run.config.descent is not None
    assert run.config.descent.replay == 0.25


@pytest.mark.parametrize("given", [{"freeze": "encoder"}, {"replay": 0.2}, {"config": load_config(overrides=STEPS)}])
def test_settings_of_a_descent_need_a_run(given: dict[str, object], cells: anndata.AnnData, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="starts from a run"):
        fit(cells, tmp_path / "run", concepts=["stim"], **given)  # type: ignore[arg-type]


def test_a_run_does_not_replace_the_one_it_starts_from(finished: Run, cells: anndata.AnnData) -> None:
    with pytest.raises(ConfigurationError, match="is the run that training starts from"):
        fit(new_cells(cells), finished.path, start_from=finished.path, overwrite=True)
    assert Run.load(finished.path).path == finished.path


def test_an_unfinished_run_starts_none(interrupted: Path, cells: anndata.AnnData, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="has not finished"):
        fit(new_cells(cells), tmp_path / "other", start_from=interrupted)
    with pytest.raises(RunError, match="has not finished"):
        fit(new_cells(cells), tmp_path / "other", start_from=Run.load(interrupted, unfinished=True))


def test_known_cells_keep_their_part(finished: Run, cells: anndata.AnnData, tmp_path: Path) -> None:
    both = anndata.concat([new_cells(cells), cells])
    run = fit(both, tmp_path / "run", start_from=finished, config=settings())
    before, after = (pd.read_csv(each.path / "split.csv", index_col="cell")["split"] for each in (finished, run))
    pd.testing.assert_series_equal(after.loc[before.index], before)
    assert len(after) == both.n_obs
    tested = before.index[before == TEST].tolist()
    assert not run.training_cells.contain(tested).any()


def test_a_split_moves_no_known_cell(finished: Run, cells: anndata.AnnData, tmp_path: Path) -> None:
    before = pd.read_csv(finished.path / "split.csv", index_col="cell")["split"]
    tested = before.index[before == TEST][0]
    both = anndata.concat([new_cells(cells), cells])
    split = dict.fromkeys(both.obs_names, "train")
    with pytest.raises(DataError, match="keep their part"):
        fit(both, tmp_path / "run", start_from=finished, config=settings(), split=split)
    split = dict.fromkeys(new_cells(cells).obs_names, "train") | {tested: "test"}
    run = fit(both, tmp_path / "run", start_from=finished, config=settings(), split=split)
    assert run.provenance["cells"]["train"] > 0


def test_other_cells_of_the_same_names_are_refused(finished: Run, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="names of held-out cells"):
        fit(simulated_cells(seed=5), tmp_path / "run", start_from=finished, config=settings())


def test_missing_genes_are_told_as_generate_tells_them(finished: Run, cells: anndata.AnnData, tmp_path: Path) -> None:
    fewer = new_cells(cells)[:, 2:].copy()
    with pytest.raises(GenePanelError, match="panel genes are missing"):
        fit(fewer, tmp_path / "run", start_from=finished, config=settings())
    totals = pytest.warns(CausCellWarning, match="genes that a cell's total is taken over are missing")
    with totals, pytest.warns(CausCellWarning, match="panel genes are missing"):
        run = fit(fewer, tmp_path / "run", start_from=finished, config=settings(), allow_missing_genes=0.2)
    assert run.model.preprocessing.genes == finished.model.preprocessing.genes


def test_one_label_is_enough_where_the_run_has_others(finished: Run, cells: anndata.AnnData, tmp_path: Path) -> None:
    one = cells[cells.obs["stim"] == "ctrl"].copy()
    one.obs_names = [f"more_{name}" for name in one.obs_names]
    one.obs["state"] = np.nan
    run = fit(one, tmp_path / "run", start_from=finished, config=settings())
    assert run.model.schema == finished.model.schema
    assert run.provenance["descends_from"][0]["new_labels"] == {}


def test_resuming_gives_the_uninterrupted_run(
    descended: Run, finished: Run, cells: anndata.AnnData, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 1, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt, match="go on with resume=True"):
            fit(new_cells(cells), out, start_from=finished, config=settings())
    broken = Run.load(out, unfinished=True)
    assert broken.provenance["descends_from"] == descended.provenance["descends_from"]
    assert broken.reference.labels.shape == descended.reference.labels.shape
    resumed = fit(new_cells(cells), out, start_from=finished, config=settings(), resume=True)
    assert_same_weights(resumed, descended)
    np.testing.assert_array_equal(resumed.reference.exogenous, descended.reference.exogenous)


def test_a_run_is_resumed_from_the_run_it_began_with(
    descended: Run, finished: Run, cells: anndata.AnnData, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 1, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            fit(new_cells(cells), out, start_from=finished, config=settings())
    other = Path(shutil.copytree(finished.path, tmp_path / "other"))
    fields = json.loads((other / "run.json").read_text())
    fields["provenance"]["seconds"] = 1.0
    (other / "run.json").write_text(json.dumps(fields))
    with pytest.raises(RunError, match="begun with other cells"):
        fit(new_cells(cells), out, start_from=other, config=settings(), resume=True)


def test_a_chain_of_runs(descended: Run, finished: Run, cells: anndata.AnnData, tmp_path: Path) -> None:
    third = fit(new_cells(cells, "d5", "third_"), tmp_path / "run", start_from=descended.path, config=settings())
    nearest, first = third.provenance["descends_from"]
    assert (nearest["cells"], first["cells"]) == (descended.training_cells.count, finished.training_cells.count)
    assert (nearest["new_labels"], first["new_labels"]) == ({"donor": ["d5"]}, {"donor": ["d4"]})
    assert third.model.schema["donor"].labels == ("d1", "d2", "d3", "d4", "d5")
    trained = pd.read_csv(descended.path / "split.csv", index_col="cell")["split"]
    assert third.training_cells.contain(trained.index[trained == "train"].tolist()).all()
    assert differ(third, descended) or third.model.schema != descended.model.schema


def test_an_exported_model_says_from_which_it_descends(
    descended: Run, cells: anndata.AnnData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = export(descended, tmp_path / "models")
    assert run_command("inspect", models) == 0
    shown = capsys.readouterr().out
    assert "descends from, the nearest first:" in shown
    assert "labels new since: donor: 'd4'" in shown
    with Generator.open(models) as generator:
        result = generator.counterfactual(cells[:8], {"donor": "d4"})
    assert (result.obs["donor"] == "d4").all()


def test_the_command_line_starts_from_a_run(
    finished: Run, cells: anndata.AnnData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new_cells(cells).write_h5ad(tmp_path / "new.h5ad")
    words = ["train", tmp_path / "new.h5ad", "--from", finished.path, "--out", tmp_path / "run"]
    flags = ["--freeze", "encoder", "--replay", "0.3", *(f"--set={name}={value}" for name, value in STEPS.items())]
    assert run_command(*words, *flags, "--concept", "stim") == 2
    assert "contradicts the run" in capsys.readouterr().err
    assert run_command(*words, *flags, "--no-progress") == 0
    assert "new labels: donor: 'd4'" in capsys.readouterr().out
    descent = Run.load(tmp_path / "run").config.descent
    assert descent is not None
    assert (descent.freeze, descent.replay) == (("encoder",), 0.3)
