"""Training of many cells: peak memory, and cells a second from the cache on disk against those from memory.

    python tests/benchmarks/large_training.py --cells 100000 1000000 --folder build/large

Files of synthetic cells are written by blocks: counts of a few programmes, about 6 % nonzero, three concepts. Each
training is a process of its own that ends after some steps; its peak is what the kernel counted (``ru_maxrss``).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import h5py
import numpy as np
from anndata.io import write_elem

CONCEPTS = MappingProxyType({"cell_type": 12, "stim": 2, "donor": 8})
BLOCK = 4096


def main() -> None:
    """Make the files that are not there, train on each, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--cache", nargs="+", default=["auto"], help="as train's --cache; several are compared")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--folder", type=Path, required=True, help="where the files are made; runs are removed")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(train_one(**json.loads(arguments.one))))
        return
    arguments.folder.mkdir(parents=True, exist_ok=True)
    print(f"{platform.processor() or platform.machine()}, {platform.platform()}")
    print("| cells | cache | peak MB | MB after imports | seconds before the first step | cells/s | CPU us a cell |")
    print("|---|---|---|---|---|---|---|")
    for cells in arguments.cells:
        path = arguments.folder / f"cells_{cells}_{arguments.genes}.h5ad"
        if not path.exists():
            write_cells(path, cells, arguments.genes)
        for _ in range(arguments.repeats):
            for cache in arguments.cache:
                task = {"path": str(path), "cache": cache, "steps": arguments.steps, "genes": arguments.genes}
                print(row_of(cells, cache, measure(task)), flush=True)


def row_of(cells: int, cache: str, found: dict[str, float]) -> str:
    """Return a row of the table."""
    return (
        f"| {cells:,} | {cache} | {found['peak']:.0f} | {found['imports']:.0f} | {found['before']:.0f} | "
        f"{found['rate']:,.0f} | {found['cpu']:.0f} |"
    )


def measure(task: dict[str, object]) -> dict[str, float]:
    """Train in a process of its own."""
    command = [sys.executable, __file__, "--folder", ".", "--one", json.dumps(task)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def train_one(path: str, cache: str, steps: int, genes: int) -> dict[str, float]:
    """Train for some steps, without the end of a training."""
    import lightning.pytorch as lightning

    from causcell_training import fit
    from causcell_training.config import load_config

    class Stopwatch(lightning.Callback):
        """Note time and CPU time of the steps, and break off."""

        def __init__(self) -> None:
            self.begun, self.cells = (0.0, 0.0), 0

        def on_train_batch_end(self, trainer, plan, outputs, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
            if batch_idx == 20:  # caches are warm
                self.begun, self.cells = (time.monotonic(), time.process_time()), 0
            self.cells += len(batch[0])
            if batch_idx == steps + 20:
                raise _EnoughError

    imports, watch, started = peak(), Stopwatch(), time.monotonic()
    out = Path(path).with_suffix(f".{cache}.run")
    shutil.rmtree(out, ignore_errors=True)
    options = {} if cache == "none" else {"cache": cache}
    settings = load_config(overrides={"genes": genes, "concept": [*CONCEPTS], "edge": ["stim:cell_type"]})
    with contextlib.suppress(_EnoughError):
        fit(path, out, config=settings, callbacks=[watch], **options)
    wall, used = time.monotonic() - watch.begun[0], time.process_time() - watch.begun[1]
    found = {
        "peak": peak(),
        "imports": imports,
        "before": watch.begun[0] - started,
        "rate": watch.cells / wall,
        "cpu": 1e6 * used / watch.cells,
    }
    shutil.rmtree(out, ignore_errors=True)
    return found


class _EnoughError(Exception):
    """Enough steps were taken."""


def peak() -> float:
    """Return the largest resident memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write_cells(
    path: Path,
    cells: int,
    genes: int,
    seed: int = 0,
    concepts: Mapping[str, int] = CONCEPTS,
    programmes: int = 0,
) -> None:
    """Write synthetic cells as ``.h5ad`` (CSR, int32 counts), a block in memory at a time.

    Concepts are given with their numbers of labels. Each label moves genes of its own, or, if there are ``programmes``,
    so many sets of genes that all labels of its concept have in common.
    """
    import pandas as pd

    rng = np.random.default_rng(seed)
    codes = {name: rng.integers(size, size=cells).astype(np.int16) for name, size in concepts.items()}
    staging = path.with_suffix(".part")
    with h5py.File(staging, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        labels = {
            name: pd.Categorical.from_codes(codes[name], [f"{name}_{i:02d}" for i in range(size)])
            for name, size in concepts.items()
        }
        write_elem(file, "obs", pd.DataFrame(labels, index=[f"CELL{i:09d}-1" for i in range(cells)]))
        write_elem(file, "var", pd.DataFrame(index=[f"GENE{i:05d}" for i in range(genes)]))
        matrix = file.create_group("X")
        matrix.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [cells, genes]})
        parts = {name: matrix.create_dataset(name, (0,), "i4", maxshape=(None,), chunks=(2**18,))
                 for name in ("data", "indices")}  # fmt: skip
        lengths = [np.zeros(1, dtype=np.int64)]
        for row_lengths, columns, values in draw_counts(codes, genes, rng, concepts, programmes):
            for name, added in (("indices", columns), ("data", values)):
                parts[name].resize(len(parts[name]) + len(added), axis=0)
                parts[name][-len(added) :] = added
            lengths.append(row_lengths)
        matrix.create_dataset("indptr", data=np.cumsum(np.concatenate(lengths)))
    staging.rename(path)


def draw_counts(
    codes: dict[str, np.ndarray],
    genes: int,
    rng: np.random.Generator,
    concepts: Mapping[str, int],
    programmes: int,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Draw Poisson counts block by block: number of nonzeros of each cell, their columns, their values."""
    base = rng.normal(-3.9, 1.5, size=genes)
    shifts = {}
    for name, size in concepts.items():
        shape = (programmes or size, genes)
        shifts[name] = rng.normal(0, 0.7, shape) * (rng.random(shape) < 0.2)
    if programmes:
        shifts = {name: rng.normal(size=(concepts[name], programmes)) @ shift for name, shift in shifts.items()}
    cells = len(next(iter(codes.values())))
    for start in range(0, cells, BLOCK):
        rows = slice(start, min(start + BLOCK, cells))
        rate = base + sum(shifts[name][codes[name][rows]] for name in concepts)
        counts = rng.poisson(np.exp(rate, dtype=np.float32))
        counts[:, 0] += 1  # no cell is empty
        nonzero = counts > 0
        yield nonzero.sum(axis=1), np.nonzero(nonzero)[1].astype(np.int32), counts[nonzero].astype(np.int32)


if __name__ == "__main__":
    main()
