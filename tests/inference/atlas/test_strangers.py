"""An atlas from a stranger, or one that can't be written to: no file elsewhere is touched, and what is said is true."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
import subprocess

import anndata
import numpy as np
import pytest
from atlases import tree
from commands import run_command

from causcell.atlas import records
from causcell.atlas.journal import FOLDER, Journal
from causcell.atlas.shards import ShardWriter, read_shard
from causcell.atlas.verify import verify_atlas
from causcell.errors import AtlasError, CausCellError, OutputBusyError, OutputError, OutputExistsError

pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")

# -- links -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place",
    [
        f"{FOLDER}/lock",
        f"{FOLDER}/work",
        f"{FOLDER}/shards",
        f"{FOLDER}/plan.json",
        f"{FOLDER}/metadata.json",
        "X/c",
        "X/c/3/0",
        "obs",
        "zarr.json",
        "extra",
    ],
)
def test_nothing_is_read_or_written_through_a_link(recipe, finished, tmp_path, place):
    """Whatever is a link: a file or a folder of the user stays as it is, also where the atlas lacks something."""
    mine = tmp_path / "mine"
    (mine / "work").mkdir(parents=True)
    (mine / "0").write_text("kept")
    (mine / "work" / "precious").write_text("kept")
    target, link = mine / "0" if "." in place or place.endswith(("lock", "0")) else mine, finished / place
    if link.is_dir():
        shutil.rmtree(link)
    else:
        link.unlink(missing_ok=True)
    link.symlink_to(target)
    for act in (verify_atlas, recipe.write):
        with pytest.raises(CausCellError, match=r"symbolic link|can't be read"):
            act(finished)
    assert {str(path.relative_to(mine)): path.read_text() for path in mine.rglob("*") if path.is_file()} == {
        "0": "kept",
        "work/precious": "kept",
    }


def test_the_journal_itself_is_no_link(recipe, finished, tmp_path):
    shutil.move(finished / FOLDER, tmp_path / "elsewhere")
    (finished / FOLDER).symlink_to(tmp_path / "elsewhere")
    for act in (verify_atlas, recipe.write):
        with pytest.raises(AtlasError, match=rf"{FOLDER}' is a symbolic link; an atlas has none"):
            act(finished)


def test_the_atlas_as_a_whole_may_be_a_link(recipe, finished, tmp_path):
    """It is the user's own."""
    shutil.move(finished, tmp_path / "moved")
    finished.symlink_to(tmp_path / "moved")
    assert verify_atlas(finished).sound
    assert recipe.write(finished).made == 0


def test_a_pipe_is_not_waited_for(recipe, finished):
    for name in ("plan.json", "metadata.json", "shards/000002.json"):
        kept = (finished / FOLDER / name).read_bytes()
        (finished / FOLDER / name).unlink()
        os.mkfifo(finished / FOLDER / name)
        if name == "plan.json":
            with pytest.raises(AtlasError, match=r"plan\.json can't be read"):
                verify_atlas(finished)
        else:
            assert not verify_atlas(finished).sound
        (finished / FOLDER / name).unlink(missing_ok=True)
        (finished / FOLDER / name).write_bytes(kept)
    (finished / "X/c/1/0").unlink()
    os.mkfifo(finished / "X/c/1/0")
    assert verify_atlas(finished).damaged == {1: ("X/c/1/0",)}


# -- edited ------------------------------------------------------------------------------------------------------------


def edit(path, change, *, digest):
    """Edit the plan; a stranger who knows how also states another digest."""
    fields = json.loads((path / FOLDER / "plan.json").read_text())
    change(fields["plan"])
    if digest:
        fields["digest"] = hashlib.sha256(json.dumps(fields["plan"], sort_keys=True).encode()).hexdigest()
    (path / FOLDER / "plan.json").write_text(json.dumps(fields))


EDITS = {
    "half the cells": lambda plan: plan.update(cells=plan["cells_per_shard"] * 4),
    "one shard": lambda plan: plan.update(cells=plan["cells_per_shard"]),
    "many cells": lambda plan: plan.update(cells=10**15),
    "many cells in one shard": lambda plan: plan.update(cells=10**13, cells_per_shard=10**13),
    "more than numbers have": lambda plan: plan.update(cells=10**400),
    "no cell": lambda plan: plan.update(cells=0),
    "shards of nothing": lambda plan: plan.update(cells_per_shard=0),
    "chunks of nothing": lambda plan: plan.update(chunk_rows=0),
    "huge chunks": lambda plan: plan.update(chunk_rows=10**12),
    "no intervention": lambda plan: plan["request"].update(interventions=[]),
    "draws": lambda plan: plan["request"].update(draws=10**12),
    "another type": lambda plan: plan["request"].update(dtype="float16"),
    "an array elsewhere": lambda plan: plan.update(arrays={"../../mine": 3}),
    "an absolute array": lambda plan: plan.update(arrays={"/tmp": 3}),
    "another width": lambda plan: plan.update(arrays={"X": 3}),
    "no array": lambda plan: plan.update(arrays={}),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_plan_is_found_by_its_digest(recipe, finished, name):
    edit(finished, EDITS[name], digest=False)
    for act in (verify_atlas, recipe.write):
        with pytest.raises(AtlasError, match=r"plan\.json (can't be read|was changed after the atlas was begun)"):
            act(finished)


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_plan_with_its_digest_is_found_by_the_store(recipe, finished, name):
    """Its rows are not those of the metadata and the records; it can't be of another size and sound."""
    edit(finished, EDITS[name], digest=True)
    try:
        assert not verify_atlas(finished).sound
    except AtlasError as error:
        assert "plan.json can't be read" in str(error)
    with pytest.raises((AtlasError, OutputExistsError)):
        recipe.write(finished)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"../../../etc/passwd": {"bytes": 1, "sha256": "0"}},
        {"/etc/passwd": {"bytes": 1, "sha256": "0"}},
        {"X/../../x": {"bytes": 1, "sha256": "0"}},
    ],
)
def test_a_record_that_names_other_files_vouches_for_nothing(recipe, whole, finished, files):
    record = finished / FOLDER / "shards" / "000003.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"files": files}))
    assert verify_atlas(finished).missing == (3,)
    recipe.write(finished)
    assert tree(finished) == whole


@pytest.mark.parametrize("name", ["X/c/3/0", "obs/_index/c/3", "obs/stim/codes/c/3", "obs/source_cell/categories/c/3"])
def test_a_record_names_every_file_of_its_shard(recipe, whole, finished, name):
    """One that leaves a file out would let it be damaged unseen."""
    record = finished / FOLDER / "shards" / "000003.json"
    fields = json.loads(record.read_text())
    del fields["files"][name]
    record.write_text(json.dumps(fields))
    (finished / name).write_bytes(b"nonsense")
    assert not verify_atlas(finished).sound
    recipe.write(finished)
    assert tree(finished) == whole


def test_a_record_under_another_name_is_of_no_shard(finished):
    shards = finished / FOLDER / "shards"
    shutil.copy(shards / "000003.json", shards / "000004.json")
    assert verify_atlas(finished).missing == (4,)


def test_files_that_nothing_was_recorded_of_are_named(finished):
    metadata = finished / FOLDER / "metadata.json"
    fields = json.loads(metadata.read_text())
    del fields["var/_index/c/0"]
    metadata.write_text(json.dumps(fields))
    (finished / "notes.txt").write_text("mine")
    (finished / ".DS_Store").write_text("a file manager's")
    found = verify_atlas(finished)
    assert (found.unknown, found.sound) == (("notes.txt", "var/_index/c/0"), False)


def test_what_lost_its_plan_is_not_overwritten(recipe, finished):
    """A run begins anew only where nothing is but what a run was stopped at."""
    (finished / FOLDER / "plan.json").unlink()
    before = tree(finished)
    with pytest.raises(OutputExistsError, match=rf"no {FOLDER}/plan\.json, which is not overwritten"):
        recipe.write(finished)
    assert tree(finished) == before
    shutil.rmtree(finished / FOLDER)
    (finished / FOLDER).mkdir()
    with pytest.raises(OutputExistsError, match=r"has 'zarr\.json' and no"):
        recipe.write(finished)
    assert tree(finished) == before


# -- values ------------------------------------------------------------------------------------------------------------


def write_values(path, plan, shard, change):
    """Write a shard with other values and record it, as a run would whose model answers nonsense."""
    journal = Journal(path)
    with journal.locked():
        with journal.storage.open(f"X/c/{shard}/0") as file:
            rows = np.concatenate([chunk.copy() for chunk in read_shard(file, plan, "X")])
        cells = plan.cells_of(shard)
        rows = rows[: (cells.stop - cells.start) * plan.request.rows_per_cell]
        change(rows)
        writer = ShardWriter(journal, plan, "X", shard)
        writer.append(rows)
        writer.finish()
        files = journal.storage.put({writer.target: writer.staged})
        record = journal.records()[shard]
        journal.commit(record.model_copy(update={"files": record.files | files}))


@pytest.mark.parametrize(
    ("value", "said"),
    [(np.nan, "2.00% of its values are not finite"), (np.inf, "are not finite"), (-0.5, "are negative")],
)
def test_values_that_can_not_be_are_found_and_made_anew(recipe, whole, finished, capsys, value, said):
    def spoil(rows):
        rows[:, 7] = value

    write_values(finished, recipe.plan(), 5, spoil)
    found = verify_atlas(finished)
    assert (list(found.invalid), found.damaged, found.sound) == ([5], {}, False)
    assert said in found.invalid[5]["X/c/5/0"]
    recipe.write(finished)
    assert tree(finished) == whole
    write_values(finished, recipe.plan(), 5, spoil)
    assert run_command("verify", finished, "--no-progress") == 1
    told = capsys.readouterr().out
    assert told.startswith("shard 5 holds what can't be: X/c/5/0: ")
    assert said in told


def test_effects_may_be_negative(recipe, tmp_path):
    options = {"do": [{"stim": "IFN"}], "store": "effects"}
    recipe.write(tmp_path / "atlas.zarr", **options)
    plan = recipe.plan(**options)
    with (tmp_path / "atlas.zarr" / "X/c/0/0").open("rb") as file:
        rows = np.concatenate([chunk.copy() for chunk in read_shard(file, plan, "X")])
    assert rows.min() < 0
    assert verify_atlas(tmp_path / "atlas.zarr").sound


def test_a_shard_of_another_form_is_told_not_believed(recipe, finished):
    """Recorded as it is: no chunk where one is, an index that points outside, nothing at all."""
    journal, path = Journal(finished), finished / "X/c/2/0"
    record = journal.records()[2]
    for content in (b"", b"\0" * 30, path.read_bytes()[4:]):
        path.write_bytes(content)
        journal.commit(record.model_copy(update={"files": record.files | {"X/c/2/0": records.record_file(path)}}))
        shutil.rmtree(journal.work, ignore_errors=True)
        assert list(verify_atlas(finished).invalid) == [2]


# -- file systems ------------------------------------------------------------------------------------------------------


@pytest.fixture
def read_only(finished):
    done = subprocess.run(["mount", "--bind", finished, finished], capture_output=True, text=True)
    if done.returncode == 0:
        done = subprocess.run(["mount", "-o", "remount,ro,bind", finished], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a mount that can't be written to needs the right to make one: {done.stderr.strip()}")
    yield finished
    subprocess.run(["umount", finished], check=True)


def test_an_atlas_on_a_read_only_mount_is_verified(read_only, capsys):
    found = verify_atlas(read_only)
    assert (found.sound, found.read_only) == (True, True)
    assert run_command("verify", read_only, "--no-progress") == 0
    assert (
        "is sound: 480 rows in 8 shards (read without its lock, as it can't be written to here)"
        in capsys.readouterr().out
    )


def test_what_can_not_be_written_is_verified_without_its_lock(finished, monkeypatch, capsys):
    """As for another user; here by what the system says of it."""
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    (finished / "X/c/3/0").write_bytes(b"nonsense")
    before = tree(finished)
    with Journal(finished).locked():
        found = verify_atlas(finished)
        assert (found.damaged, found.read_only, found.missing) == ({3: ("X/c/3/0",)}, True, ())
        assert verify_atlas(finished) == found
    assert tree(finished) == before
    assert run_command("verify", finished, "--no-progress") == 1
    assert "can't be written to here: run the command that made it where it can" in capsys.readouterr().out


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_an_atlas_is_written_where_there_are_no_locks(recipe, whole, tmp_path, monkeypatch, number):
    def no_locks(*words):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    out = tmp_path / "atlas.zarr"
    with Journal(out).locked(), pytest.raises(OutputBusyError, match="is writing to"):
        recipe.write(out)
    recipe.write(out)
    assert tree(out) == whole
    assert verify_atlas(out).sound
    assert [path.name for path in tmp_path.iterdir()] == ["atlas.zarr"]
    assert not (out / FOLDER / "lock.owner").exists()


def test_an_atlas_is_written_where_folders_can_not_be_flushed(recipe, whole, tmp_path, monkeypatch):
    flush = os.fsync

    def no_folders(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        flush(handle)

    monkeypatch.setattr(os, "fsync", no_folders)
    recipe.write(tmp_path / "atlas.zarr")
    assert tree(tmp_path / "atlas.zarr") == whole


# -- one file ----------------------------------------------------------------------------------------------------------


def test_an_h5ad_file_goes_on_where_it_was_interrupted(recipe, tmp_path, monkeypatch, whole_atlas):
    out, seen = tmp_path / "atlas.h5ad", []

    def stop(event):
        seen.append(event)
        if len([each for each in seen if hasattr(each, "record")]) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"kept in .*\.atlas\.h5ad\.causcell.*the same command goes on with it"):
        recipe.write(out, on_event=stop)
    assert [path.name for path in tmp_path.iterdir()] == [".atlas.h5ad.causcell"]
    summary = recipe.write(out)
    assert summary.made < summary.rows
    assert [path.name for path in tmp_path.iterdir()] == ["atlas.h5ad"]
    np.testing.assert_array_equal(anndata.read_h5ad(out).X, anndata.read_zarr(whole_atlas).X)


def test_what_another_plan_left_is_swept(recipe, tmp_path):
    out = tmp_path / "atlas.h5ad"

    def stop(event):
        if hasattr(event, "record"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recipe.write(out, on_event=stop)
    summary = recipe.write(out, seed=2)
    assert summary.made == summary.rows
    assert [path.name for path in tmp_path.iterdir()] == ["atlas.h5ad"]


def test_nothing_is_left_of_a_file_of_which_nothing_was_finished(recipe, tmp_path, monkeypatch):
    def fail(*words):
        raise OutputError("at once")

    monkeypatch.setattr(Journal, "commit", fail)
    with pytest.raises(OutputError, match="at once"):
        recipe.write(tmp_path / "atlas.h5ad")
    assert list(tmp_path.iterdir()) == []
