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

import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from causcell.bench.timing import BATCH_SIZE, MIN_REPEATS, bench_versions, hardware, median, start_times
from causcell.bench.workload import Workload
from causcell.engine.open import is_address
from causcell.errors import ConfigurationError
from causcell.generator import Generator
from causcell.repository.manifest import Manifest

if TYPE_CHECKING:
    from causcell.engine.triton.connection import Connection

BATCHES = (1, 16, 64, 256, 1024)


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
        "versions": bench_versions(),
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
            compared = [workload.compared(count, seconds) for _ in range(MIN_REPEATS)]  # in turns: machines drift
            suffix = "" if count == 1 else "_threads"
            results |= {f"{name}{suffix}": median([each[name] for each in compared]) for name in compared[0]}
    rate = presets[manifest.default_preset]["cells_per_second"]
    results["ratio_to_reference"] = round(rate / results["reference_cells_per_second"])
    report(
        f"{manifest.default_preset}: {results['ratio_to_reference']:,} x the reference design; the network at "
        f"{results['network_gflops']:.0f} GFLOP/s, {results['ratio_to_gemm']:.0%} of its matrix products alone"
    )
    return results | start_times(location) | _model(location, manifest) | {"threads": threads}


def _measure_server(
    location: str | os.PathLike[str],
    batches: Sequence[int],
    seconds: float,
    connection: Connection | None,
    report: Callable[[str], None],
) -> dict[str, Any]:
    from causcell.engine.triton.engine import TritonEngine

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
