"""Processor seconds of ``causcell export``, of two versions of the code, interleaved.

    git worktree add --detach build/old REVISION
    python tests/benchmarks/export_time.py --run RUN --code old=build/old --code new=. --out build/export

Each export is a process of its own with one compute thread; its user and system time is taken when it has ended, all
threads and the interpreter's own start and end included. The graphs of the last round are compared: answers of both
versions to the same inputs, and milliseconds of a batch, by turns.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

BATCH = 256
REPEATS = 20


def export(checkout: Path, run: Path, out: Path) -> float:
    """Export a run by the code of a checkout; return its processor seconds."""
    folders = (str(checkout.resolve() / each) for each in ("inference", "training", "export"))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "causcell", "export", str(run), "--out", str(out), "--no-progress"]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def compare(run: Path, older: Path, newer: Path) -> list[tuple[str, float, float, float]]:
    """Compare two exports: each graph's name, largest difference relative to 1 + |value|, and milliseconds of each."""
    import onnxruntime

    from causcell_export.graphs import example_inputs
    from causcell_training.run import Run

    loaded = Run.load(run)
    inputs = example_inputs(loaded.model, loaded.held_out().X.toarray(), BATCH)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    found = []
    for path in sorted(older.glob("*/1/model.onnx")):
        name = path.parts[-3]
        if name not in inputs:  # reference cells
            continue
        files = (path, newer / path.relative_to(older))
        sessions = [
            onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"]) for file in files
        ]
        old, new = (each.run(None, inputs[name]) for each in sessions)
        pairs = [(a.astype(np.float64), b) for a, b in zip(old, new, strict=True)]
        difference = max(float((np.abs(a - b) / (1 + np.abs(a))).max()) for a, b in pairs)
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(REPEATS):
            for session, taken in zip(sessions, times, strict=True):
                started = time.process_time()
                session.run(None, inputs[name])
                taken.append(time.process_time() - started)
        found.append((name, difference, *(statistics.median(taken) * 1e3 for taken in times)))
    return found


def main() -> None:
    """Export by turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of a training run that both versions read")
    parser.add_argument("--code", action="append", required=True, help="NAME=CHECKOUT, the older first; two")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    codes = {name: Path(place) for name, _, place in (each.partition("=") for each in arguments.code)}
    older, newer = codes
    taken: dict[str, list[float]] = {name: [] for name in codes}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(arguments.rounds):
            for name, checkout in codes.items():
                taken[name].append(export(checkout, arguments.run, Path(folder) / f"{name}{turn}"))
            shown = ", ".join(f"{name} {each[-1]:.1f}" for name, each in taken.items())
            print(f"round {turn + 1} of {arguments.rounds}: {shown} s", flush=True)
        last = (Path(folder) / f"{name}{arguments.rounds - 1}" for name in codes)
        graphs = compare(arguments.run, *last)
    ratio = statistics.median(new / old for old, new in zip(taken[older], taken[newer], strict=True))
    medians = {name: statistics.median(each) for name, each in taken.items()}
    print(f"{older} {medians[older]:.1f} s, {newer} {medians[newer]:.1f} s, ratio {ratio:.2f}")
    print(f"| graph | largest difference | {older}, ms a batch of {BATCH} | {newer} |\n|---|---|---|---|")
    for name, difference, old, new in graphs:
        print(f"| {name} | {difference:.1e} | {old:.2f} | {new:.2f} |")

    from jobs import write_result

    write_result(arguments.out, {"seconds": taken, "graphs": graphs})


if __name__ == "__main__":
    main()
