"""Reading of a file of many genes for a training, of two versions of the code, interleaved: CPU microseconds a cell.

    git worktree add --detach build/old REVISION
    python tests/benchmarks/panel_reading.py --code old=build/old --code new=. --folder build/reading

Each turn is a process of its own with one compute thread. It times `causcell_training.data.cells.prepare` of a file of
synthetic cells (counts, three concepts; see `large_training.py`): the choice of the panel's genes, their moments,
labels and the panel's values, in memory. A first call on few cells leaves imports out. Beside it, HDF5 alone reads the
matrix.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

FEW = 1000


def measure(path: Path, few: Path) -> dict[str, float]:
    """Measure the version that is imported: CPU seconds of reading a file, and of HDF5 alone."""
    import h5py
    from large_training import CONCEPTS

    from causcell_training.config import load_config
    from causcell_training.data.cells import prepare

    config = load_config(overrides={"genes": 2000, "concept": [*CONCEPTS]})
    prepare(few, config)
    started = time.process_time()
    prepare(path, config)
    read = time.process_time()
    with h5py.File(path) as file:
        matrix = file["X"]
        for start in range(0, matrix["data"].shape[0], 2**22):
            for name in ("data", "indices"):
                matrix[name][start : start + 2**22]
    return {"prepare": read - started, "HDF5 alone": time.process_time() - read}


def main() -> None:
    """Make the files that are not there, measure by turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--code", action="append", required=True, help="NAME=CHECKOUT[:GENE_SELECTION], the older first"
    )
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, required=True, help="where the files are made, and the results kept")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    paths = [arguments.folder / f"cells_{cells}_{arguments.genes}.h5ad" for cells in (arguments.cells, FEW)]
    if arguments.measure:
        print(json.dumps(measure(*paths)))
        return
    from large_training import write_cells

    for path, cells in zip(paths, (arguments.cells, FEW), strict=True):
        if not path.exists():
            write_cells(path, cells, arguments.genes)
    codes = {name: Path(place) for name, _, place in (each.partition("=") for each in arguments.code)}
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in codes}
    for turn in range(arguments.rounds):
        for name, checkout in codes.items():
            folders = (str(checkout.resolve() / each) for each in ("inference", "training", "export"))
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"}
            command = [sys.executable, __file__, *sys.argv[1:], "--measure"]
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            turns[name].append(json.loads(done.stdout.splitlines()[-1]))
        print(f"round {turn + 1} of {arguments.rounds}", flush=True)
    print("| code | CPU us a cell, median | least | HDF5 alone | ratio of the oldest |\n|---|---|---|---|---|")
    older = next(iter(turns.values()))
    for name, found in turns.items():
        taken = [1e6 * each["prepare"] / arguments.cells for each in found]
        plain = statistics.median(1e6 * each["HDF5 alone"] / arguments.cells for each in found)
        ratio = statistics.median(a["prepare"] / b["prepare"] for a, b in zip(older, found, strict=True))
        print(f"| {name} | {statistics.median(taken):.0f} | {min(taken):.0f} | {plain:.0f} | {ratio:.2f} |")

    from jobs import write_result

    write_result(arguments.folder / "results", {"turns": turns})


if __name__ == "__main__":
    main()
