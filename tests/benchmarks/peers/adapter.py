"""Train one system on one case and write what it predicts, in that system's own environment.

    OMP_NUM_THREADS=1 ENVIRONMENT/bin/python tests/benchmarks/peers/adapter.py scvi_vae JOB.json

The adapter is the class ``Adapter`` of ``adapters/NAME.py``. What it can do is what it defines: ``mean``, ``sample``,
``counterfactual_mean``, ``counterfactual_sample``, ``embeddings``, ``size_on_disk``. Into the job's folder go
``mean.h5ad`` and ``sample.h5ad`` (rows as `causcell evaluate --predictions` reads them) and ``costs.json``. One
training may have several settings to predict by (``variants``, by name): each has files in a folder of its own. Nothing
of CausCell is imported here but by the adapters of CausCell itself.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import anndata
import numpy as np
import pandas as pd

FACTUAL = "factual"
BATCH = 256
CALLS = 5
LONGEST_CALL = 15.0
"""Seconds of a call that is timed once, in place of five times."""


@dataclass(frozen=True)
class Job:
    """What one system is to do on one case.

    Attributes
    ----------
    train, test, out
        Files of the training cells and of the cells that are asked for, and the folder for results.
    interventions
        ``{"where": {column: label, ...}, "do": {concept: label}}`` each: for which test cells, and what is set.
    concepts, edges
        Columns of ``obs``; causal edges, ``PARENT:CHILD`` each.
    strata
        The concept within whose labels effects are judged (cell type, patient, line); `None` for none.
    draws
        Samples a cell.
    seed, epochs, threads, device
        ``epochs`` is `None` for what the system recommends.
    checkout
        Path to the source of a system that is on no index.
    graph
        ``given`` or ``independent``, for systems that have a causal graph.
    data_kind
        ``transcriptome`` (a panel of one) or ``simulator``: for systems that recommend settings by it.
    """

    train: str
    test: str
    out: str
    interventions: list[dict[str, dict[str, str]]]
    concepts: list[str]
    edges: list[str] = field(default_factory=list)
    strata: str | None = None
    draws: int = 1
    seed: int = 0
    epochs: int | None = None
    threads: int = 1
    device: str = "cpu"
    checkout: str | None = None
    graph: str = "given"
    data_kind: str = "transcriptome"

    @classmethod
    def read(cls, path: Path) -> Job:
        """Read a job; its paths are relative to the file's folder."""
        content = json.loads(path.read_text())
        for name in ("train", "test", "out"):
            content[name] = str(path.parent / content[name])
        return cls(**content)


def main(name: str, path: Path) -> None:
    """Run a system's adapter on a job: fit, predict, time, write."""
    job = Job.read(path)
    out = Path(job.out)
    out.mkdir(parents=True, exist_ok=True)
    training, test = anndata.read_h5ad(job.train), anndata.read_h5ad(job.test)
    limit_threads(job.threads)
    started = time.perf_counter()
    adapter = load_adapter(name).Adapter(job)
    seconds = {"import": time.perf_counter() - started}
    print(f"{name}: {adapter.name} {adapter.version}, {training.n_obs} training cells", flush=True)
    wall, cpu = time.perf_counter(), cpu_seconds()
    adapter.fit(training)
    seconds |= {"fit": time.perf_counter() - wall, "fit, CPU": cpu_seconds() - cpu}
    memory = {"fit": peak_memory()}
    wall, cpu = time.perf_counter(), cpu_seconds()
    write_predictions(adapter, job, test, out)
    seconds |= {"predict": time.perf_counter() - wall, "predict, CPU": cpu_seconds() - cpu}
    memory["all"] = peak_memory()
    costs = {
        "name": adapter.name,
        "version": adapter.version,
        "licence": adapter.licence,
        "notes": list(adapter.notes),
        "lines": getattr(adapter, "lines", None),
        "facts": getattr(adapter, "facts", {}),
        "seconds": {key: round(value, 3) for key, value in seconds.items()},
        "peak memory, MB": {key: round(value) for key, value in memory.items()},
        "size on disk, bytes": adapter.size_on_disk() if _can(adapter, "size_on_disk") else None,
        "rates": time_calls(adapter, job, test),
        "variants": {},
        "environment": describe_environment(job),
    }
    for variant, each in (adapter.variants() if _can(adapter, "variants") else {}).items():
        write_predictions(each, job, test, out / variant)
        costs["variants"][variant] = {"name": each.name, "rates": time_calls(each, job, test)}
    (out / "costs.json").write_text(json.dumps(costs, indent=1) + "\n")
    if _can(adapter, "close"):
        adapter.close()
    print(f"{name}: {json.dumps(costs['seconds'])}", flush=True)


def load_adapter(name: str) -> ModuleType:
    """Load ``adapters/NAME.py``, or a file that is named by its path."""
    folder = Path(__file__).parent / "adapters"
    path = Path(name) if name.endswith(".py") else folder / f"{name}.py"
    if not path.exists():
        found = sorted(each.stem for each in folder.glob("*.py"))
        raise SystemExit(f"there is no adapter {name!r}; there are {', '.join(found)}")
    sys.path.insert(0, str(path.parent))  # adapters may share a file
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[path.stem] = module
    specification.loader.exec_module(module)
    return module


def write_predictions(adapter: Any, job: Job, test: anndata.AnnData, out: Path) -> None:
    """Write ``mean.h5ad`` and ``sample.h5ad`` into a folder, as far as a system can."""
    out.mkdir(parents=True, exist_ok=True)
    for estimate in ("mean", "sample"):
        predicted = predict(adapter, job, test, estimate)
        if predicted is not None:
            predicted.write_h5ad(out / f"{estimate}.h5ad", compression="lzf")


def predict(adapter: Any, job: Job, test: anndata.AnnData, estimate: str) -> anndata.AnnData | None:
    """Predict the test cells as they are, and under every intervention asked for; `None` for what a system can't."""
    blocks: list[anndata.AnnData] = []
    factual = getattr(adapter, estimate, None)
    acting = getattr(adapter, f"counterfactual_{estimate}", None)
    options = {} if estimate == "mean" else {"draws": job.draws, "seed": job.seed}
    if factual is not None:
        blocks.append(rows_of(test, FACTUAL, factual(test, **options)))
    if acting is not None:
        for intervention, cells in asked(job, test):
            text = ";".join(f"{concept}={label}" for concept, label in intervention.items())
            blocks.append(rows_of(cells, text, acting(cells, dict(intervention), **options)))
    if not blocks:
        return None
    predicted = anndata.concat(blocks)
    if factual is not None and _can(adapter, "embeddings"):
        for name, values in adapter.embeddings(test).items():
            key, width = f"X_causcell_{name}", np.asarray(values).reshape(test.n_obs, -1).shape[1]
            padded = np.full((predicted.n_obs, width), np.nan, dtype=np.float32)
            padded[: test.n_obs] = np.asarray(values).reshape(test.n_obs, -1)
            padded[test.n_obs :] = 0  # beside counterfactual rows nothing is read
            predicted.obsm[key] = padded
    predicted.uns["causcell"] = {"estimate": estimate}
    return predicted


def _can(adapter: Any, name: str) -> bool:
    return callable(getattr(adapter, name, None))


def asked(job: Job, test: anndata.AnnData) -> Iterator[tuple[dict[str, str], anndata.AnnData]]:
    """Give each intervention with the test cells that it is asked for."""
    for each in job.interventions:
        chosen = np.ones(test.n_obs, dtype=bool)
        for column, label in each["where"].items():
            chosen &= (test.obs[column].astype(str) == label).to_numpy()
        if chosen.any():
            yield each["do"], test[chosen].copy()


def rows_of(cells: anndata.AnnData, intervention: str, values: np.ndarray) -> anndata.AnnData:
    """Lay predictions out as rows: values [n x G], or of several draws [draws x n x G]; clipped at 0."""
    values = np.asarray(values, dtype=np.float32)
    values = values.reshape(-1, cells.n_obs, cells.n_vars)
    if not np.isfinite(values).all():
        raise ValueError(f"{intervention}: {int((~np.isfinite(values)).sum())} predicted values are not finite")
    draws = len(values)
    names = np.tile(cells.obs_names.to_numpy(), draws)
    draw = np.repeat(np.arange(draws), cells.n_obs)
    obs = pd.DataFrame(
        {"source_cell": names, "intervention": intervention, "draw": draw},
        index=[f"{name}|{intervention}|{i}" for name, i in zip(names, draw, strict=True)],
    )
    flat = np.maximum(values.reshape(-1, cells.n_vars), 0)
    return anndata.AnnData(flat, obs=obs, var=pd.DataFrame(index=cells.var_names))


def time_calls(adapter: Any, job: Job, test: anndata.AnnData) -> dict[str, Any]:
    """Time each call on 256 cells, warm: the median of five, in cells a CPU second and a second.

    Beside each call a product of matrices is timed, so that rates of several machines, or of a busy one, compare.
    """
    rates: dict[str, Any] = {}
    batch = repeat_cells(test)
    acted = next(asked(job, test), None)
    calls: dict[str, Callable[[], Any]] = {
        name: (lambda name=name: getattr(adapter, name)(batch)) for name in ("mean", "sample") if _can(adapter, name)
    }
    if acted is not None:
        do, cells = acted
        sources = repeat_cells(cells)
        for name in ("counterfactual_mean", "counterfactual_sample"):
            if _can(adapter, name):
                calls[name] = lambda name=name: getattr(adapter, name)(sources, dict(do))
    for name, call in calls.items():
        taken = [_time(call)]  # warms up
        if taken[0][0] < LONGEST_CALL:
            taken = [_time(call) for _ in range(CALLS)]
        wall, cpu, product = (statistics.median(each) for each in zip(*taken, strict=True))
        rates[name] = {
            "cells a CPU second": round(BATCH / max(cpu, 1e-9), 1),
            "cells a second": round(BATCH / max(wall, 1e-9), 1),
            "calls": len(taken),
            "matrix product, GFLOP a CPU second": round(product, 2),
        }
    return rates


def repeat_cells(cells: anndata.AnnData) -> anndata.AnnData:
    """Take 256 cells, the same ones again where there are fewer, each with a name of its own."""
    places = np.resize(np.arange(cells.n_obs), BATCH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # names are not unique, until they are made anew
        taken = cells[places].copy()
        taken.obs_names = [f"{name}-{place}" for place, name in enumerate(cells.obs_names[places])]
    return taken


def _time(call: Callable[[], Any]) -> tuple[float, float, float]:
    """Time a call, and a product of matrices after it: seconds, CPU seconds, GFLOP of the product a CPU second."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    call()
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    left = np.ones((512, 1024), dtype=np.float32)
    started = time.process_time()
    for _ in range(4):
        left @ left.T
    spent = time.process_time() - started
    return wall, cpu, 4 * 2 * 512 * 512 * 1024 / max(spent, 1e-9) / 1e9


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its children that ended."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def peak_memory() -> float:
    """Return the most memory that this process has had, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def limit_threads(threads: int) -> None:
    """Limit the threads of torch, where it is installed."""
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(threads)


def describe_environment(job: Job) -> dict[str, Any]:
    """Return the versions and the hardware of this run."""
    packages = ("anndata", "numpy", "scipy", "torch", "jax", "scvi-tools", "tensorflow", "scikit-learn", "onnxruntime")
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    model = [line.split(":")[1].strip() for line in _read_cpus() if line.startswith("model name")]
    return {
        "python": platform.python_version(),
        "versions": versions,
        "hardware": f"{model[0] if model else platform.machine()}, {len(os.sched_getaffinity(0))} CPUs",
        "threads": job.threads,
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "device": job.device,
    }


def _read_cpus() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]).resolve())
