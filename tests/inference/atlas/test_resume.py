"""An atlas is not hurt by anything that stops it, and is never mistaken for another or for a finished one."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path

import anndata
import numpy as np
import pytest
import zarr
from atlases import SMALL, tree
from paths import ROOT

from causcell.atlas import journal as journals
from causcell.atlas.journal import FOLDER, Journal
from causcell.atlas.plan import make_plan
from causcell.atlas.task import Measured
from causcell.atlas.verify import verify_atlas
from causcell.atlas.write import run_plan, write_atlas
from causcell.cells.collection import Cells
from causcell.counterfactual.interventions import plan_interventions
from causcell.counterfactual.request import Request
from causcell.errors import (
    AtlasError,
    CausCellWarning,
    OutputBusyError,
    OutputExistsError,
    OutputFullError,
)
from causcell.generator import Generator

pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")

DO = ({}, {"cell_type": "B"}, {"stim": "IFN"})
CELLS, SHARDS = 160, 8  # 3 rows a cell, 64 rows a shard: 21 cells


@dataclass
class Setting:
    """Something to make an atlas of, and that atlas, made without an interruption."""

    generator: Generator
    source: anndata.AnnData
    data: Path
    place: Path
    whole: dict[str, bytes]

    def request(self, **changes: object) -> Request:
        interventions = plan_interventions(self.generator.schema, list(DO))
        return replace(Request(interventions, self.generator.solver_settings(), seed=1), **changes)

    def write(self, path: Path, source: object = None, **changes: object) -> int:
        with Cells(self.data if source is None else source) as cells:
            reader = self.generator.reader(cells)
            return write_atlas(self.generator, cells, reader, self.request(**changes), path, **SMALL)


@pytest.fixture(scope="module")
def setting(generator, cells, tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    some = cells[:CELLS].copy()
    some.write_h5ad(folder / "cells.h5ad")
    made = Setting(generator, some, folder / "cells.h5ad", folder / "whole.zarr", {})
    made.write(made.place)
    made.whole = tree(made.place)
    return made


@pytest.fixture
def finished(setting, tmp_path):
    return Path(shutil.copytree(setting.place, tmp_path / "atlas.zarr"))


def stop_after(monkeypatch, shards, error):
    """Raise an error in place of a further shard's record."""
    commit, done = Journal.commit, []

    def limited(self, record):
        if len(done) == shards:
            raise error
        done.append(record)
        commit(self, record)

    monkeypatch.setattr(Journal, "commit", limited)


# -- interrupted -------------------------------------------------------------------------------------------------------

DRIVER = """
import os, random, signal, sys, time, warnings
warnings.simplefilter("ignore")
import anndata.experimental, pandas, zarr  # once, before the forks; nothing that starts a thread
from pathlib import Path
from causcell.atlas import write_atlas
from causcell.cells import Cells
from causcell.generator import Generator, Request
from causcell.interventions import plan_interventions
from atlases import SMALL

models, data, out, seed, kills = sys.argv[1:]
generator = Generator.open(models, threads=1, batch_size=64)
request = Request(plan_interventions(generator.schema, {do}), generator.solver_settings(), seed=1)

def start(path):
    pid = os.fork()
    if pid == 0:
        with Cells(data) as cells:
            write_atlas(generator, cells, generator.reader(cells), request, path, **SMALL)
        os._exit(0)
    return pid

begun = time.perf_counter()
assert os.waitpid(start(out + ".timing"), 0)[1] == 0
duration = time.perf_counter() - begun
chance = random.Random(int(seed))
killed, place = 0, 0
while killed < int(kills):
    path = f"{out}.{place}"
    pid = start(path)
    time.sleep(chance.uniform(0, duration))
    os.kill(pid, signal.SIGKILL)
    if not os.WIFSIGNALED(os.waitpid(pid, 0)[1]):
        place += 1  # it had ended: begin another
        continue
    killed += 1
    done = len(list((Path(path) / ".causcell" / "shards").glob("*.json")))
    if done < {shards}:
        assert not (Path(path) / "zarr.json").exists(), "it could be taken for a finished one"
assert os.waitpid(start(f"{out}.{place}"), 0)[1] == 0
print(place + 1)
"""


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_random_moments_it_ends_the_same(setting, repository, tmp_path, seed):
    """kill -9 in the midst of whatever it does, 15 times: what reruns end with is what an uninterrupted run writes."""
    script = DRIVER.replace("{do}", repr(list(DO))).replace("{shards}", str(SHARDS))
    words = [repository, setting.data, tmp_path / "atlas.zarr", seed, 15]
    run = subprocess.run(
        [sys.executable, "-c", script, *map(str, words)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr
    for place in range(int(run.stdout)):
        assert tree(tmp_path / f"atlas.zarr.{place}") == setting.whole
        assert verify_atlas(tmp_path / f"atlas.zarr.{place}").sound


@pytest.mark.parametrize("error", [RuntimeError("midway"), KeyboardInterrupt()], ids=["error", "Ctrl-C"])
def test_what_is_finished_is_kept_and_not_made_again(setting, tmp_path, monkeypatch, error):
    out = tmp_path / "atlas.zarr"
    with monkeypatch.context() as patch:
        stop_after(patch, 3, error)
        with pytest.raises(type(error)):
            setting.write(out)
    before = {file: file.stat().st_mtime_ns for file in (out / "X").rglob("*") if file.is_file()}
    assert len(Journal(out).records()) == 3
    setting.write(out)
    assert tree(out) == setting.whole
    kept = [f"X/c/{shard}/0" for shard in range(3)]
    assert all((out / name).stat().st_mtime_ns == before[out / name] for name in kept)


def test_an_unfinished_atlas_does_not_open(setting, tmp_path, monkeypatch):
    stop_after(monkeypatch, SHARDS - 1, RuntimeError("midway"))
    with pytest.raises(RuntimeError, match="midway"):
        setting.write(tmp_path / "atlas.zarr")
    with pytest.raises((FileNotFoundError, KeyError, ValueError)):
        anndata.read_zarr(tmp_path / "atlas.zarr")
    with pytest.raises(FileNotFoundError):
        zarr.open_group(tmp_path / "atlas.zarr", mode="r")
    found = verify_atlas(tmp_path / "atlas.zarr")
    assert (found.missing, found.damaged, found.finished, found.sound) == ((SHARDS - 1,), {}, False, False)


def test_nothing_is_left_beside_what_belongs_there(finished, setting):
    assert sorted(path.name for path in finished.parent.iterdir()) == ["atlas.zarr"]
    assert set(tree(finished)) == set(setting.whole)
    assert sorted(path.name for path in (finished / FOLDER).iterdir()) == [
        "lock",
        "metadata.json",
        "plan.json",
        "shards",
        "zarr.json",
    ]


def test_a_finished_atlas_is_not_touched(finished, setting):
    before = {file: file.stat().st_mtime_ns for file in finished.rglob("*") if file.name != "lock"}
    with Cells(setting.data) as cells:
        reader = setting.generator.reader(cells)
        plan = make_plan(setting.generator, cells, reader, setting.request(), **SMALL)
        written = run_plan(plan, Measured(setting.generator, cells, reader), finished)
    assert (written.rows, written.made) == (3 * CELLS, 0)
    after = {file: file.stat().st_mtime_ns for file in finished.rglob("*") if file.name != "lock"}
    files = [file for file in before if file.is_file()]
    assert {file: after[file] for file in files} == {file: before[file] for file in files}


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
def test_another_plan_is_refused_by_what_differs(finished, setting, changes, said):
    before = tree(finished)
    with pytest.raises(
        OutputExistsError, match=f"holds an atlas of another plan: .*{said}.*remove it, or name another"
    ):
        setting.write(finished, **changes)
    assert tree(finished) == before


def renamed(cells):
    cells.obs_names = [*cells.obs_names[:-1], "another"]


def relabelled(cells):
    cells.obs["donor"] = "d1"


def reordered(cells):
    cells._inplace_subset_obs(np.arange(CELLS)[::-1])


@pytest.mark.parametrize("change", [renamed, relabelled, reordered])
def test_other_cells_are_another_plan(finished, setting, change):
    other = setting.source.copy()
    change(other)
    with pytest.raises(OutputExistsError, match=r"another plan: .*source (names|labels) \([0-9a-f]{8}\.\.\. there"):
        setting.write(finished, other)


def test_other_values_are_another_plan(finished, setting):
    """Of a few cells that are looked at: here in every cell one gene was taken out."""
    other = setting.source.copy()
    values = other.X.toarray()
    values[:, 3] = 0
    other.X = values
    with pytest.raises(OutputExistsError, match=r"another plan: source values \([0-9a-f]{8}\.\.\. there"):
        setting.write(finished, other)


def test_the_same_cells_elsewhere_are_the_same_plan(setting, tmp_path, monkeypatch):
    """A copy, in another format: the atlas goes on, and says that the file is another one."""
    with monkeypatch.context() as patch:
        stop_after(patch, 3, RuntimeError("midway"))
        with pytest.raises(RuntimeError):
            setting.write(tmp_path / "atlas.zarr")
    dense = setting.source.copy()
    dense.X = dense.X.toarray()
    dense.write_h5ad(tmp_path / "copy.h5ad")
    with pytest.warns(CausCellWarning, match=r"copy\.h5ad was .*cells\.h5ad.*the same, and the atlas goes on"):
        setting.write(tmp_path / "atlas.zarr", tmp_path / "copy.h5ad")
    assert tree(tmp_path / "atlas.zarr") == setting.whole


def test_a_second_run_into_one_place_is_refused(setting, tmp_path):
    """As long as the first one runs; it goes on undisturbed."""
    out = tmp_path / "atlas.zarr"
    with Journal(out).locked():
        with pytest.raises(OutputBusyError, match=r"another run is writing to .*atlas\.zarr"):
            setting.write(out)
        (out / FOLDER / "lock").unlink()
    setting.write(out)
    assert tree(out) == setting.whole


def test_the_lock_goes_with_its_process(setting, tmp_path):
    """However it ends."""
    out = tmp_path / "atlas.zarr"
    script = f"""
    import time
    from pathlib import Path
    from causcell.journal import Journal
    with Journal(Path({str(out)!r})).locked():
        print("locked", flush=True)
        time.sleep(60)
    """
    holder = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(OutputBusyError):
            setting.write(out)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    setting.write(out)
    assert tree(out) == setting.whole


# -- damaged -----------------------------------------------------------------------------------------------------------


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def shortened(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (flipped, "X/c/2/0"),
        (shortened, "X/c/2/0"),
        (Path.unlink, "X/c/2/0"),
        (flipped, "obs/_index/c/2"),
        (flipped, "obs/cell_type/codes/c/2"),
    ],
)
def test_a_damaged_shard_is_named_and_it_alone_is_made_again(finished, setting, spoil, name):
    spoil(finished / name)
    found = verify_atlas(finished)
    assert found.damaged == {2: (name,)}
    assert not found.sound
    before = {shard: (finished / f"X/c/{shard}/0").stat().st_mtime_ns for shard in range(SHARDS) if shard != 2}
    setting.write(finished)
    assert tree(finished) == setting.whole
    assert {shard: (finished / f"X/c/{shard}/0").stat().st_mtime_ns for shard in before} == before
    assert verify_atlas(finished).sound


@pytest.mark.parametrize("spoil", [shortened, Path.unlink])
def test_a_run_sees_by_itself_what_lacks_or_is_short(finished, setting, spoil):
    spoil(finished / "X/c/5/0")
    setting.write(finished)
    assert tree(finished) == setting.whole


@pytest.mark.parametrize(
    "name",
    ["X/zarr.json", "zarr.json", f"{FOLDER}/zarr.json", "var/_index/c/0", "obs/intervention/categories/c/0"],
)
def test_damaged_metadata_are_named_and_written_again(finished, setting, name):
    flipped(finished / name)
    found = verify_atlas(finished)
    assert found.damaged == {None: (name.removeprefix(f"{FOLDER}/"),)}
    setting.write(finished)
    assert tree(finished) == setting.whole
    assert verify_atlas(finished).sound


def test_a_damaged_record_vouches_for_nothing(finished, setting):
    shortened(finished / FOLDER / "shards" / "000004.json")
    assert verify_atlas(finished).missing == (4,)
    setting.write(finished)
    assert tree(finished) == setting.whole
    assert verify_atlas(finished).sound


def test_a_damaged_plan_is_an_error(finished, setting):
    shortened(finished / FOLDER / "plan.json")
    for act in (verify_atlas, setting.write):
        with pytest.raises(AtlasError, match=r"plan\.json can't be read.*remove"):
            act(finished)


def test_verifying_what_is_no_atlas(tmp_path, setting):
    with pytest.raises(AtlasError, match=r"is no atlas of causcell's: it has no \.causcell/plan\.json"):
        verify_atlas(tmp_path)
    assert list(tmp_path.iterdir()) == []


# -- full --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "number"),
    [(0, errno.ENOSPC), (60, errno.ENOSPC), (75, errno.ENOSPC), (90, errno.ENOSPC), (110, errno.EDQUOT)],
)
def test_a_full_disk_is_told_and_survived(setting, tmp_path, monkeypatch, moment, number):
    """Whichever file it hits: metadata (some 70 files), values, annotations or records."""
    flush, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) > moment:
            raise OSError(number, os.strerror(number))
        flush(handle)

    with monkeypatch.context() as patch:
        patch.setattr(journals.os, "fsync", full)
        with pytest.raises(OutputFullError, match=r"no space left for .*atlas\.zarr.*run the same command again"):
            setting.write(tmp_path / "atlas.zarr")
    assert not (tmp_path / "atlas.zarr" / "zarr.json").exists()
    setting.write(tmp_path / "atlas.zarr")
    assert tree(tmp_path / "atlas.zarr") == setting.whole


@pytest.fixture
def small_disk(tmp_path):
    """A disk that an atlas does not fit on."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", place], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small disk needs the right to mount one: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_disk_that_is_really_full(setting, small_disk):
    with pytest.raises(OutputFullError, match="no space left"):
        setting.write(small_disk / "atlas.zarr")
    assert not (small_disk / "atlas.zarr" / "zarr.json").exists()
    subprocess.run(["mount", "-o", "remount,size=100m", small_disk], check=True)
    setting.write(small_disk / "atlas.zarr")
    assert tree(small_disk / "atlas.zarr") == setting.whole


def test_what_cannot_fit_is_not_begun(setting, tmp_path, monkeypatch):
    monkeypatch.setattr("causcell.atlas.estimate.free_bytes", lambda _: 1000)
    with pytest.raises(OutputFullError, match=r"needs about .* kB and .*atlas\.zarr' has 1 kB left; free some space"):
        setting.write(tmp_path / "atlas.zarr")
    assert not (tmp_path / "atlas.zarr" / FOLDER / "plan.json").exists()
