"""An atlas of a million rows, as a new user would make it: killed on the way, taken up again, measured.

Makes a simulated source in slices (250,000 cells x 2,000 genes, 4 % nonzero), trains a model on its first cells (or
takes one), and prints

- the run: time, rows/s, peak memory, size, shares of read, encode, sample and write, with ``kill -9`` on the way, and
  whether the result is sound;
- peak memory against a run of a tenth of the rows from the same source;
- rows/s of two workers, each one compute thread, against one such worker, and against one that has one core alone;
- rows/s of the whole of ``generate`` against the engine alone (interventions, uniforms, decoder), at 1 and 10 steps.

    python tests/benchmarks/atlas.py --folder /some/place                     # the full size
    python tests/benchmarks/atlas.py --folder /some/place --cells 20000       # a few minutes
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata.io import sparse_dataset, write_elem
from scipy import sparse

from causcell import Generator
from causcell._internal.batching import pad_batch
from causcell._internal.units import format_duration, format_size
from causcell.cells.collection import Cells
from causcell.cells.panel_cells import PanelCells
from causcell.counterfactual.request import Request, make_request
from causcell.randomness import CellNoise, cell_keys

CAUSCELL = Path(sys.executable).parent / "causcell"
SLICE = 10_000
LABELS = {"stim": 2, "donor": 4, "cell_type": 8}
GRID = "donor"
"""Concept whose four labels are the interventions."""


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for the source, the model and the atlases")
    parser.add_argument("--cells", type=int, default=250_000)
    parser.add_argument("--genes", type=int, default=2_000)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="compute threads of the first run")
    parser.add_argument("--models", help="in place of training one on the source")
    parser.add_argument("--repeats", type=int, default=3, help="of the shares")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, Python {platform.python_version()}")
    data = source(arguments.folder, arguments.cells, arguments.genes)
    models = arguments.models or train(arguments.folder, data)
    out = arguments.folder / "atlas.zarr"
    shutil.rmtree(out, ignore_errors=True)
    whole = generate(data, models, out, ["--threads", arguments.threads], kills=arguments.kills)
    report(whole, out, arguments)
    compare_memory(data, models, arguments, whole)
    compare_workers(data, models, arguments)
    compare_with_engine(data, models, arguments)


# -- source and model --------------------------------------------------------------------------------------------------


def source(folder: Path, cells: int, genes: int) -> Path:
    """A file of simulated counts (CSR), written slice by slice; kept for the next time."""
    path = folder / f"source_{cells}x{genes}.h5ad"
    if path.exists():
        return path
    started = time.perf_counter()
    rng = np.random.default_rng(0)
    base = rng.normal(-4.2, 1.3, genes)
    programmes = {
        name: rng.normal(0, 1, (size, genes)) * (rng.random((size, genes)) < 0.15) for name, size in LABELS.items()
    }
    codes = {name: rng.integers(size, size=cells) for name, size in LABELS.items()}
    partial = path.with_suffix(".partial")
    with h5py.File(partial, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        for start in range(0, cells, SLICE):
            rows = slice(start, min(start + SLICE, cells))
            rate = base + sum(programmes[name][codes[name][rows]] for name in LABELS)
            depth = rng.gamma(4, 0.25, size=(rows.stop - rows.start, 1))
            counts = rng.poisson(np.exp(rate.astype(np.float32)) * depth).astype(np.int32)
            counts[:, 0] += 1  # no empty cell
            if start == 0:
                write_elem(file, "X", sparse.csr_matrix(counts))
            else:
                sparse_dataset(file["X"]).append(sparse.csr_matrix(counts))
        obs = pd.DataFrame(
            {name: pd.Categorical([f"{name}{code}" for code in codes[name]]) for name in LABELS}
            | {"tenth": np.arange(cells) % 10},
            index=[f"cell_{i:07d}" for i in range(cells)],
        )
        write_elem(file, "obs", obs)
        write_elem(file, "var", pd.DataFrame(index=[f"GENE{i}" for i in range(genes)]))
    partial.rename(path)
    print(f"source: {format_size(path.stat().st_size)} in {format_duration(time.perf_counter() - started)}")
    return path


def train(folder: Path, data: Path) -> str:
    """A model of all genes, trained on the source's first cells for a few epochs; kept for the next time."""
    genes = len(pd.Index(anndata.read_h5ad(data, backed="r").var_names))
    models = folder / f"models_{genes}"
    if not models.exists():
        from causcell_export import export
        from causcell_training import fit
        from causcell_training.config import load_config

        first = anndata.read_h5ad(data, backed="r")[:6000].to_memory()
        shutil.rmtree(folder / "run", ignore_errors=True)
        config = load_config(
            overrides={
                "concept": tuple(LABELS),
                "edge": ("donor:cell_type",),
                "genes": genes,
                "optimisation.epochs": 12,
            }
        )
        export(fit(first, folder / "run", config=config, progress=False), models)
    return str(models)


# -- the command line, watched -----------------------------------------------------------------------------------------


@dataclass
class Watched:
    """What runs of the command did, together."""

    seconds: float = 0.0
    cpu: float = 0.0
    """Time of all CPUs, which other programs on the machine change less than the time that passes."""

    rows: int = 0
    peak: int = 0
    kills: int = 0
    stages: Counter[str] = field(default_factory=Counter)
    times: list[tuple[float, int]] = field(default_factory=list)
    """Of the last run: when a shard was committed, and its rows."""

    @property
    def steady(self) -> float:
        """Rows/s of the last run from its first shard on: without starting up."""
        (first, _), (last, _) = self.times[0], self.times[-1]
        return sum(rows for _, rows in self.times[1:]) / (last - first)


def generate(
    data: Path,
    models: str,
    out: Path,
    options: list[object],
    *,
    grid: str = GRID,
    kills: int = 0,
    cores: int | None = None,
) -> Watched:
    """Run the command, killed so many times at even shares of its rows, and again to its end."""
    watched = Watched()
    for kill in range(1, kills + 2):
        until = kill / (kills + 1) if kill <= kills else None
        _run(watched, data, models, out, ["--grid", grid, *options], until, cores)
    return watched


def _run(
    watched: Watched,
    data: Path,
    models: str,
    out: Path,
    options: list[object],
    until: float | None,
    cores: int | None,
) -> None:
    words = ["generate", data, "--models", models, "--out", out, "--json", "--no-progress", *options]
    started, used = time.perf_counter(), _cpu_of_children()
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    process = subprocess.Popen(
        [CAUSCELL, *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, allowed),
    )
    assert process.stdout is not None
    watched.times = []
    with _memory_watched(process.pid, watched):
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "shard":
                watched.stages.update(event["seconds"])
                watched.times.append((time.perf_counter(), event["rows"]))
                if until is not None and event["done_rows"] >= until * event["total_rows"]:
                    process.kill()
                    watched.kills += 1
                    break
            elif event["event"] == "done":
                watched.rows = event["rows"]
        status = process.wait()
    watched.seconds += time.perf_counter() - started
    watched.cpu += _cpu_of_children() - used
    if until is None and status:
        raise SystemExit(f"generate ended with status {status}")


@contextlib.contextmanager
def _memory_watched(pid: int, watched: Watched) -> Iterator[None]:
    """The largest resident memory of a process and its children together, sampled."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            watched.peak = max(watched.peak, sum(_resident(each) for each in [pid, *_children(pid)]))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(word) for task in Path(f"/proc/{pid}/task").iterdir() for word in _text(task / "children").split()]
    return []


def _resident(pid: int) -> int:
    words = _text(Path(f"/proc/{pid}/statm")).split()
    return int(words[1]) * os.sysconf("SC_PAGE_SIZE") if words else 0


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it ended meanwhile
        return ""


# -- figures -----------------------------------------------------------------------------------------------------------


def report(whole: Watched, out: Path, arguments: argparse.Namespace) -> None:
    """The run, and whether what it made is sound."""
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    total = sum(whole.stages.values())
    verified = subprocess.run([CAUSCELL, "verify", str(out), "--no-progress"], capture_output=True, text=True)
    print(
        f"atlas: {whole.rows:,} rows x {arguments.genes:,} genes, killed {whole.kills} times, {arguments.threads} "
        "threads"
    )
    print(f"  time {format_duration(whole.seconds)} ({whole.seconds:.0f} s), {whole.rows / whole.seconds:,.0f} rows/s")
    print(f"  peak memory {format_size(whole.peak)}, store {format_size(size)}")
    print("  " + ", ".join(f"{name} {100 * spent / total:.0f} %" for name, spent in whole.stages.most_common()))
    print(f"  {verified.stdout.strip()}")


def compare_memory(data: Path, models: str, arguments: argparse.Namespace, whole: Watched) -> None:
    """Peak memory against a tenth of the rows."""
    out = arguments.folder / "tenth.zarr"
    shutil.rmtree(out, ignore_errors=True)
    tenth = generate(data, models, out, ["--threads", arguments.threads, "--where", "tenth == 0"])
    print(
        f"memory: {format_size(whole.peak)} for {whole.rows:,} rows, {format_size(tenth.peak)} for {tenth.rows:,}: "
        f"{whole.peak / tenth.peak:.2f} x"
    )


def compare_workers(data: Path, models: str, arguments: argparse.Namespace) -> None:
    """Two workers against one, each one compute thread, over a fifth of the rows.

    One worker reads and compresses on a second core; so the one is also measured on one core alone.
    """
    rates = {}
    for name, workers, cores in (("one", 1, None), ("one on one core", 1, 1), ("two", 2, None)):
        out = arguments.folder / "workers.zarr"
        shutil.rmtree(out, ignore_errors=True)
        options = ["--threads", 1, "--workers", workers, "--where", "tenth < 2", "--shard-size", "32MB"]
        run = generate(data, models, out, options, cores=cores)
        rates[name] = (run.steady, run.rows / run.seconds)
        print(f"workers: {name}: {run.steady:,.0f} rows/s steady, {run.rows / run.seconds:,.0f} with starting up")
    for name in ("one", "one on one core"):
        (two, two_all), (one, one_all) = rates["two"], rates[name]
        print(f"  two against {name}: {two / one:.2f} x steady, {two_all / one_all:.2f} x in all")


def compare_with_engine(data: Path, models: str, arguments: argparse.Namespace) -> None:
    """The whole of generate against the engine alone, in one process, one compute thread, turn about."""
    for steps, where in ((1, "tenth < 4"), (10, "tenth == 0")):  # enough for starting up not to count
        with Generator.open(models, threads=1) as generator, generator.bind(Cells(data, where=where)) as cells:
            settings = generator.solver_settings(solver="draw", steps=steps)
            request = make_request(generator.manifest, grid=[GRID], settings=settings)
            rates: dict[str, list[float]] = {"whole": [], "engine": []}
            for _ in range(arguments.repeats):
                out = arguments.folder / "share.zarr"
                shutil.rmtree(out, ignore_errors=True)
                made = generator.write_atlas(data, out, grid=[GRID], where=where, solver="draw", steps=steps)
                rates["whole"].append(made.made / made.seconds)
                rates["engine"].append(engine_rate(generator, cells, request))
            shares = np.array(rates["whole"]) / np.array(rates["engine"])
            print(
                f"{steps} steps, one thread: generate {np.median(rates['whole']):,.0f} rows/s, engine alone "
                f"{np.median(rates['engine']):,.0f}: {100 * np.median(shares):.0f} % "
                f"({100 * shares.min():.0f} to {100 * shares.max():.0f})"
            )


def engine_rate(generator: Generator, cells: PanelCells, request: Request, seconds: float = 3.0) -> float:
    """Rows/s of interventions, uniforms and decoder, over and over on one batch."""
    model, size = generator.model, generator.batch_size
    solver, batch = model.build_solver(request.settings), cells.read(slice(0, min(size, len(cells))))
    exogenous = model.encode(pad_batch(batch.expression, size)).mean
    labels = pad_batch(cells.labels[batch.rows], size)
    keys = pad_batch(cell_keys(0, batch.names), size)
    made, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        endogenous = model.scm.factual(exogenous)["endogenous"]
        noise = CellNoise(keys, len(generator.preprocessing.genes))
        for intervention in request.interventions:
            result = model.scm.intervene(
                intervention, exogenous=exogenous, endogenous=endogenous, labels=labels, keys=keys
            )
            model.decode(result.endogenous, noise, solver)
            made += size
    return made / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
