"""Speed of a model on this machine or on a server: the figures that ``causcell bench`` measures and writes.

Engine only: from the posterior of exogenous embeddings in memory (with the reference cells' means) to expression,
through abduction, interventions, keyed noise and the network, in batches; nothing is read from or written to disk. The
keys of the results::

    presets.<name>.cells_per_second        at batch 256 and one thread
    presets.<name>.cells_per_second_threads    on all threads, with as many batches at once as they evaluate
    presets.<name>.latency.<threads>.<batch>   p50_ms, p95_ms, p99_ms, cells_per_second (by the median), repeats
    presets.<name>.split_ms                a batch of 256 at one thread: encode (from expression, not part of the rate),
                                           intervene (with abduction), noise, network, and draw: the rest of
                                           the client's loop
    network_gflops                         matrix products of one evaluation over all its time, same batch, one thread
    gemm_gflops                            the same products alone, by numpy's BLAS on the CPU
    ratio_to_gemm                          the one over the other; all three by ``_threads`` too, on as many threads as
                                           a batch gets of all
    reference_cells_per_second             the reference design (`ReferenceDesign`), one thread, scaled from a few steps
    ratio_to_reference                     cells/s of the default preset over it
    uniforms_microseconds_per_cell, normals_microseconds_per_cell   keyed numbers, one a panel gene
    import_seconds, cold_start_seconds     ``import causcell``; a new process until its first batch
    model, default_preset, batch_size, hardware, versions, threads, provider, seconds   what was measured, where, and
                                           for how long

A percentile of few repeats is near their maximum: ``repeats`` says how many there were.

Of a server, ``threads`` and ``provider`` are ``server``, whatever it has, and rates are of as many batches at once as
the connection has in flight; the figures of arithmetic and of the reference design are this machine's, and left out.
There are instead::

    server                                 Triton's own figures of the time measured, by server and model: requests,
                                           failed, executions, rows, queue_ms, compute_ms
    bytes_per_cell                         tensors of a draw, to and from the server
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from causcell._internal.cpus import available_cpus
from causcell.bench.timing import (
    BATCH_SIZE,
    MIN_REPEATS,
    describe_hardware,
    list_versions,
    median,
    time_starts,
)
from causcell.bench.workload import Workload
from causcell.engine.open import is_address
from causcell.engine.protocol import Engine
from causcell.engine.status import ModelStatistics
from causcell.errors import ConfigurationError
from causcell.generator import Generator
from causcell.repository.hub import is_hub_name, pin_revision
from causcell.repository.manifest import Manifest

if TYPE_CHECKING:
    from causcell.engine.triton.connection import Connection

BATCHES = (1, 16, 64, 256, 1024)
"""Batch sizes of the latency tables, if none are given."""

_Statistics = Mapping[str, Mapping[str, ModelStatistics]]
"""Statistics by address of the server and name of the model."""


@dataclass(frozen=True)
class _Bench:
    """Arguments of `run_bench`."""

    location: str | os.PathLike[str]
    batches: Sequence[int]
    seconds: float
    provider: str | None
    connection: Connection | None
    report: Callable[[str], None]

    def open(self, threads: int | None = None) -> Generator:
        return Generator.open(self.location, threads=threads, provider=self.provider, connection=self.connection)


def run_bench(
    location: str | os.PathLike[str],
    *,
    batches: Sequence[int] = BATCHES,
    seconds: float = 1.0,
    provider: str | None = None,
    connection: Connection | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure how fast a model generates.

    Parameters
    ----------
    location
        Folder of a model repository, its name on a hub, or address of a server.
    batches
        Batch sizes of the latency tables.
    seconds
        Time for each figure; a slow one takes as long as three repeats do.
    provider
        In process: one of `causcell.engine.providers.PROVIDERS`, ``cpu`` (if not given) or ``cuda``.
    connection
        Served: deadlines, retries and headers of requests.
    report
        Called with a line of text about each finished part.

    Returns
    -------
    The results, ready for ``json.dumps``; the docstring of `causcell.bench.measure` describes their keys.

    Raises
    ------
    ConfigurationError
        ``seconds`` or a batch size is not above 0, or an option belongs to the other kind of engine.
    RuntimeUnavailableError
        The runtime or the provider is not available.
    """
    if seconds <= 0 or not batches or min(batches) < 1:
        raise ConfigurationError(f"seconds is {seconds} and batches is {list(batches)}; take numbers above 0")
    if is_hub_name(location):
        location = pin_revision(location)  # starts are timed without asking the hub
    started = time.perf_counter()
    bench = _Bench(location, batches, seconds, provider, connection, report)
    results = _measure_server(bench) if is_address(location) else _measure_here(bench)
    return results | {
        "batch_size": BATCH_SIZE,
        "hardware": describe_hardware(),
        "versions": list_versions(),
        "seconds": round(time.perf_counter() - started, 1),
    }


def _measure_here(bench: _Bench) -> dict[str, Any]:
    threads = sorted({1, available_cpus()})
    seconds = bench.seconds
    presets: dict[str, dict[str, Any]] = {}
    results: dict[str, Any] = {"presets": presets}
    for count in threads:
        with bench.open(count) as generator:
            workload, manifest = Workload(generator), generator.manifest
            for name in manifest.presets:
                rows = workload.latency_table(name, bench.batches, seconds, f"{count} threads", bench.report)
                presets.setdefault(name, {}).setdefault("latency", {})[str(count)] = rows
            if count == 1:
                for name, preset in presets.items():
                    preset["cells_per_second"] = workload.latency(name, BATCH_SIZE, seconds)["cells_per_second"]
                    preset["split_ms"] = workload.split(name, seconds)
                results |= workload.time_keyed_numbers(seconds)
            else:
                for name, preset in presets.items():
                    preset["cells_per_second_threads"] = workload.rate(name, seconds)
            of_a_batch = max(1, count // generator.engine.concurrency)
            turns = [workload.compare_with_gemm(of_a_batch, seconds) for _ in range(MIN_REPEATS)]  # machines drift
            suffix = "" if count == 1 else "_threads"
            results |= {f"{name}{suffix}": median([turn[name] for turn in turns]) for name in turns[0]}
            [endpoint] = generator.engine.status()
    rate = presets[manifest.default_preset]["cells_per_second"]
    results["ratio_to_reference"] = round(rate / results["reference_cells_per_second"])
    bench.report(
        f"{manifest.default_preset}: {results['ratio_to_reference']:,} x the reference design; the network at "
        f"{results['network_gflops']:.0f} GFLOP/s, {results['ratio_to_gemm']:.0%} of its matrix products alone"
    )
    where = {"threads": threads, "provider": endpoint["provider"]}
    return results | time_starts(bench.location, bench.provider) | _describe_model(bench.location, manifest) | where


def _measure_server(bench: _Bench) -> dict[str, Any]:
    presets: dict[str, dict[str, Any]] = {}
    with bench.open() as generator:
        workload, manifest, engine = Workload(generator), generator.manifest, generator.engine
        before = _read_statistics(engine)
        for name in manifest.presets:
            rows = workload.latency_table(name, bench.batches, bench.seconds, "served", bench.report)
            rate = workload.rate(name, bench.seconds)
            presets[name] = {
                "cells_per_second": rate,
                "latency": {"server": rows},
                "split_ms": workload.split(name, bench.seconds),
            }
            bench.report(f"{name}, {engine.concurrency} batches at once: {rate:,.0f} cells/s at {BATCH_SIZE}")
        statistics = _subtract(_read_statistics(engine), before)
        for server, models in statistics.items():
            for name, done in models.items():
                if done["requests"]:
                    bench.report(
                        f"{server}, {name}: {done['requests']:,} requests in {done['executions']:,} executions, on "
                        f"average {done['queue_ms']} ms in the queue and {done['compute_ms']} ms at work"
                    )
        numbers = workload.time_keyed_numbers(bench.seconds)
    genes, dimensions = manifest.dimensions.genes, manifest.dimensions
    sent = (dimensions.concepts + 1) * dimensions.embedding + genes
    served = {
        "server": statistics,
        "bytes_per_cell": 4 * (sent + genes),
        "threads": "server",
        "provider": "server",
    }
    return {"presets": presets} | numbers | served | _describe_model(bench.location, manifest)


def _read_statistics(engine: Engine) -> _Statistics:
    return {endpoint["address"]: endpoint["statistics"] for endpoint in engine.status() if endpoint["ready"]}


def _subtract(after: _Statistics, before: _Statistics) -> dict[str, dict[str, ModelStatistics]]:
    """Return what was done between two readings."""
    return {
        server: {model: _subtract_model(new, before.get(server, {}).get(model)) for model, new in models.items()}
        for server, models in after.items()
    }


def _subtract_model(new: ModelStatistics, old: ModelStatistics | None) -> ModelStatistics:
    if old is None:
        return new
    requests = new["requests"] - old["requests"]

    def mean_between(new_mean: float, old_mean: float) -> float:
        return round((new_mean * new["requests"] - old_mean * old["requests"]) / max(requests, 1), 3)

    return {
        "requests": requests,
        "failed": new["failed"] - old["failed"],
        "executions": new["executions"] - old["executions"],
        "rows": new["rows"] - old["rows"],
        "queue_ms": mean_between(new["queue_ms"], old["queue_ms"]),
        "compute_ms": mean_between(new["compute_ms"], old["compute_ms"]),
    }


def _describe_model(location: str | os.PathLike[str], manifest: Manifest) -> dict[str, Any]:
    described = {"location": os.fspath(location), "digest": manifest.digest, **manifest.dimensions.model_dump()}
    return {"model": described, "default_preset": manifest.default_preset}
