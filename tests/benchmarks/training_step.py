"""CPU time of a training step, this code against another checkout of it, by turns.

    git worktree add --detach build/old v0.1.0
    python tests/benchmarks/training_step.py --old build/old --data kang2018_ifnb_main.h5ad \
        --concept stim donor cell_type --edge donor:cell_type

Each code trains in a process of its own, one thread, by ``fit``: all that a step of a user's training takes counts, the
loop's logging and averaging of weights among it, without validations. Both do a round of steps by turns; a round's
figure is the mean of its steps, and the medians over rounds are compared.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[2]
WARM_UP = 12
"""Steps before the first round, so that the independence term has all its cells."""


def main() -> None:
    """Start both codes, let them step by turns, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--old", type=Path, help="checkout of the other code; none: this one alone")
    parser.add_argument("--data", required=True)
    parser.add_argument("--concept", nargs="+", required=True)
    parser.add_argument("--edge", nargs="*", default=[])
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=15, help="steps of a round")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments)
        return
    codes = {"new": HERE} | ({"old": arguments.old.resolve()} if arguments.old else {})
    workers = {name: start(root, sys.argv[1:]) for name, root in codes.items()}
    rounds: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(arguments.rounds):
        for name, worker in workers.items():
            worker.stdin.write("go\n")
            worker.stdin.flush()
            found = json.loads(worker.stdout.readline())
            rounds[name].append(found["ms"])
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    print("| code | CPU ms a step, median | least | cells a step |\n|---|---|---|---|")
    for name, times in rounds.items():
        print(f"| {name} | {statistics.median(times):.1f} | {min(times):.1f} | {found['cells']} |")
    if "old" in rounds:
        ratio = statistics.median(old / new for old, new in zip(rounds["old"], rounds["new"], strict=True))
        print(f"\nold over new, median of rounds: {ratio:.2f}")


def start(root: Path, words: list[str]) -> Any:
    """Start a worker that runs the code below a folder."""
    paths = os.pathsep.join(str(root / part) for part in ("inference", "training", "export"))
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, __file__, *words, "--worker"]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def work(arguments: argparse.Namespace) -> None:
    """Train; do a round of steps for each line of input, and end with the input."""
    import tempfile
    import warnings

    import lightning.pytorch as lightning
    import torch

    from causcell_training import fit
    from causcell_training.config import load_config

    class Rounds(lightning.Callback):
        """Wait for a line before each round, and tell its time after it."""

        started, done = 0.0, -WARM_UP

        def on_train_batch_start(self, trainer: Any, plan: Any, batch: Any, batch_idx: int) -> None:
            if self.done >= 0 and self.done % arguments.steps == 0:
                if self.done:
                    spent = 1e3 * (time.process_time() - self.started) / arguments.steps
                    print(json.dumps({"ms": spent, "cells": len(batch[0])}), flush=True)
                if not sys.stdin.readline():
                    raise EOFError
                self.started = time.process_time()
            self.done += 1

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    settings = {"concept": arguments.concept, "edge": arguments.edge, "genes": arguments.genes}
    endless = {"optimisation.validate_every": 10_000, "optimisation.epochs": 10_000, "optimisation.accelerator": "cpu"}
    config = load_config(overrides=settings | endless)
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(EOFError):
        fit(arguments.data, Path(folder) / "run", config=config, callbacks=[Rounds()])


if __name__ == "__main__":
    main()
