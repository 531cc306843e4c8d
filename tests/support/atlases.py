"""The one place that sets atlases up for tests: what they are made of, how they are written, and what is compared."""

import contextlib
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anndata

from causcell.atlas.journal import FOLDER, Journal
from causcell.atlas.open import OpenAtlas, open_atlas
from causcell.atlas.options import complete_options
from causcell.atlas.plan import Plan
from causcell.atlas.records import ShardRecord
from causcell.atlas.write import AtlasSummary
from causcell.counterfactual.model import ModelSource
from causcell.errors import OutputFullError
from causcell.generator import Generator

CELLS, SHARDS = 160, 8
"""Cells and shards of `recipe` and `two_files` of tests/inference/atlas: 3 rows a cell, 21 cells a shard."""

GENES = 50
ROW = 4 * GENES
"""Bytes of a row of the model that tests share."""

SMALL = {"chunk_size": 16 * ROW, "shard_size": 64 * ROW}
"""Shards of up to 64 rows in chunks of up to 16."""

DO = ({}, {"cell_type": "B"}, {"stim": "IFN"})
"""Interventions of most atlases: none, and two of one concept each."""

OPTIONS: Mapping[str, Any] = {"do": list(DO), "seed": 1, "layout": "dense", **SMALL}
"""Options of most atlases."""


@dataclass(frozen=True)
class AtlasRecipe:
    """What one atlas of the tests is made of; options that are given to a method stand in place of the recipe's.

    Attributes
    ----------
    generator
        The model, open.
    cells
        The cells, as `Generator.write_atlas` takes them.
    options
        Its other arguments.
    """

    generator: Generator
    cells: Any
    options: Mapping[str, Any] = field(default_factory=lambda: dict(OPTIONS))

    def write(self, path: Path, cells: Any = None, **changes: Any) -> AtlasSummary:
        """Write the atlas, or go on with it; of other cells, if they are given."""
        source = self.cells if cells is None else cells
        return self.generator.write_atlas(source, path, **{**self.options, **changes})

    def plan(self, **changes: Any) -> Plan:
        """Plan the atlas."""
        return self.generator.plan_atlas(self.cells, **{**self.options, **changes})

    @contextlib.contextmanager
    def open(self, path: Path, source: ModelSource | None = None, **changes: Any) -> Iterator[OpenAtlas]:
        """Open the atlas, for what is done with it step by step; ``source`` is where workers open the model from."""
        options = {**self.options, **changes}
        do, grid = options.pop("do", None), options.pop("grid", ())
        chosen = complete_options(options, "open_atlas")
        source = source or self.generator.source
        with open_atlas(self.generator.model, source, self.cells, path, do, grid, chosen) as opened:
            yield opened


def tree(path: Path) -> dict[str, bytes]:
    """Read every file of a store but its journal."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and FOLDER not in file.parts
    }


def write_zarr(cells: anndata.AnnData, path: Path) -> None:
    """Write cells as ``.zarr`` in the form of anndata's default; its notice that there will be another is left out."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Writing zarr v2 data")
        cells.write_zarr(path)


def times(path: Path) -> dict[Path, int]:
    """Read when each file of an atlas was last written, in nanoseconds; the lock is left out, which every run opens."""
    return {file: file.stat().st_mtime_ns for file in path.rglob("*") if file.is_file() and file.name != "lock"}


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of a program that a test starts and that imports this module."""
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **variables}


def run_example(folder: Path, code: str) -> str:
    """Run an example of the documentation in a folder, as a script of its own; return what it prints."""
    (folder / "example.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "example.py"],
        cwd=folder,
        env=environment(MPLBACKEND="agg"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def stop_after(monkeypatch: Any, shards: int, error: BaseException) -> None:
    """Raise an error in place of the record of a further shard."""
    commit, done = Journal.commit, []

    def limited(self: Journal, record: ShardRecord) -> None:
        if len(done) == shards:
            raise error
        done.append(record)
        commit(self, record)

    monkeypatch.setattr(Journal, "commit", limited)


def kill_once_a_shard_is_done(path: Path, pids: Callable[[], list[int]], killed: list[int]) -> threading.Thread:
    """Kill a process (SIGKILL), in a thread, as soon as an atlas has a shard; the thread that is returned runs."""

    def watch() -> None:
        for _ in range(3000):
            if any((path / FOLDER / "shards").glob("*.json")):
                pid = pids()[0]
                os.kill(pid, 9)
                killed.append(pid)
                return
            time.sleep(0.01)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def lose_worker(task: object, shard: int) -> None:
    """End the process, in place of making a shard."""
    os._exit(1)


def find_disk_full(task: object, shard: int) -> None:
    """Find the disk full, in place of making a shard."""
    raise OutputFullError("there is no space left")
