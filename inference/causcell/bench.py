"""How fast a model generates on this machine: what ``causcell bench`` measures and writes.

Engine only: from the posterior of exogenous embeddings in memory (with the reference cells' means) to expression,
through abduction, interventions, keyed noise and the network, in batches; nothing is read from or written to disk. The
keys of the results::

    presets.<name>.cells_per_second        at batch 256 and one thread
    presets.<name>.latency.<threads>.<batch>   p50_ms, p95_ms, p99_ms, cells_per_second (by the median), repeats
    presets.<name>.split_ms                a batch of 256 at one thread: encode (from expression, not part of the rate),
                                           intervene (with abduction), noise, network, and draw: the rest of
                                           the client's loop
    network_gflops                         matrix products of one evaluation over all its time, same batch, one thread
    gemm_gflops                            the same products alone, by numpy's BLAS
    ratio_to_gemm                          the one over the other; all three by ``_threads`` too, on all threads
    reference_cells_per_second             the reference design (`ReferenceDesign`), one thread, scaled from a few steps
    ratio_to_reference                     cells/s of the default preset over it
    uniforms_microseconds_per_cell, normals_microseconds_per_cell   keyed numbers, one a panel gene
    import_seconds, cold_start_seconds     ``import causcell``; a new process until its first batch
    model, default_preset, batch_size, hardware, versions, threads, seconds   what was measured, where, and for how long

A percentile of few repeats is near their maximum: ``repeats`` says how many there were.

Of a server, ``threads`` are ``server``, whatever it has, and rates are of as many batches at once as the connection has
in flight; the figures of arithmetic and of the reference design are this machine's, and left out. There are instead::

    server                                 Triton's own figures of the time measured, by server and model: requests,
                                           failed, executions, rows, queue_ms, compute_ms
    bytes_per_cell                         tensors of a draw, to and from the server
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell.engine import Engine, is_address
from causcell.errors import ConfigurationError
from causcell.generator import Generator, abduct
from causcell.interventions import plan_interventions
from causcell.manifest import Manifest
from causcell.pipeline import in_order
from causcell.randomness import CellNoise, Purpose, cell_keys, normals, uniforms
from causcell.reference import ReferenceCells
from causcell.solvers import Solver

if TYPE_CHECKING:
    from causcell.triton.connection import Connection

BATCHES = (1, 16, 64, 256, 1024)
BATCH_SIZE = 256
"""Of the headline figures."""

_LEAST_REPEATS = 3


def run_bench(
    location: str | os.PathLike[str],
    *,
    batches: Sequence[int] = BATCHES,
    seconds: float = 1.0,
    connection: Connection | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure a model; the results are described above.

    Parameters
    ----------
    location
        Folder of a model repository, or address of a server.
    batches
        Batch sizes of the latency tables.
    seconds
        Time for each figure; a slow one takes as long as three repeats do.
    connection
        How to talk to a server.
    report
        Told a line about each finished part.
    """
    if seconds <= 0 or not batches or min(batches) < 1:
        raise ConfigurationError(f"seconds is {seconds} and batches are {list(batches)}; take numbers above 0")
    started = time.perf_counter()
    measure = _measure_server if is_address(location) else _measure_here
    results = measure(location, batches, seconds, connection, report)
    return results | {
        "batch_size": BATCH_SIZE,
        "hardware": hardware(),
        "versions": _versions(),
        "seconds": round(time.perf_counter() - started, 1),
    }


def _measure_here(
    location: str | os.PathLike[str],
    batches: Sequence[int],
    seconds: float,
    connection: Connection | None,
    report: Callable[[str], None],
) -> dict[str, Any]:
    threads = sorted({1, len(os.sched_getaffinity(0))})
    presets: dict[str, dict[str, Any]] = {}
    results: dict[str, Any] = {"presets": presets}
    for count in threads:
        with Generator.open(location, threads=count, connection=connection) as generator:
            workload, manifest = Workload(generator), generator.manifest
            for name in manifest.presets:
                rows = workload.latencies(name, batches, seconds, f"{count} threads", report)
                presets.setdefault(name, {}).setdefault("latency", {})[str(count)] = rows
            if count == 1:
                for name, preset in presets.items():
                    preset["cells_per_second"] = workload.latency(name, BATCH_SIZE, seconds)["cells_per_second"]
                    preset["split_ms"] = workload.split(name, seconds)
                results |= workload.keyed_numbers(seconds)
            compared = [workload.compared(count, seconds) for _ in range(_LEAST_REPEATS)]  # in turns: machines drift
            suffix = "" if count == 1 else "_threads"
            results |= {f"{name}{suffix}": _median([each[name] for each in compared]) for name in compared[0]}
    rate = presets[manifest.default_preset]["cells_per_second"]
    results["ratio_to_reference"] = round(rate / results["reference_cells_per_second"])
    report(
        f"{manifest.default_preset}: {results['ratio_to_reference']:,} x the reference design; the network at "
        f"{results['network_gflops']:.0f} GFLOP/s, {results['ratio_to_gemm']:.0%} of its matrix products alone"
    )
    return results | _start_times(location) | _model(location, manifest) | {"threads": threads}


def _measure_server(
    location: str | os.PathLike[str],
    batches: Sequence[int],
    seconds: float,
    connection: Connection | None,
    report: Callable[[str], None],
) -> dict[str, Any]:
    from causcell.triton.engine import TritonEngine

    presets: dict[str, dict[str, Any]] = {}
    with Generator.open(location, connection=connection) as generator:
        workload, manifest, engine = Workload(generator), generator.manifest, generator.engine
        assert isinstance(engine, TritonEngine)
        before = engine.statistics()
        for name in manifest.presets:
            rows = workload.latencies(name, batches, seconds, "served", report)
            rate = workload.rate(name, seconds)
            presets[name] = {
                "cells_per_second": rate,
                "latency": {"server": rows},
                "split_ms": workload.split(name, seconds),
            }
            report(f"{name}, {engine.concurrency} batches at once: {rate:,.0f} cells/s at {BATCH_SIZE}")
        statistics = _since(engine.statistics(), before)
        for server, models in statistics.items():
            for name, done in models.items():
                if done["requests"]:
                    report(
                        f"{server}, {name}: {done['requests']:,} requests in {done['executions']:,} executions, on "
                        f"average {done['queue_ms']} ms in the queue and {done['compute_ms']} ms at work"
                    )
        numbers = workload.keyed_numbers(seconds)
    genes, dimensions = manifest.dimensions.genes, manifest.dimensions
    sent = (dimensions.concepts + 1) * dimensions.embedding + genes
    served = {"server": statistics, "bytes_per_cell": 4 * (sent + genes), "threads": "server"}
    return {"presets": presets} | numbers | served | _model(location, manifest)


def _since(after: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Triton's counts of the time between; its mean times, over all that it did, are weighted out."""

    def difference(new: dict[str, float], old: dict[str, float]) -> dict[str, float]:
        counts = {name: new[name] - old.get(name, 0) for name in ("requests", "failed", "executions", "rows")}
        for name in ("queue_ms", "compute_ms"):
            total = new[name] * new["requests"] - old.get(name, 0) * old.get("requests", 0)
            counts[name] = round(total / max(counts["requests"], 1), 3)
        return counts

    return {
        server: {model: difference(figures, before.get(server, {}).get(model, {})) for model, figures in models.items()}
        for server, models in after.items()
    }


def _model(location: str | os.PathLike[str], manifest: Manifest) -> dict[str, Any]:
    described = {"location": os.fspath(location), "digest": manifest.digest, **manifest.dimensions.model_dump()}
    return {"model": described, "default_preset": manifest.default_preset}


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


def _versions() -> dict[str, str]:
    import onnxruntime

    names = {"causcell": metadata.version("causcell"), "numpy": np.__version__}
    return names | {"onnxruntime": onnxruntime.__version__, "python": platform.python_version()}


class _TimedEngine:
    """An engine that adds up the time of its runs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.manifest: Manifest = engine.manifest
        self.reference: ReferenceCells = engine.reference
        self.description = engine.description
        self.concurrency = engine.concurrency
        self.seconds = 0.0

    def run(
        self, graph: str, inputs: dict[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        started = time.perf_counter()
        found = self._engine.run(graph, inputs, outputs)
        self.seconds += time.perf_counter() - started
        return found

    def close(self) -> None:
        self._engine.close()


class Workload:
    """Counterfactuals of the reference cells: each batch is set to one label of the first concept."""

    def __init__(self, generator: Generator) -> None:
        self.engine = _TimedEngine(generator.engine)
        self.generator = Generator(self.engine)
        self.manifest = generator.manifest
        concept = self.manifest.concepts[0]
        (self.intervention,) = plan_interventions(generator.schema, {concept.name: concept.labels[0]})
        self.network = "decoder" if "decoder" in self.manifest.graphs else "sampler"

    def cells(self, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Posterior means of exogenous embeddings, labels and keys of cells."""
        reference = self.engine.reference
        rows = np.resize(np.arange(len(reference.exogenous)), count)
        keys = cell_keys(0, np.array([f"cell {i}" for i in range(count)], dtype=object))
        return reference.exogenous[rows], reference.labels[rows], keys

    def intervened(self, cells: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
        mean, labels, keys = cells
        exogenous = abduct((mean, np.zeros_like(mean)), keys)  # any variance takes the same time
        graph = self.generator.causal_graph
        endogenous = graph.factual(exogenous)["endogenous"]
        return graph.intervene(
            self.intervention, exogenous=exogenous, endogenous=endogenous, labels=labels, keys=keys
        ).endogenous

    def decoded(self, endogenous: np.ndarray, keys: np.ndarray, solver: Solver) -> np.ndarray:
        return self.generator.decode(endogenous, CellNoise(keys, self.manifest.dimensions.genes), solver)

    def solver(self, preset: str) -> Solver:
        return self.manifest.presets[preset].solver.build(self.manifest.schedule)

    def latency(self, preset: str, batch: int, seconds: float) -> dict[str, float]:
        """Percentiles of one batch's time, and cells per second by the median."""
        cells, solver = self.cells(batch), self.solver(preset)
        times = _times(lambda: self.decoded(self.intervened(cells), cells[2], solver), seconds)
        p50, p95, p99 = np.percentile(times, [50, 95, 99])
        return {
            "p50_ms": round(p50 * 1e3, 3),
            "p95_ms": round(p95 * 1e3, 3),
            "p99_ms": round(p99 * 1e3, 3),
            "cells_per_second": round(batch / p50, 1),
            "repeats": len(times),
        }

    def latencies(
        self, preset: str, batches: Sequence[int], seconds: float, where: str, report: Callable[[str], None]
    ) -> dict[str, dict[str, float]]:
        """`latency` by batch size, told of when it is done."""
        rows = {str(batch): self.latency(preset, batch, seconds) for batch in batches}
        rates = (f"{row['cells_per_second']:,.0f} at {batch}" for batch, row in rows.items())
        report(f"{preset}, {where}: cells/s {', '.join(rates)}")
        return rows

    def rate(self, preset: str, seconds: float, batch: int = BATCH_SIZE) -> float:
        """Cells per second with as many batches at once as the engine gains from."""
        cells, solver = self.cells(batch), self.solver(preset)

        def generate(_: int) -> None:
            self.decoded(self.intervened(cells), cells[2], solver)

        generate(0)
        started = time.perf_counter()
        for done, _ in enumerate(in_order(generate, itertools.count(), self.engine.concurrency), start=1):
            elapsed = time.perf_counter() - started
            if elapsed > seconds and done >= _LEAST_REPEATS:
                break
        return round(batch * done / elapsed, 1)

    def split(self, preset: str, seconds: float) -> dict[str, float]:
        """Milliseconds of each part of a batch, medians."""
        cells, solver = self.cells(BATCH_SIZE), self.solver(preset)
        keys, genes = cells[2], self.manifest.dimensions.genes
        endogenous = self.intervened(cells)
        expression = self.decoded(endogenous, keys, solver)

        def network() -> float:
            before = self.engine.seconds
            self.decoded(endogenous, keys, solver)
            return self.engine.seconds - before

        def noise() -> None:
            if solver.draw:
                for step in range(solver.steps):
                    uniforms(keys, genes, Purpose.POSTERIOR, step=step)
            for step in range(int(solver.from_noise) + np.count_nonzero(solver.table[:, 4])):
                normals(keys, genes, Purpose.STEP_NOISE, step=step)

        whole = _median(_times(lambda: self.decoded(endogenous, keys, solver), seconds))
        parts = {
            "encode": _median(_times(lambda: self.engine.run("encoder_scm", {"expression": expression}), seconds)),
            "intervene": _median(_times(lambda: self.intervened(cells), seconds)),
            "noise": _median(_times(noise, seconds)),
            "network": _median([network() for _ in range(max(_LEAST_REPEATS, int(seconds / whole)))]),
        }
        parts["draw"] = max(whole - parts["noise"] - parts["network"], 0.0)
        return {name: round(value * 1e3, 3) for name, value in parts.items()}

    def compared(self, threads: int, seconds: float) -> dict[str, float]:
        """Rates of the default graph and of its matrix products alone; at one thread of the reference design too."""
        graph = self.manifest.graphs[self.network]
        endogenous = self.intervened(self.cells(BATCH_SIZE))
        shape = (BATCH_SIZE, self.manifest.dimensions.genes)
        if self.network == "decoder":
            given = {"uniforms": np.random.default_rng(0).random(shape, dtype=np.float32)}
        else:
            row = np.array([self.manifest.schedule.timesteps - 1, 0, 1, 0, 0], dtype=np.float32)
            given = {"noise": np.zeros(shape, dtype=np.float32), "solver": np.tile(row, (BATCH_SIZE, 1, 1))}
        inputs = {"endogenous": endogenous, **given}
        elapsed = _median(_times(lambda: self.engine.run(self.network, inputs), seconds))
        rate = _flops(graph.products, BATCH_SIZE) / elapsed / 1e9
        alone = _in_own_process(graph.products, self.manifest.dimensions.genes, threads, seconds)
        return {"network_gflops": rate, "ratio_to_gemm": rate / alone["gemm_gflops"], **alone}

    def keyed_numbers(self, seconds: float) -> dict[str, float]:
        """Microseconds a cell for one number a gene."""
        keys, genes = self.cells(BATCH_SIZE)[2], self.manifest.dimensions.genes
        figures = {}
        for name, kind in (("uniforms", uniforms), ("normals", normals)):
            elapsed = _median(_times(functools.partial(kind, keys, genes, Purpose.POSTERIOR), seconds))
            figures[f"{name}_microseconds_per_cell"] = round(elapsed / BATCH_SIZE * 1e6, 3)
        return figures


def _times(call: Callable[[], object], seconds: float) -> np.ndarray:
    """Time of each call, after one to warm up, until ``seconds`` have passed."""
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < _LEAST_REPEATS or time.perf_counter() < end:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return np.array(times)


def _median(times: np.ndarray | list[float]) -> float:
    return float(np.median(times))


def _flops(products: Sequence[tuple[int, int]], batch: int) -> int:
    return sum(2 * batch * k * n for k, n in products)


# -- what it is held against, in a process of its own: numpy's threads are chosen at its import ----------------


class ReferenceDesign:
    """One step of the design that this package is not: a denoiser as wide as the panel, its attention in full.

    Two blocks of cross-attention to concept tokens (queries, keys, values, output), and GEGLU feed-forward; the time
    embedded anew at every step; the mean of x0, and fresh noise. A sample takes 1,000 of these.
    """

    STEPS = 1000
    BLOCKS = 2
    TOKENS = 4
    TOKEN = 36

    def __init__(self, genes: int) -> None:
        self._rng = np.random.default_rng(0)
        self.width = genes
        shapes = {"input": (genes, genes), "time": (genes, genes), "output": (genes, genes)}
        for block in range(self.BLOCKS):
            shapes |= {f"query{block}": (genes, genes), f"mixed{block}": (genes, genes)}
            shapes |= {f"key{block}": (self.TOKEN, genes), f"value{block}": (self.TOKEN, genes)}
            shapes |= {f"expand{block}": (genes, 4 * genes), f"contract{block}": (2 * genes, genes)}
        self._weights = {
            name: self._rng.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(shape[0]))
            for name, shape in shapes.items()
        }

    def step(self, x: np.ndarray, tokens: np.ndarray, t: int) -> np.ndarray:
        """x of the next time, [B x G], from x [B x G] and concept tokens [B x 4 x 36]."""
        w = self._weights
        angles = t * np.exp(-np.arange(self.width // 2) / self.width)
        time_ = np.resize(np.concatenate([np.sin(angles), np.cos(angles)]), self.width).astype(np.float32) @ w["time"]
        hidden = x @ w["input"] + time_
        for block in range(self.BLOCKS):
            normed = self._normed(hidden)
            query, keys = normed @ w[f"query{block}"], tokens @ w[f"key{block}"]
            scores = np.einsum("bd,bmd->bm", query, keys, optimize=True) / np.float32(np.sqrt(self.width))
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
            scores /= scores.sum(axis=1, keepdims=True)
            mixed = np.einsum("bm,bmd->bd", scores, tokens @ w[f"value{block}"], optimize=True)
            hidden = hidden + mixed @ w[f"mixed{block}"]
            value, gate = np.split(self._normed(hidden) @ w[f"expand{block}"], 2, axis=1)
            gate = gate / (1 + np.exp(np.float32(-1.702) * gate))  # GELU by its sigmoid approximation
            hidden = hidden + (value * gate) @ w[f"contract{block}"]
        x0 = self._normed(hidden) @ w["output"]
        return 0.5 * x + 0.5 * x0 + 0.1 * self._rng.standard_normal(x.shape, dtype=np.float32)

    def cells_per_second(self, seconds: float, batch: int = BATCH_SIZE) -> float:
        """Cells that 1,000 steps would take a second for, from the median of a few steps."""
        x = self._rng.standard_normal((batch, self.width), dtype=np.float32)
        tokens = self._rng.standard_normal((batch, self.TOKENS, self.TOKEN), dtype=np.float32)
        return batch / (_median(_times(lambda: self.step(x, tokens, 500), seconds)) * self.STEPS)

    @staticmethod
    def _normed(hidden: np.ndarray) -> np.ndarray:
        centred = hidden - hidden.mean(axis=1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + np.float32(1e-5))


def gemm_gflops(products: Sequence[tuple[int, int]], seconds: float, batch: int = BATCH_SIZE) -> float:
    """Rate of the products alone, each [batch x k] by [k x n], into memory that is there."""
    rng = np.random.default_rng(0)
    operands = [
        (
            rng.standard_normal((batch, k), dtype=np.float32),
            rng.standard_normal((k, n), dtype=np.float32),
            np.empty((batch, n), dtype=np.float32),
        )
        for k, n in products
    ]

    def multiply() -> None:
        for a, b, out in operands:
            np.matmul(a, b, out=out)

    return _flops(products, batch) / _median(_times(multiply, seconds)) / 1e9


def _in_own_process(products: Sequence[tuple[int, int]], genes: int, threads: int, seconds: float) -> dict[str, float]:
    given = {"products": list(products), "genes": genes, "seconds": seconds, "reference": threads == 1}
    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    done = _python("from causcell.bench import _compare; _compare()", json.dumps(given), limits)
    return json.loads(done)


def _compare() -> None:
    given = json.load(sys.stdin)
    figures = {"gemm_gflops": gemm_gflops(given["products"], given["seconds"])}
    if given["reference"]:
        figures["reference_cells_per_second"] = ReferenceDesign(given["genes"]).cells_per_second(given["seconds"])
    print(json.dumps(figures))


def _start_times(location: str | os.PathLike[str]) -> dict[str, float]:
    """Medians over three new processes."""
    code = "import time; started = time.perf_counter(); import causcell; print(time.perf_counter() - started)"
    first = (
        "import sys, causcell; from causcell.bench import Workload\n"
        "with causcell.Generator.open(sys.stdin.read()) as generator:\n"
        "    Workload(generator).latency(generator.manifest.default_preset, 256, 1e-9)"
    )
    imports, starts = [], []
    for _ in range(_LEAST_REPEATS):
        imports.append(float(_python(code, "", {})))
        started = time.perf_counter()
        _python(first, os.fspath(location), {})
        starts.append(time.perf_counter() - started)
    return {"import_seconds": round(_median(imports), 4), "cold_start_seconds": round(_median(starts), 3)}


def _python(code: str, text: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=text,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout
