"""Several processes on one machine, each with the default threads: does one slow the other?

Each process opens the checked-in model as users do and draws batches of 256 cells for some seconds; cells/s of all
together and CPU time a cell, for one and two processes at once, without and with spinning threads, turn about.

    python tests/benchmarks/threads.py --out results.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
BATCH = 256


def main() -> None:
    """Parse the command line and measure, or be one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--models", type=Path, default=ROOT / "model_repository")
    parser.add_argument("--out", type=Path, help="file of results (JSON)")
    parser.add_argument("--child", choices=("still", "spinning"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(draw(arguments.models, arguments.seconds, spinning=arguments.child == "spinning")))
        return
    cases = [(count, mode) for count in (1, 2) for mode in ("still", "spinning")]
    rates: dict[tuple[int, str], list[tuple[float, float]]] = {case: [] for case in cases}
    for _ in range(arguments.repeats):
        for case in cases:
            rates[case].append(together(arguments, *case))
    print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, Python {platform.python_version()}")
    found = {}
    for (count, mode), runs in rates.items():
        cells, cpu = np.median(np.array(runs), axis=0)
        found[f"{count} {mode}"] = {"cells_per_second": round(cells), "cpu_microseconds_a_cell": round(cpu, 1)}
        print(f"{count} process(es), {mode}: {cells:,.0f} cells/s together, {cpu:.1f} CPU microseconds a cell")
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


def together(arguments: argparse.Namespace, count: int, mode: str) -> tuple[float, float]:
    """Run so many processes at once; return their cells/s together, and CPU microseconds a cell."""
    words = ["--models", arguments.models, "--seconds", arguments.seconds, "--child", mode]
    command = [sys.executable, __file__, *map(str, words)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    answers = [json.loads(process.communicate()[0]) for process in running]
    cells = sum(answer["cells"] for answer in answers)
    rate = sum(answer["cells"] / answer["seconds"] for answer in answers)
    return rate, 1e6 * sum(answer["cpu"] for answer in answers) / cells


def draw(models: Path, seconds: float, *, spinning: bool) -> dict[str, float]:
    """Draw batch after batch, and return how many cells, in which time, with which CPU time."""
    from causcell.engine.open import open_engine

    engine = open_engine(models, spinning=spinning)  # threads as they are if nobody says
    dimensions = engine.manifest.dimensions
    rng = np.random.default_rng(0)
    concepts = engine.manifest.concept_schema.size
    inputs = {
        "endogenous": rng.normal(size=(BATCH, concepts, dimensions.embedding)).astype(np.float32),
        "uniforms": rng.random((BATCH, dimensions.genes), dtype=np.float32),
    }
    for _ in range(5):
        engine.run("decoder", inputs, ["expression"])
    time.sleep(1)  # the others have begun, too
    started, cpu, cells = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - started < seconds:
        engine.run("decoder", inputs, ["expression"])
        cells += BATCH
        time.sleep(0.002)  # as a caller does between batches: then waiting threads matter
    return {"cells": cells, "seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}


if __name__ == "__main__":
    main()
