"""A task is all that a worker needs: it is pickled, opened elsewhere, and has the model opened as it was here."""

import pickle

import numpy as np
import pytest
from atlases import AtlasRecipe, tree

from causcell.atlas.task import make_shard
from causcell.counterfactual.model import ModelSource
from causcell.errors import RuntimeUnavailableError
from causcell.generator import Generator

pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")


def test_a_task_survives_pickling(two_files, tmp_path):
    with two_files.open(tmp_path / "atlas.zarr", where="donor != 'd1'") as opened:
        task = opened.maker.task
    assert pickle.loads(pickle.dumps(task)) == task
    assert (task.cells.where, task.path) == ("donor != 'd1'", str(tmp_path / "atlas.zarr"))


def test_what_a_task_opens_is_what_it_was_made_from(two_files, tmp_path):
    with two_files.open(tmp_path / "atlas.zarr", where="donor != 'd1'") as opened:
        maker = opened.maker
        again = maker.task.open()
        assert again.plan == maker.plan
        assert again.model.manifest.digest == maker.model.manifest.digest
        assert (again.model.batch_size, again.model.engine.threads) == (32, 1)  # of shards of 21 cells
        assert (np.asarray(again.source.labels) == maker.source.labels).all()
        here, there = (each.source.read(maker.plan.cells_of(0)) for each in (maker, again))
        assert (here.names == there.names).all()
        assert (here.expression == there.expression).all()


def test_the_task_is_found_from_any_working_directory(repository, cells, tmp_path, monkeypatch):
    """Relative paths mean those of whoever shares the work out."""
    cells[:20].copy().write_h5ad(tmp_path / "cells.h5ad")
    (tmp_path / "models").symlink_to(repository)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with (
        Generator.open("models", threads=1, batch_size=64) as generator,
        AtlasRecipe(generator, "cells.h5ad").open(tmp_path / "atlas.zarr") as opened,
        opened.maker.journal.locked(),
    ):
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert make_shard(opened.maker.task, 0).rows == opened.maker.plan.shard_rows


def test_cells_in_memory_have_no_task(generator, cells, tmp_path):
    with AtlasRecipe(generator, cells[:20].copy()).open(tmp_path / "atlas.zarr") as opened:
        assert opened.maker.task is None


def test_a_model_from_an_engine_has_no_task(recipe, generator, tmp_path):
    """Nobody can tell where another process would find it."""
    unknown = Generator(generator.engine, batch_size=generator.batch_size)
    with AtlasRecipe(unknown, recipe.cells).open(tmp_path / "atlas.zarr") as opened:
        assert opened.maker.task is None


# -- the provider ------------------------------------------------------------------------------------------------------


def test_the_provider_goes_with_the_task(recipe, repository, tmp_path):
    with Generator.open(repository, threads=1, provider="cpu", batch_size=64) as generator:
        assert generator.source.provider == "cpu"
        with AtlasRecipe(generator, recipe.cells).open(tmp_path / "atlas.zarr") as opened:
            assert opened.maker.task.model.provider == "cpu"


def test_the_provider_changes_no_plan(recipe, whole, repository, tmp_path):
    """An atlas may be begun on one kind of machine and finished on another."""
    with Generator.open(repository, threads=1, provider="cpu", batch_size=64) as generator:
        other = AtlasRecipe(generator, recipe.cells)
        assert other.plan() == recipe.plan()
        other.write(tmp_path / "atlas.zarr")
    assert tree(tmp_path / "atlas.zarr") == whole


def test_a_provider_that_is_missing_is_an_error_in_process(recipe, repository, tmp_path):
    """Where the model is opened here, and where a task is."""
    with pytest.raises(RuntimeUnavailableError, match=r"no CUDAExecutionProvider.*install causcell\[gpu\]"):
        Generator.open(repository, provider="cuda")
    with recipe.open(tmp_path / "atlas.zarr", ModelSource.of(repository, provider="cuda")) as opened:
        for open_task in (opened.maker.task.open, lambda: make_shard(opened.maker.task, 0)):
            with pytest.raises(RuntimeUnavailableError, match=r"no CUDAExecutionProvider.*install causcell\[gpu\]"):
                open_task()
