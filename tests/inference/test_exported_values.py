"""Interventions on values by a trained and exported model: embedded, served, by workers and on the command line."""

from collections.abc import Iterator
from pathlib import Path

import anndata
import numpy as np
import pytest
from commands import run_command
from exported import export_unmeasured
from short_runs import tiny_config
from valued_model import valued_cells

from causcell.atlas.executors import Processes
from causcell.generator import Generator
from causcell.serve.server import TritonServer
from causcell_training import fit

DO = [{}, {"age": 35.5}, {"perturbation": "C+A"}, {"stage": 1}, {"age": 70, "stim": "IFN"}]
pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")


@pytest.fixture(scope="module")
def file(cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    valued_cells(cells).write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def models(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("valued")
    concepts = ("stim", "age:continuous", "perturbation:set", "stage:ordinal")
    config = tiny_config(concept=concepts, edge=("stim:stage", "age:stage"), set_control=("perturbation=ctrl",))
    return export_unmeasured(fit(anndata.read_h5ad(file), folder / "run", config=config), folder / "models")


@pytest.fixture(scope="module")
def valued(models: Path) -> Iterator[Generator]:
    with Generator.open(models, threads=1, batch_size=64) as opened:
        yield opened


@pytest.fixture(scope="module")
def expected(valued: Generator, file: Path) -> anndata.AnnData:
    return valued.counterfactual(file, DO, seed=1)


@pytest.mark.serving
def test_a_served_model_gives_what_the_embedded_one_does(models, file, expected):
    with (
        TritonServer(models, threads=1) as server,
        Generator.open(server.grpc, batch_size=64) as generator,
    ):
        assert "prior" in generator.manifest.graphs
        served = generator.counterfactual(file, DO, seed=1)
    assert (np.abs(served.X - expected.X) > 1e-3).mean() <= 1e-3
    for column in ("age", "perturbation", "extrapolated"):
        assert served.obs[column].astype(str).tolist() == expected.obs[column].astype(str).tolist()


def test_workers_write_what_the_call_in_memory_gives(valued, file, expected, tmp_path):
    sizes = {"chunk_size": 6400, "shard_size": 64 * 5 * 240, "layout": "dense"}
    valued.write_atlas(file, tmp_path / "atlas.zarr", DO, seed=1, executor=Processes(2), **sizes)
    atlas = anndata.read_zarr(tmp_path / "atlas.zarr")
    np.testing.assert_array_equal(atlas.X, expected.X)
    np.testing.assert_array_equal(atlas.obs["age"], expected.obs["age"])


def test_on_the_command_line(models, file, tmp_path, capsys):
    asked = ["generate", file, "--models", models, "--out", tmp_path / "atlas.zarr", "--no-progress"]
    assert run_command(*asked, "--do", "perturbation=C+A", "--grid", "age=20:70:25", "--where", "stim == 'ctrl'") == 0
    assert "beyond what the model was trained on" in capsys.readouterr().err
    atlas = anndata.read_zarr(tmp_path / "atlas.zarr")
    assert atlas.obs["intervention"].cat.categories.tolist() == [f"age={age};perturbation=A+C" for age in (20, 45, 70)]
    assert run_command("inspect", models) == 0
    assert "age: kind continuous; from 20; to 60" in capsys.readouterr().out


def test_trials_and_effects_on_cells(valued, file):
    trial = valued.trial(file, "age", draws=1)
    assert list(trial.obs_names) == list(valued.schema["age"].labels)
    effects = valued.trial(file, do={"age": 33}, draws=2)
    assert effects.uns["causcell"]["effects"]["do"] == {"age": "33"}
