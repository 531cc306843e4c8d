"""Times of calls and processes, and the hardware they were taken on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

BATCH_SIZE = 256
"""Of the headline figures."""

MIN_REPEATS = 3


def hardware() -> dict[str, Any]:
    """Processor, CPUs that this process may use, system."""
    names = [line.partition(":")[2].strip() for line in _cpu_lines() if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "system": platform.system(),
    }


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []


def bench_versions() -> dict[str, str]:
    import onnxruntime

    names = {"causcell": metadata.version("causcell"), "numpy": np.__version__}
    return names | {"onnxruntime": onnxruntime.__version__, "python": platform.python_version()}


def time_calls(call: Callable[[], object], seconds: float) -> np.ndarray:
    """Time of each call, after one to warm up, until ``seconds`` have passed."""
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < MIN_REPEATS or time.perf_counter() < end:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return np.array(times)


def median(times: np.ndarray | list[float]) -> float:
    return float(np.median(times))


def count_operations(products: Sequence[tuple[int, int]], batch: int) -> int:
    return sum(2 * batch * k * n for k, n in products)


def start_times(location: str | os.PathLike[str]) -> dict[str, float]:
    """Medians over three new processes."""
    code = "import time; started = time.perf_counter(); import causcell; print(time.perf_counter() - started)"
    first = (
        "import sys, causcell; from causcell.bench.measure import Workload\n"
        "with causcell.Generator.open(sys.stdin.read()) as generator:\n"
        "    Workload(generator).latency(generator.manifest.default_preset, 256, 1e-9)"
    )
    imports, starts = [], []
    for _ in range(MIN_REPEATS):
        imports.append(float(run_python(code, "", {})))
        started = time.perf_counter()
        run_python(first, os.fspath(location), {})
        starts.append(time.perf_counter() - started)
    return {"import_seconds": round(median(imports), 4), "cold_start_seconds": round(median(starts), 3)}


def run_python(code: str, text: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=text,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout
