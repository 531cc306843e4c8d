"""Commands that are killed or ended at random moments: what they are run again for is what an undisturbed one writes.

Nothing is left beside the output or in the folder for temporary files. ``make test`` tries 3 kills and 3 terminations
of each command, ``CAUSCELL_FUZZ=20`` (``make fuzz``) 20 of each.
"""

import subprocess
import sys
from pathlib import Path

import anndata
import pytest
from atlases import environment
from fuzzing import TIMES, tried
from scipy import sparse

pytestmark = pytest.mark.slow

DRIVER = """
import os, random, shutil, signal, sys, time, warnings
warnings.simplefilter("ignore")
import anndata.experimental, h5py, numpy, pandas, scipy.stats, zarr  # once, before the forks
from pathlib import Path
from causcell.cli.main import main
from causcell.generator import Generator
import causcell.effects, causcell.engine.onnx, causcell.atlas.verify
from atlases import tree

command, models, data, place, count, seed = sys.argv[1:]
place, temporary = Path(place), Path(os.environ["TMPDIR"])
suffix = {"generate zarr": ".zarr", "generate h5ad": ".h5ad", "embed": ".h5ad", "trial": ".h5ad"}[command]
out = place / f"out{suffix}"
words = [command.split()[0], data, "--models", models, "--out", str(out), "--no-progress", "--threads", "1"]
words += {"generate": ["--grid", "stim", "--shard-size", "12800", "--chunk-size", "3200", "--batch-size", "16"],
          "embed": ["--batch-size", "16"],
          "trial": ["--concept", "stim", "--draws", "2", "--batch-size", "16"]}[command.split()[0]]

def start():
    pid = os.fork()
    if pid == 0:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        code = 99
        try:
            main(words)
        except SystemExit as exit_:
            code = exit_.code or 0
        finally:
            os._exit(code)
    return pid

def read():
    if suffix == ".zarr":
        return tree(out)
    found = {}
    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            values = None if item.shape is None else item[()]  # uns["log1p"]["base"] is anndata's form of nothing
            text = values is None or item.dtype.kind == "O"
            found[name] = str(values) if text else (item.shape, numpy.asarray(values).tobytes())
    with h5py.File(out) as file:
        file.visititems(visit)
    return found

def left():
    return sorted(path.name for path in temporary.iterdir())

def run():
    assert os.waitpid(start(), 0)[1] == 0
    assert sorted(path.name for path in place.iterdir()) == [out.name], list(place.iterdir())
    assert left() == [], left()
    return read()

def remove():
    shutil.rmtree(out) if out.is_dir() else out.unlink(missing_ok=True)

begun = time.perf_counter()
expected = run()
remove()
duration = time.perf_counter() - begun
chance, done, late = random.Random(int(seed)), {signal.SIGKILL: 0, signal.SIGTERM: 0}, 0
while min(done.values()) < int(count):
    number = min(done, key=done.get)
    pid, moment = start(), chance.uniform(0, duration)
    time.sleep(moment)
    os.kill(pid, number)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status == 0:  # it had ended
        duration = moment  # the first run, which reads everything from a cold disk, took longer
        late += 1
        assert late < 500
        remove()
        continue
    assert status in (-number, 143 if number == signal.SIGTERM else -number), status
    done[number] += 1
    if number == signal.SIGTERM:
        assert left() == [], left()
        hidden = [path.name for path in place.iterdir() if path.name.startswith(".")]
        assert hidden == [] or command == "generate h5ad", hidden
    assert run() == expected
    remove()
print(sum(done.values()))
"""


@pytest.fixture(scope="module")
def by_columns(cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cells stored by columns (CSC), of which commands make a temporary copy by rows."""
    few = cells[:120].copy()
    few.X = sparse.csc_matrix(few.X)
    path = tmp_path_factory.mktemp("columns") / "cells.h5ad"
    few.write_h5ad(path)
    return path


@pytest.mark.parametrize("command", ["generate zarr", "generate h5ad", "embed", "trial"])
def test_it_is_run_again_and_nothing_is_left(command: str, repository: Path, by_columns: Path, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "place").mkdir()
    count = 3 if TIMES == 1 else TIMES
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, command, repository, by_columns, tmp_path / "place", str(count), "1"],
        env=environment(TMPDIR=str(tmp_path / "tmp"), OMP_WAIT_POLICY="PASSIVE"),
        capture_output=True,
        text=True,
        timeout=120 + 60 * count,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for _ in range(int(done.stdout)):
        with tried(f"kills and terminations of {command}"):
            pass
