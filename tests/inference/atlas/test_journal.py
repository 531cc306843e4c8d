"""One run holds an atlas at a time, and a full disk leaves what is finished."""

import errno
import os
import signal
import subprocess
import sys
import textwrap

import pytest
from atlases import tree

from causcell.atlas.journal import FOLDER, Journal
from causcell.errors import OutputBusyError, OutputFullError

pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")

# -- the lock ----------------------------------------------------------------------------------------------------------


def test_a_second_run_into_one_place_is_refused(recipe, whole, tmp_path):
    """As long as the first one runs; it goes on undisturbed."""
    out = tmp_path / "atlas.zarr"
    with Journal(out).locked():
        with pytest.raises(OutputBusyError, match=r"another run is writing to .*atlas\.zarr"):
            recipe.write(out)
        (out / FOLDER / "lock").unlink()
    recipe.write(out)
    assert tree(out) == whole


def test_the_lock_goes_with_its_process(recipe, whole, tmp_path):
    """However it ends."""
    out = tmp_path / "atlas.zarr"
    script = f"""
    import time
    from pathlib import Path
    from causcell.atlas.journal import Journal
    with Journal(Path({str(out)!r})).locked():
        print("locked", flush=True)
        time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "locked\n"
            with pytest.raises(OutputBusyError):
                recipe.write(out)
        finally:
            holder.send_signal(signal.SIGKILL)
    recipe.write(out)
    assert tree(out) == whole


# -- full --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "number"),
    [(0, errno.ENOSPC), (60, errno.ENOSPC), (75, errno.ENOSPC), (90, errno.ENOSPC), (110, errno.EDQUOT)],
)
def test_a_full_disk_is_told_and_survived(recipe, whole, tmp_path, monkeypatch, moment, number):
    """Whichever file it hits: metadata (some 70 files), values, annotations or records."""
    flush, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) > moment:
            raise OSError(number, os.strerror(number))
        flush(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputFullError, match=r"no space left for .*atlas\.zarr.*run the same command again"):
            recipe.write(tmp_path / "atlas.zarr")
    assert not (tmp_path / "atlas.zarr" / "zarr.json").exists()
    recipe.write(tmp_path / "atlas.zarr")
    assert tree(tmp_path / "atlas.zarr") == whole


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


def test_a_disk_that_is_really_full(recipe, whole, small_disk):
    with pytest.raises(OutputFullError, match="no space left"):
        recipe.write(small_disk / "atlas.zarr")
    assert not (small_disk / "atlas.zarr" / "zarr.json").exists()
    subprocess.run(["mount", "-o", "remount,size=100m", small_disk], check=True)
    recipe.write(small_disk / "atlas.zarr")
    assert tree(small_disk / "atlas.zarr") == whole
