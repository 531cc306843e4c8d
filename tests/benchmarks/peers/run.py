"""Train the peers, this project and trivial baselines on the same cells, and judge all by the product's measures.

    make peers DATA=FOLDER                                            # environments, Kang with three seeds, tables
    python tests/benchmarks/peers/run.py --data DATA --out build/peers/out --systems all --cases kang --seeds 3

Every system, case and seed is a job of its own in ``--out``; a rerun goes on with what is not done. What could not run
is told with its reason. ``--deadline`` ends the run in time, jobs under way included: they are begun anew by a rerun.
``results.py`` joins the folders of several machines, ``table.py`` makes the tables and ``figures.py`` the figures.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # jobs.py; last, as a neighbour is named as a package is

from cases import Case, list_cases, make_case
from environments import find_pythons
from jobs import UnfinishedError, add_job_options, run_jobs
from judge import judge
from results import RESULT, write_results
from systems import FOLDER, find_systems

from causcell.errors import CausCellError

HOURS = 6.0
"""Longest training, unless a deadline is nearer."""


def main() -> None:
    """Parse, find environments, run what is missing, write."""
    arguments = parse_arguments()
    systems = find_systems(arguments.systems)
    given = dict(each.split("=", 1) for each in arguments.environment)
    checkouts = {name: str(Path(path).resolve()) for name, path in (each.split("=", 1) for each in arguments.checkout)}
    pythons, reasons = find_pythons([each.adapter for each in systems], given, build=arguments.build)
    for system in systems:
        if system.checkout and system.adapter in pythons and system.adapter not in checkouts:
            reasons[system.adapter] = f"is on no index: needs --checkout {system.adapter}=PATH to its source"
            del pythons[system.adapter]
    for name, reason in reasons.items():
        print(f"not run: {name} {reason}", flush=True)
    jobs = {
        f"{case} {seed} {system.title if system.group == 'file' else system.adapter}": {
            "system": system.adapter,
            "case": case,
            "seed": seed,
            "epochs": arguments.epochs,
            "device": arguments.device,
        }
        for case in arguments.cases or list_cases()
        for seed in range(arguments.seeds)
        for system in systems
        if system.adapter in pythons
    }
    here = {
        "pythons": pythons,
        "checkouts": checkouts,
        "data": str(arguments.data.resolve()),
        "work": str((arguments.out / "work").resolve()),
        "until": time.time() + arguments.deadline if arguments.deadline else None,
        "keep": arguments.keep,
    }
    run_jobs(Runner(here), jobs, arguments)
    print(write_results([arguments.out], arguments.out / RESULT, reasons))


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", nargs="+", default=["all"], help="names of adapters, or own, peer, trivial, all")
    parser.add_argument("--cases", nargs="+", help=f"patterns of {', '.join(list_cases())}")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--epochs", type=int, help="of every training, in place of what each system recommends")
    parser.add_argument("--deadline", type=float, help="seconds after which the run ends itself")
    parser.add_argument("--environment", action="append", default=[], help="NAME=PYTHON of an environment or a system")
    parser.add_argument("--checkout", action="append", default=[], help="SYSTEM=PATH of one that is on no index")
    parser.add_argument("--build", action="store_true", help="build environments that are not there")
    parser.add_argument("--keep", action="store_true", help="keep predictions (20 MB a job)")
    add_job_options(parser)
    arguments = parser.parse_args()
    if arguments.cases:  # in the order given
        found = [name for each in arguments.cases for name in list_cases() if fnmatch.fnmatch(name, each)]
        arguments.cases = list(dict.fromkeys(found))
    return arguments


class Runner:
    """Runs a job in its system's environment and judges what it predicts; can be sent to another process.

    Parameters
    ----------
    here
        What belongs to this machine and not to a job: Pythons by system, checkouts, folders, when to end.
    """

    def __init__(self, here: dict[str, Any]) -> None:
        self.here = here

    def __call__(self, job: dict[str, Any]) -> dict[str, Any]:
        """Run one job; raises `UnfinishedError` where the deadline comes first, or the system fails."""
        left = HOURS * 3600 if self.here["until"] is None else self.here["until"] - time.time()
        if left < 1:
            raise UnfinishedError("the deadline was there before it began")
        case = make_case(job["case"], Path(self.here["data"]), job["seed"])
        folder = Path(self.here["work"]) / f"{job['case']}-{job['seed']}-{Path(job['system']).stem}".replace(" ", "_")
        shutil.rmtree(folder, ignore_errors=True)
        self._train(job, case, folder, left)
        costs = json.loads((folder / "out" / "costs.json").read_text())
        try:
            variants = {variant: judge(case, folder / "out" / variant) for variant in costs["variants"]}
            result = {"costs": costs, **judge(case, folder / "out"), "variants": variants}
        except CausCellError as error:
            raise UnfinishedError(f"could not be judged: {error}") from None
        if not self.here["keep"]:
            shutil.rmtree(folder)
        return result

    def _train(self, job: dict[str, Any], case: Case, folder: Path, left: float) -> None:
        settings = {name: job[name] for name in ("seed", "epochs", "device")}
        settings |= {"out": "out", "checkout": self.here["checkouts"].get(job["system"])}
        content = case.write(folder, settings)
        (folder / "JOB.json").write_text(json.dumps(content, indent=1) + "\n")
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
        environment = os.environ | dict.fromkeys(names, "1") | {"OMP_WAIT_POLICY": "PASSIVE"}
        command = [self.here["pythons"][job["system"]], str(FOLDER / "adapter.py"), job["system"], "JOB.json"]
        with (folder / "log.txt").open("w") as log:
            try:
                done = subprocess.run(
                    command,
                    cwd=folder,
                    env=environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    timeout=left,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise UnfinishedError(f"not done within {left:.0f} s") from None
        if done.returncode:
            last = (folder / "log.txt").read_text().strip().splitlines()[-1:]
            raise UnfinishedError(f"failed: {last[0] if last else done.returncode} (see {folder / 'log.txt'})")


if __name__ == "__main__":
    main()
