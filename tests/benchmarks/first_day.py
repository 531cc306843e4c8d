"""A new user's way from nothing to a figure of one's own cells, in an environment of its own, each step timed.

    python -m pip wheel --no-deps -w build/day .
    python tests/benchmarks/first_day.py cells.h5ad --concept stim --concept donor --concept cell_type \\
        --effect stim --baseline ctrl --wheel build/day/causcell-*.whl --folder build/day

An environment is made and the wheel installed there with ``[all]``, in the versions of ``constraints.txt``; then, as in
the README: check, fit, counterfactual cells, a trial, its table of genes and the volcano. All processors may be used.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"

NOTEBOOK = """
import json, sys, time
begun = time.monotonic()
import anndata
import matplotlib
import causcell as cc

def tell(step):
    print("STEP", step, round(time.monotonic() - begun, 1), flush=True)

if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    matplotlib.use("agg")
    adata = anndata.read_h5ad(given["cells"])
    model = cc.fit(adata, concepts=given["concept"], edges=given["edge"])
    tell("fit")
    other = next(label for label in adata.obs[given["effect"]].astype(str).unique() if label != given["baseline"])
    model.counterfactual(adata, do={given["effect"]: other})
    tell("counterfactual cells")
    effects = cc.get.effects_df(model.trial(adata, given["effect"], baseline=given["baseline"]), other)
    tell("trial")
    model.save("kept")
    cc.pl.volcano(effects).figure.savefig("volcano.png")
    tell("figure")
    print("GENES", *effects["names"][:5])
"""


def main() -> None:
    """Take the way, and print when each step was done."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cells", type=Path)
    parser.add_argument("--concept", action="append", required=True)
    parser.add_argument("--edge", action="append", default=[])
    parser.add_argument("--effect", required=True, help="concept of the trial")
    parser.add_argument("--baseline", required=True)
    parser.add_argument("--wheel", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="gets the environment, the model and volcano.png")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    environment, cells = folder / "environment", arguments.cells.resolve()
    print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, Python {platform.python_version()}")
    begun = time.monotonic()

    def run(step: str, command: Sequence[str | os.PathLike[str]]) -> None:
        done = subprocess.run(command, cwd=folder, text=True, capture_output=True, check=False)
        if done.returncode:
            raise SystemExit(f"{step} failed:\n{done.stdout}{done.stderr}")
        for line in done.stdout.splitlines():
            if line.startswith(("STEP", "GENES")):
                print("   ", line.partition(" ")[2], "s" if line.startswith("STEP") else "", flush=True)
        print(f"{time.monotonic() - begun:.0f} s: {step}", flush=True)

    python = environment / "bin" / "python"
    run("environment", [sys.executable, "-m", "venv", environment])
    wheel = f"causcell[all] @ {arguments.wheel.resolve().as_uri()}"
    run("installed", [python, "-m", "pip", "install", "--quiet", "--constraint", CONSTRAINTS, wheel])
    concepts = [option for name in arguments.concept for option in ("--concept", name)]
    edges = [option for edge in arguments.edge for option in ("--edge", edge)]
    run("checked", [environment / "bin" / "causcell", "check", cells, *concepts, *edges])
    notebook = folder / "notebook.py"
    notebook.write_text(NOTEBOOK)
    run("figure", [python, notebook, json.dumps(vars(arguments) | {"cells": str(cells)}, default=str)])
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"CPU seconds of all: {used.ru_utime + used.ru_stime:.0f}")


if __name__ == "__main__":
    main()
