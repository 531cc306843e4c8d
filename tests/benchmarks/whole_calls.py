"""Whole calls that a user makes, of two versions of the code, interleaved: CPU microseconds a cell, and ratios.

    git worktree add --detach build/old REVISION      # the older version, and the same run exported by each
    python tests/benchmarks/whole_calls.py --data CELLS --do stim=stim --out build/calls \
        --code old=build/old:models_old --code new=.:models

Each version runs in a process of its own, one compute thread, by turns. Asked for: `Generator.counterfactual` of an
AnnData in memory, 16, 256 and 2,048 cells a call, presets ``draw`` and ``mean``, and 16 cells with each label; and
``write_atlas`` from a file (cells times `GRID_DRAWS` draws, CSR) with its default options. CPU time counts all threads,
and is least disturbed by others.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

FEW, CALLS = 16, (16, 256, 2048)
GRID_DRAWS = 16
SECONDS = 2.0
"""CPU time of each figure in one turn, at least."""


def measure(models: str, data: str, do: dict[str, str]) -> dict[str, float]:
    """Measure one version, which is the one that is imported: CPU microseconds a cell (a row of an atlas) by name."""
    import anndata

    from causcell import Generator

    warnings.simplefilter("ignore")
    cells = anndata.read_h5ad(data)
    found: dict[str, float] = {}
    with Generator.open(models, threads=1) as generator:
        for count in CALLS:
            taken = cells[[i % cells.n_obs for i in range(count)]].copy()
            taken.obs_names = [f"cell {i}" for i in range(count)]
            for preset in ("draw", "mean"):
                generator.counterfactual(taken, do, preset=preset)
                found[f"{preset}, {count} cells a call"] = _time_calls(
                    lambda taken=taken, preset=preset: generator.counterfactual(taken, do, preset=preset), count
                )
        taken, concept = cells[:FEW].copy(), next(iter(do))
        grid = FEW * len(generator.schema[concept].labels)
        generator.counterfactual(taken, grid=[concept])
        found[f"draw, {FEW} cells, each label of {concept}"] = _time_calls(
            lambda: generator.counterfactual(taken, grid=[concept]), grid
        )
        with tempfile.TemporaryDirectory() as folder:
            places = iter(Path(folder) / f"{i}.zarr" for i in range(1000))
            found["atlas of draws, file to file"] = _time_calls(
                lambda: generator.write_atlas(data, next(places), do, preset="draw", draws=GRID_DRAWS),
                cells.n_obs * GRID_DRAWS,
            )
    return found


def _time_calls(call: Any, rows: int) -> float:
    """Return the median CPU microseconds a row."""
    times: list[float] = []
    while sum(times) < SECONDS or len(times) < 3:
        started = time.process_time()
        call()
        times.append(time.process_time() - started)
    return statistics.median(times) / rows * 1e6


def main() -> None:
    """Run the versions by turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="h5ad of counts that the models read")
    parser.add_argument("--do", required=True, help="CONCEPT=LABEL")
    parser.add_argument("--code", action="append", required=True, help="NAME=CHECKOUT:MODELS, the first is the older")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    concept, _, label = arguments.do.partition("=")
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.data, {concept: label})))
        return
    codes = {name: place.split(":") for name, _, place in (each.partition("=") for each in arguments.code)}
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in codes}
    for turn in range(arguments.rounds):
        for name, (checkout, models) in codes.items():
            folders = (str(Path(checkout).resolve() / each) for each in ("inference", "training", "export"))
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"}
            command = [sys.executable, __file__, *sys.argv[1:], "--measure", models]
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            turns[name].append(json.loads(done.stdout))
        print(f"round {turn + 1} of {arguments.rounds}", flush=True)
    older, *others = codes
    print("| call | " + " | ".join(f"{name}, us a cell" for name in codes) + " | ratio |")
    print("|---" * (len(codes) + 2) + "|")
    for what in turns[older][0]:
        median = {name: statistics.median(turn[what] for turn in each) for name, each in turns.items()}
        ratios = [
            statistics.median(a[what] / b[what] for a, b in zip(turns[older], turns[o], strict=True)) for o in others
        ]
        shown = " | ".join(f"{median[name]:.1f}" for name in codes)
        print(f"| {what} | {shown} | {', '.join(f'{ratio:.2f}' for ratio in ratios)} |")

    from jobs import write_result

    write_result(arguments.out, {"turns": turns})


if __name__ == "__main__":
    main()
