"""Jobs of a benchmark side by side, each one's result kept as it comes, and the file that all of them end in."""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from causcell.evaluation.report import run_environment

Job = dict[str, Any]
FILES = ("data", "split")
"""Keys of a job that are paths."""


class UnfinishedError(Exception):
    """A job that ends without a result: it is told, and stays to be done."""


def add_job_options(parser: argparse.ArgumentParser, *, seeds: bool = True) -> None:
    """Add what every script of jobs takes: seeds (if it counts by them), settings of training, workers, the folder."""
    if seeds:
        parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], dest="settings", help="KEY=VALUE of every training")
    parser.add_argument("--workers", type=int, default=1, help="processes, one thread each")
    parser.add_argument("--out", type=Path, required=True, help="folder; a rerun goes on with what is done there")
    parser.add_argument("--done-only", action="store_true", help="train nothing: tables of what is done in the folder")


def run_jobs(function: Callable[[Job], Any], jobs: Mapping[str, Job], arguments: argparse.Namespace) -> dict[str, Any]:
    """Results of ``function`` of every job by name, in the order of the jobs.

    Each is kept in ``jobs`` of the folder as soon as it is there, and read from it where the same job was done before:
    for a changed model take a new folder. A job that raises `UnfinishedError` is left out.
    """
    out, workers = arguments.out, arguments.workers
    (out / "jobs").mkdir(parents=True, exist_ok=True)
    paths = {name: out / "jobs" / f"{_digest([name, job])}.json" for name, job in jobs.items()}
    missing = [name for name, path in paths.items() if not path.exists()]
    if arguments.done_only:
        paths = {name: path for name, path in paths.items() if path.exists()}
        print(f"{len(paths)} of {len(jobs)} are done")
        missing = []
    started = time.perf_counter()

    def keep(name: str, take: Callable[[], Any]) -> None:
        try:
            result = take()
        except UnfinishedError as reason:
            print(f"{time.perf_counter() - started:.0f} s: {name}: {reason}", flush=True)
            del paths[name]
            return
        staged = paths[name].with_suffix(".part")
        staged.write_text(json.dumps({"name": name, "job": jobs[name], "result": result}) + "\n")
        staged.replace(paths[name])
        print(f"{time.perf_counter() - started:.0f} s: {name}", flush=True)

    if workers == 1:
        for name in missing:
            keep(name, functools.partial(function, jobs[name]))
    elif missing:
        os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that are started now
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(missing)), mp_context=context, initializer=_one_thread) as pool:
            running = {pool.submit(function, jobs[name]): name for name in missing}
            for done in as_completed(running):
                keep(running[done], done.result)
    return {name: json.loads(path.read_text())["result"] for name, path in paths.items()}


def _one_thread() -> None:
    if find_spec("torch") is not None:
        import torch

        torch.set_num_threads(1)


def _digest(value: list[Any]) -> str:
    """Digest of a name and a job, wherever its files lie."""
    value = [value[0], {key: Path(each).name if key in FILES else each for key, each in value[1].items()}]
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def write_result(out: Path, content: Mapping[str, Any], name: str = "result.json") -> None:
    """Write a result with the command, the versions and the hardware that it was made with."""
    words = [re.sub(r"/\S*/", "", word) for word in sys.argv[1:]]  # files by their names alone
    command = " ".join(["python", f"tests/benchmarks/{Path(sys.argv[0]).name}", *words])
    out.mkdir(parents=True, exist_ok=True)
    (out / name).write_text(json.dumps({**run_environment(), "command": command, **content}, indent=1) + "\n")
