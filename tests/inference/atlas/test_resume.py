"""An atlas is not hurt by anything that stops it, and is never mistaken for another or for a finished one."""

import subprocess
import sys

import anndata
import numpy as np
import pytest
import zarr
from atlases import CELLS, SHARDS, environment, stop_after, times, tree

from causcell.atlas.journal import FOLDER, Journal
from causcell.atlas.verify import verify_atlas
from causcell.counterfactual.model import CounterfactualModel
from causcell.errors import CausCellWarning, OutputExistsError

pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")

# -- interrupted -------------------------------------------------------------------------------------------------------

DRIVER = """
import os, random, signal, sys, time, traceback, warnings
warnings.simplefilter("ignore")
import anndata.experimental, pandas, zarr  # once, before the forks; nothing that starts a thread
from pathlib import Path
from atlases import AtlasRecipe
from causcell.generator import Generator

models, data, out, seed, kills = sys.argv[1:]
recipe = AtlasRecipe(Generator.open(models, threads=1, batch_size=64), data)

def start(path):
    pid = os.fork()
    if pid == 0:
        try:
            recipe.write(Path(path))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return pid

begun = time.perf_counter()
assert os.waitpid(start(f"{out}/timing.zarr"), 0)[1] == 0
duration = time.perf_counter() - begun
chance = random.Random(int(seed))
killed, place = 0, 0
while killed < int(kills):
    path = f"{out}/{place}.zarr"
    pid, moment = start(path), chance.uniform(0, duration)
    time.sleep(moment)
    os.kill(pid, signal.SIGKILL)
    if not os.WIFSIGNALED(os.waitpid(pid, 0)[1]):
        duration = moment  # the first run, which reads everything from a cold disk, took longer
        place += 1  # it had ended: begin another
        continue
    killed += 1
    done = len(list((Path(path) / ".causcell" / "shards").glob("*.json")))
    if done < {shards}:
        assert not (Path(path) / "zarr.json").exists(), "it could be taken for a finished one"
assert os.waitpid(start(f"{out}/{place}.zarr"), 0)[1] == 0
print(place + 1)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_random_moments_it_ends_the_same(recipe, whole, repository, tmp_path, seed):
    """kill -9 in the midst of whatever it does, 15 times: what reruns end with is what an uninterrupted run writes."""
    script = DRIVER.replace("{shards}", str(SHARDS))
    words = [repository, recipe.cells, tmp_path, seed, 15]
    run = subprocess.run(
        [sys.executable, "-c", script, *map(str, words)],
        env=environment(TMPDIR=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr
    for place in range(int(run.stdout)):
        assert tree(tmp_path / f"{place}.zarr") == whole
        assert verify_atlas(tmp_path / f"{place}.zarr").sound


@pytest.mark.parametrize("error", [RuntimeError("midway"), KeyboardInterrupt()], ids=["error", "Ctrl-C"])
def test_what_is_finished_is_kept_and_not_made_again(recipe, whole, tmp_path, monkeypatch, error):
    out = tmp_path / "atlas.zarr"
    with monkeypatch.context() as patch:
        stop_after(patch, 3, error)
        with pytest.raises(type(error)):
            recipe.write(out)
    before = {file: file.stat().st_mtime_ns for file in (out / "X").rglob("*") if file.is_file()}
    assert len(Journal(out).records()) == 3
    recipe.write(out)
    assert tree(out) == whole
    kept = [f"X/c/{shard}/0" for shard in range(3)]
    assert all((out / name).stat().st_mtime_ns == before[out / name] for name in kept)


def test_an_unfinished_atlas_does_not_open(recipe, tmp_path, monkeypatch):
    stop_after(monkeypatch, SHARDS - 1, RuntimeError("midway"))
    with pytest.raises(RuntimeError, match="midway"):
        recipe.write(tmp_path / "atlas.zarr")
    with pytest.raises((FileNotFoundError, KeyError, ValueError)):
        anndata.read_zarr(tmp_path / "atlas.zarr")
    with pytest.raises(FileNotFoundError):
        zarr.open_group(tmp_path / "atlas.zarr", mode="r")
    found = verify_atlas(tmp_path / "atlas.zarr")
    assert (found.missing, found.damaged, found.finished, found.sound) == ((SHARDS - 1,), {}, False, False)


def test_nothing_is_left_beside_what_belongs_there(whole, finished):
    assert sorted(path.name for path in finished.parent.iterdir()) == ["atlas.zarr"]
    assert set(tree(finished)) == set(whole)
    assert sorted(path.name for path in (finished / FOLDER).iterdir()) == [
        "lock",
        "metadata.json",
        "plan.json",
        "shards",
        "zarr.json",
    ]


def test_a_finished_atlas_is_not_touched(recipe, finished):
    before = times(finished)
    summary = recipe.write(finished)
    assert (summary.rows, summary.made) == (3 * CELLS, 0)
    assert times(finished) == before


# -- not the same ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 2}, r"seed \(1 there, 2 asked for\)"),
        ({"draws": 2}, r"draws \(1 there, 2 asked for\)"),
        ({"mode": "isolated"}, r"mode \('do' there, 'isolated' asked for\)"),
        ({"match_parents": True}, "match_parents"),
        ({"store": "embeddings"}, r"store \('expression' there, 'embeddings' asked for\)"),
    ],
    ids=str,
)
def test_another_plan_is_refused_by_what_differs(recipe, finished, changes, said):
    before = tree(finished)
    with pytest.raises(
        OutputExistsError, match=f"holds an atlas of another plan: .*{said}.*remove it, or name another"
    ):
        recipe.write(finished, **changes)
    assert tree(finished) == before


def renamed(cells):
    cells.obs_names = [*cells.obs_names[:-1], "another"]


def relabelled(cells):
    cells.obs["donor"] = "d1"


def reordered(cells):
    cells._inplace_subset_obs(np.arange(CELLS)[::-1])


@pytest.mark.parametrize("change", [renamed, relabelled, reordered])
def test_other_cells_are_another_plan(recipe, finished, change):
    other = anndata.read_h5ad(recipe.cells)
    change(other)
    with pytest.raises(OutputExistsError, match=r"another plan: .*source (names|labels) \([0-9a-f]{8}\.\.\. there"):
        recipe.write(finished, other)


def test_other_values_are_another_plan(recipe, finished):
    """The plan reads a few cells' values; here one gene is taken out in every cell, so any few show it."""
    other = anndata.read_h5ad(recipe.cells)
    values = other.X.toarray()
    values[:, 3] = 0
    other.X = values
    with pytest.raises(OutputExistsError, match=r"another plan: source values \([0-9a-f]{8}\.\.\. there"):
        recipe.write(finished, other)


def test_the_same_cells_elsewhere_are_the_same_plan(recipe, whole, tmp_path, monkeypatch):
    """A copy, in another format: the atlas goes on, and says that the file is another one."""
    with monkeypatch.context() as patch:
        stop_after(patch, 3, RuntimeError("midway"))
        with pytest.raises(RuntimeError):
            recipe.write(tmp_path / "atlas.zarr")
    dense = anndata.read_h5ad(recipe.cells)
    dense.X = dense.X.toarray()
    dense.write_h5ad(tmp_path / "copy.h5ad")
    with pytest.warns(CausCellWarning, match=r"copy\.h5ad was .*cells\.h5ad.*the same, and the atlas goes on"):
        recipe.write(tmp_path / "atlas.zarr", tmp_path / "copy.h5ad")
    assert tree(tmp_path / "atlas.zarr") == whole


TOLD = ("uns/causcell/batch_size", "uns/causcell/plan")
"""Where an atlas tells how it was made."""


def test_one_that_was_begun_with_whole_batches_goes_on_with_them_and_has_the_same_bytes(recipe, tmp_path, monkeypatch):
    """Earlier versions padded shards of few cells to whole batches."""
    shorter = recipe.write(tmp_path / "shorter.zarr")
    assert Journal(tmp_path / "shorter.zarr").require_plan().padded == 32
    path = tmp_path / "atlas.zarr"
    with monkeypatch.context() as context:
        context.setattr(CounterfactualModel, "with_full_batches", lambda self, cells: self)
        stop_after(context, 3, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            recipe.write(path)
    encoded = []
    encode = CounterfactualModel.encode
    monkeypatch.setattr(CounterfactualModel, "encode", lambda self, x: (encoded.append(len(x)), encode(self, x))[1])
    assert recipe.write(path).rows == shorter.rows
    assert set(encoded) == {64}
    assert Journal(path).require_plan().padded is None
    whole, short = (
        {name: content for name, content in tree(each).items() if not name.startswith(TOLD)}
        for each in (path, tmp_path / "shorter.zarr")
    )
    assert whole == short
