"""Hundreds of labels of one concept: what a training, an export, an atlas, a trial and an evaluation of all cost.

    python tests/benchmarks/many_labels.py --folder build/labels

A file of made-up cells (`large_training.write_cells`) with concepts of ``--labels``, 6 and 2 labels; then the command
line as a user types it, each command in a process of its own: its CPU seconds, children included, and its peak memory.
The atlas and the trial set every label on ``--atlas-cells`` cells; how far each label's mean lies from that of all, by
the atlas, is held against the same of the real cells. Cells, run and models that a rerun finds are kept.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import scipy.sparse
from large_training import write_cells

CONCEPT = "perturbation"


def main() -> None:
    """Make the cells, run the commands, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", type=int, default=200_000)
    parser.add_argument("--genes", type=int, default=1000)
    parser.add_argument("--labels", type=int, default=500)
    parser.add_argument("--atlas-cells", type=int, default=200)
    parser.add_argument("--programmes", type=int, default=6, help="sets of genes; 0: each label has its own")
    parser.add_argument("--set", action="append", default=[], dest="settings", help="KEY=VALUE of the training")
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    cells, run, models = folder / "cells.h5ad", folder / "run", folder / "models"
    if not cells.exists():
        concepts = {CONCEPT: arguments.labels, "cell_type": 6, "batch": 2}
        write_cells(cells, arguments.cells, arguments.genes, concepts=concepts, programmes=arguments.programmes)
    named = [option for name in (CONCEPT, "cell_type", "batch") for option in ("--concept", name)]
    settings = [option for each in arguments.settings for option in ("--set", each)]
    served = ["--models", models]
    where = f"index < 'CELL{arguments.atlas_cells:09d}'"
    commands = {
        "train": ["train", cells, *named, "--set", f"genes={arguments.genes}", *settings, "--out", run],
        "export": ["export", run, "--out", models],
        "generate": ["generate", cells, *served, "--grid", CONCEPT, "--where", where, "--out", folder / "atlas.zarr"],
        "trial": ["trial", cells, *served, "--concept", CONCEPT, "--where", where, "--out", folder / "trial.h5ad"],
        "evaluate": ["evaluate", cells, *served, "--out", folder / "report"],
    }
    done = {"train": run, "export": models}
    print(f"{platform.processor() or platform.machine()}, {platform.platform()}; {vars(arguments)}")
    print("| command | CPU s | s | peak MB | on disk, MB |\n|---|---|---|---|---|")
    for name, command in commands.items():
        if name not in done or not done[name].exists():
            print(row_of(name, [str(each) for each in command], folder), flush=True)
    print(judge(cells, folder / "atlas.zarr"))


def row_of(name: str, command: list[str], folder: Path) -> str:
    """Run a command of ``causcell`` and return its row of the table; what it prints goes to a file of its name."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    begun = time.monotonic()
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "causcell", *command], stdout=log, stderr=subprocess.STDOUT, env=environment
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"causcell {name} failed: see {folder / f'{name}.log'}")
    out = Path(command[command.index("--out") + 1])
    files = out.rglob("*") if out.is_dir() else [out]
    size = sum(path.stat().st_size for path in files if path.is_file()) / 1e6
    used = usage.ru_utime + usage.ru_stime
    return f"| {name} | {used:,.0f} | {time.monotonic() - begun:,.0f} | {usage.ru_maxrss / 1024:,.0f} | {size:,.1f} |"


def judge(cells: Path, atlas: Path) -> str:
    """Hold the labels' effects in an atlas against those in the real cells, and halves of these against each other."""
    real = anndata.read_h5ad(cells)
    scaled = scipy.sparse.csr_matrix(real.X, dtype=np.float64)
    scaled = scipy.sparse.diags(1e4 / np.asarray(scaled.sum(axis=1)).ravel()) @ scaled
    scaled.data = np.log1p(scaled.data)
    made, labels = anndata.read_zarr(atlas), real.obs[CONCEPT]
    predicted = effects(made.X, made.obs[CONCEPT].cat.set_categories(labels.cat.categories))
    first = np.random.default_rng(0).random(len(labels)) < 0.5
    halves = [effects(scaled[rows], labels[rows]) for rows in (first, ~first)]
    noiseless = (halves[0] * halves[1]).sum()  # squared size of the real effects
    size = (predicted * (halves[0] + halves[1])).sum() / 2 / noiseless
    error = ((predicted - halves[0]) * (predicted - halves[1])).sum() / noiseless
    return (
        f"effects of {len(predicted)} labels: Pearson {pearson(predicted, effects(scaled, labels)):.3f} "
        f"(halves {pearson(*halves):.3f}), size {size:.3f}, squared error {error:.3f}, noise of the real ones taken off"
    )


def effects(values: Any, labels: Any) -> np.ndarray:
    """Mean of each label's rows less the mean of these means, [labels x genes]."""
    codes = labels.cat.codes.to_numpy()
    shape = (len(labels.cat.categories), len(codes))
    members = scipy.sparse.csr_matrix((np.ones(len(codes)), (codes, np.arange(len(codes)))), shape)
    means = np.asarray((members @ values).todense()) / members.sum(axis=1)
    return np.asarray(means - means.mean(axis=0))


def pearson(one: np.ndarray, other: np.ndarray) -> float:
    """Mean over labels of the correlation over genes."""
    return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(one, other, strict=True)]))


if __name__ == "__main__":
    main()
