"""Times of calls and of new processes, and what they were taken on."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from causcell._internal.cpus import available_cpus
from causcell._internal.versions import installed_versions

BATCH_SIZE = 256
"""Cells in a batch of the headline figures."""

MIN_REPEATS = 3
"""Fewest repeats that a figure is taken from."""


def time_calls(call: Callable[[], object], seconds: float, *, min_repeats: int = MIN_REPEATS) -> np.ndarray:
    """Time calls for a while, after one call to warm up.

    Parameters
    ----------
    call
        Function to time.
    seconds
        Time after which no further call is made, once there were enough.
    min_repeats
        Fewest repeats. Where one is enough, a first call that takes the time given is it, and none is for warming up.

    Returns
    -------
    Seconds of each call, float64 [repeats].
    """
    started = time.perf_counter()
    call()
    first = time.perf_counter() - started
    if min_repeats == 1 and first >= seconds:
        return np.array([first])
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < min_repeats or time.perf_counter() < end:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return np.array(times)


def median(times: np.ndarray | list[float]) -> float:
    """Return the median as a Python number."""
    return float(np.median(times))


def count_operations(products: Sequence[tuple[int, int]], batch: int) -> int:
    """Count the floating-point operations of the products [batch x k] by [k x n], 2 batch k n each.

    Examples
    --------
    >>> count_operations([(4, 5), (6, 7)], batch=3)
    372
    """
    return sum(2 * batch * k * n for k, n in products)


def time_starts(location: str | os.PathLike[str], provider: str | None) -> dict[str, float]:
    """Time the import of causcell, and a new process until its first batch: medians over new processes.

    Parameters
    ----------
    location, provider
        Model and provider, see `causcell.generator.Generator.open`.

    Returns
    -------
    ``import_seconds`` and ``cold_start_seconds``.
    """
    import_it = "import time; started = time.perf_counter(); import causcell; print(time.perf_counter() - started)"
    generate = (
        "import json, sys, causcell; from causcell.bench.workload import Workload\n"
        "given = json.load(sys.stdin)\n"
        "with causcell.Generator.open(given['location'], provider=given['provider']) as generator:\n"
        f"    Workload(generator).latency(generator.manifest.default_preset, {BATCH_SIZE}, 1e-9)"
    )
    given = json.dumps({"location": os.fspath(location), "provider": provider})
    imports, starts = [], []
    for _ in range(MIN_REPEATS):
        imports.append(float(run_python(import_it)))
        started = time.perf_counter()
        run_python(generate, given)
        starts.append(time.perf_counter() - started)
    return {"import_seconds": round(median(imports), 4), "cold_start_seconds": round(median(starts), 3)}


def run_python(code: str, text: str = "", environment: Mapping[str, str] | None = None) -> str:
    """Run code in a new Python process.

    Parameters
    ----------
    code
        Python code.
    text
        Standard input.
    environment
        Environment variables beside this process's own.

    Returns
    -------
    Standard output.
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=text,
        env=os.environ | dict(environment or {}),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def describe_hardware() -> dict[str, Any]:
    """Return the processor's name (``cpu``), the number of CPUs that this process may use (``cpus``) and the system."""
    names = [line.partition(":")[2].strip() for line in _cpu_lines() if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cpus": available_cpus(),
        "system": platform.system(),
    }


def list_versions() -> dict[str, str]:
    """Return the versions of causcell, NumPy, Python and, where it is installed, ONNX Runtime."""
    found = installed_versions("causcell", "numpy", "onnxruntime", "onnxruntime-gpu")
    return found | {"python": platform.python_version()}


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []
