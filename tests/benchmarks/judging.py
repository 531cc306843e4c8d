"""How long judging takes: a model's export, and ``causcell evaluate``, by this code and by older code, in turns.

    python tests/benchmarks/judging.py RUN CELLS.h5ad --old 7fd07d9 --repeats 3 --out judging.json

RUN is the folder of a training run. Every repeat exports it and evaluates the exported model on the cells, once by the
code of the git commit ``--old``, laid down in a scratch folder, and once by this checkout; each in a process of its
own, with one thread. CPU seconds are of the process and its children; ratios are of one repeat's two runs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from causcell.bench.timing import describe_hardware, list_versions

CHECKOUT = Path(__file__).parents[2]
PACKAGES = ("inference", "training", "export")


def main() -> None:
    """Parse, measure in turns, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("cells", type=Path)
    parser.add_argument("--old", required=True, help="git commit of the code to compare with")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        codes = {"old": lay_down(arguments.old, scratch / "code"), "new": CHECKOUT}
        rows = []
        for repeat in range(arguments.repeats):
            for code, root in codes.items():
                for step, seconds in judge(root, arguments.run, arguments.cells, scratch / f"{repeat}-{code}").items():
                    rows.append({"repeat": repeat, "code": code, "step": step, "cpu_seconds": round(seconds, 2)})
                    print(rows[-1], flush=True)
    result = {
        "old": arguments.old,
        "threads": 1,
        "hardware": describe_hardware(),
        "versions": list_versions(),
        "ratios": {step: ratios(rows, step) for step in ("export", "evaluate")},
        "rows": rows,
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["ratios"], indent=1))


def lay_down(commit: str, folder: Path) -> Path:
    """Lay the packages of a commit down in a folder."""
    folder.mkdir()
    archive = subprocess.run(["git", "archive", commit, *PACKAGES], cwd=CHECKOUT, check=True, capture_output=True)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


def judge(code: Path, run: Path, cells: Path, out: Path) -> dict[str, float]:
    """Export and evaluate by the code in a folder: CPU seconds by step."""
    out.mkdir()
    steps = {
        "export": ["export", str(run), "--out", str(out / "models")],
        "evaluate": ["evaluate", str(cells), "--models", str(out / "models"), "--out", str(out / "report")],
    }
    paths = os.pathsep.join(str(code / package) for package in PACKAGES)
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    seconds = {}
    for step, words in steps.items():
        before = cpu_seconds_of_children()
        command = [sys.executable, "-m", "causcell", *words]
        subprocess.run(command, env=environment, cwd=out, check=True, capture_output=True)
        seconds[step] = cpu_seconds_of_children() - before
    return seconds


def cpu_seconds_of_children() -> float:
    """Return the CPU seconds of all processes that ended below this one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def ratios(rows: list[dict[str, Any]], step: str) -> dict[str, Any]:
    """Return old over new CPU seconds of a step: median, and of every repeat; and the medians of both."""
    by_code = {
        code: [row["cpu_seconds"] for row in rows if row["step"] == step and row["code"] == code]
        for code in ("old", "new")
    }
    each = [old / new for old, new in zip(by_code["old"], by_code["new"], strict=True)]
    return {
        "median": round(statistics.median(each), 2),
        "each": [round(ratio, 2) for ratio in each],
        **{f"{code}_cpu_seconds": statistics.median(seconds) for code, seconds in by_code.items()},
    }


if __name__ == "__main__":
    main()
