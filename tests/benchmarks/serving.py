"""Triton held against the embedded engine on this machine, and how batching and instances of the server act.

The first table is of counterfactual samples (`causcell.bench.workload.Workload`: interventions, keyed noise, a draw)
by way and batch size: one batch at a time (percentiles), and as many at once as a connection has in flight (cells/s
and their ratio to the embedded engine's). Ways take turns, several times over, so that a machine that drifts does so
for all. The second is of bare requests to the decoder from 1, 4 and 16 clients, by time in the queue and by instances.

    python tests/benchmarks/serving.py model_repository --out serving.json      (also writes serving.md)
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from causcell.bench.timing import describe_hardware, time_calls
from causcell.bench.workload import Workload
from causcell.engine.triton.connection import Connection
from causcell.engine.triton.engine import TritonEngine
from causcell.generator import Generator
from causcell.serve.server import TritonServer

BATCHES = (1, 16, 64, 256, 1024)
DELAYS = (0, 100, 500)
INSTANCES = (1, 2)
CLIENTS = (1, 4, 16)
REQUESTS = (16, 256)
ROUNDS = 4
WAYS = {
    "HTTP": ("http", Connection(shared_memory=False)),
    "gRPC": ("grpc", Connection(shared_memory=False)),
    "gRPC, shared memory": ("grpc", Connection()),
}
EMBEDDED = "embedded"


def main() -> None:
    """Measure both tables, print and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="file to write, .json")
    parser.add_argument("--preset", default="draw")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure")
    parser.add_argument(
        "--threads", type=int, default=1, help="compute threads, of the server and of the embedded engine"
    )
    arguments = parser.parse_args()
    results: dict[str, Any] = {
        "ways": compare(arguments.repository, arguments.preset, arguments.threads, arguments.seconds),
        "batching": tune(arguments.repository, arguments.threads, arguments.seconds),
        "threads": arguments.threads,
        "hardware": describe_hardware(),
        "versions": {name: metadata.version(name) for name in ("causcell", "onnxruntime", "tritonclient", "grpcio")},
    }
    where = f"{results['hardware']['cpu']}, {results['hardware']['cpus']} CPUs; {results['threads']} compute threads; "
    where += ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    tables = f"{where}\n\n{ways_table(results['ways'])}\n{batching_table(results['batching'])}"
    arguments.out.write_text(json.dumps(results, indent=2) + "\n")
    arguments.out.with_suffix(".md").write_text(tables)
    print(tables)


# -- ways --------------------------------------------------------------------------------------------------------------


def compare(repository: Path, preset: str, threads: int, seconds: float) -> dict[str, dict[str, dict[str, float]]]:
    """Measure every way at every batch size; figures by both."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(TritonServer(repository, threads=threads))
        open_one = Generator.open
        generators = {EMBEDDED: stack.enter_context(open_one(repository, threads=threads))}
        for way, (protocol, connection) in WAYS.items():
            generators[way] = stack.enter_context(open_one(getattr(server, protocol), connection=connection))
        workloads = {way: Workload(generator) for way, generator in generators.items()}
        found: dict[str, dict[str, dict[str, float]]] = {way: {} for way in workloads}
        for batch in BATCHES:
            times: dict[str, list[float]] = {way: [] for way in workloads}
            rates: dict[str, list[float]] = {way: [] for way in workloads}
            for _ in range(ROUNDS):
                for way, workload in workloads.items():
                    times[way] += one_at_a_time(workload, preset, batch, seconds / ROUNDS)
                    rates[way].append(workload.rate(preset, seconds / ROUNDS, batch))
            for way in workloads:
                p50, p95, p99 = map(float, np.percentile(times[way], [50, 95, 99]))
                found[way][str(batch)] = {
                    "p50_ms": round(p50 * 1e3, 3),
                    "p95_ms": round(p95 * 1e3, 3),
                    "p99_ms": round(p99 * 1e3, 3),
                    "cells_per_second_alone": round(batch / p50, 1),
                    "cells_per_second": round(float(np.median(rates[way])), 1),
                    "ratio": round(float(np.median(np.array(rates[way]) / rates[EMBEDDED])), 3),
                    "bytes_per_cell": round(bytes_per_cell(workloads[way], preset, batch)),
                    "repeats": len(times[way]),
                }
                print(way, batch, found[way][str(batch)], flush=True)
    return found


def one_at_a_time(workload: Workload, preset: str, batch: int, seconds: float) -> list[float]:
    """Time batches one after the other, after one that is not counted; seconds of each."""
    cells, solver = workload.take_cells(batch), workload.build_solver(preset)
    return time_calls(lambda: workload.generate(cells, solver), seconds).tolist()


def bytes_per_cell(workload: Workload, preset: str, batch: int) -> float:
    """Count the bytes of the tensors that go to the engine and come back, whichever way they take."""
    cells, solver = workload.take_cells(batch), workload.build_solver(preset)
    workload.generate(cells, solver)  # embeds the reference cells, once
    before = workload.engine.bytes
    workload.generate(cells, solver)
    return (workload.engine.bytes - before) / batch


# -- batching ----------------------------------------------------------------------------------------------------------


def tune(repository: Path, threads: int, seconds: float) -> list[dict[str, float]]:
    """Measure requests of 16 and of 256 cells by instances, queue delay and clients; servers take turns."""
    with contextlib.ExitStack() as stack:
        servers = {}
        for setting in itertools.product(INSTANCES, DELAYS):
            folder = stack.enter_context(retuned(repository, *setting))
            servers[setting] = stack.enter_context(TritonServer(folder, threads=threads, verify=False))
        rows = []
        for batch, clients in itertools.product(REQUESTS, CLIENTS):
            found: dict[tuple[int, int], list[dict[str, float]]] = {setting: [] for setting in servers}
            for _ in range(ROUNDS):
                for setting, server in servers.items():
                    found[setting].append(load(server, clients, batch, seconds / ROUNDS))
            for (instances, delay), turns in found.items():
                medians = {name: round(float(np.median([turn[name] for turn in turns])), 2) for name in turns[0]}
                rows.append({"batch": batch, "clients": clients, "instances": instances, "delay_us": delay} | medians)
                print(rows[-1], flush=True)
    return rows


@contextlib.contextmanager
def retuned(repository: Path, instances: int, delay: int) -> Iterator[Path]:
    """Copy a repository, and give its decoder another queue delay (microseconds) and number of instances."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(shutil.copytree(repository, Path(scratch) / "models"))
        path = folder / "decoder" / "config.pbtxt"
        config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
        config.dynamic_batching.max_queue_delay_microseconds = delay
        config.instance_group[0].count = instances
        path.write_text(text_format.MessageToString(config))
        yield folder


def load(server: TritonServer, clients: int, batch: int, seconds: float) -> dict[str, float]:
    """Measure clients that ask the decoder again as soon as they are answered."""
    with contextlib.closing(TritonEngine(server.grpc, Connection(in_flight=clients))) as engine:
        dimensions = engine.manifest.dimensions
        rng = np.random.default_rng(0)
        inputs = {
            "endogenous": np.resize(engine.reference.exogenous, (batch, dimensions.concepts + 1, dimensions.embedding)),
            "uniforms": rng.random((batch, dimensions.genes), dtype=np.float32),
        }

        def client(_: int) -> list[float]:
            return time_calls(lambda: engine.run("decoder", inputs, ("expression",)), seconds).tolist()

        before = engine.statistics()[server.grpc]["decoder"]
        with ThreadPoolExecutor(clients) as pool:
            times = np.array([each for found in pool.map(client, range(clients)) for each in found])
        after = engine.statistics()[server.grpc]["decoder"]
    p50, p99 = map(float, np.percentile(times, [50, 99]))
    executions = after["executions"] - before["executions"]
    return {
        "cells_per_second": round(clients * batch / float(times.mean()), 1),
        "p50_ms": round(p50 * 1e3, 3),
        "p99_ms": round(p99 * 1e3, 3),
        "requests_per_execution": round((after["requests"] - before["requests"]) / executions, 2),
    }


# -- tables ------------------------------------------------------------------------------------------------------------


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table in Markdown."""
    return "".join(f"| {' | '.join(row)} |\n" for row in (columns, ["---"] * len(columns), *rows))


def ways_table(ways: dict[str, dict[str, dict[str, float]]]) -> str:
    columns = ["way", "batch", "p50 ms", "p95 ms", "p99 ms", "cells/s", "of embedded", "bytes a cell"]
    rows = [
        [
            way,
            batch,
            *(f"{row[key]:.2f}" for key in ("p50_ms", "p95_ms", "p99_ms")),
            f"{row['cells_per_second']:,.0f}",
            f"{row['ratio']:.2f}",
            f"{row['bytes_per_cell']:,}" if way != EMBEDDED else "",
        ]
        for batch in map(str, BATCHES)
        for way, figures in ways.items()
        for row in [figures[batch]]
    ]
    return table(columns, rows)


def batching_table(rows: list[dict[str, float]]) -> str:
    columns = [
        "cells a request",
        "clients",
        "instances",
        "queue delay µs",
        "cells/s",
        "p50 ms",
        "p99 ms",
        "requests a batch",
    ]
    return table(
        columns,
        [
            [
                *(str(row[key]) for key in ("batch", "clients", "instances", "delay_us")),
                f"{row['cells_per_second']:,.0f}",
                f"{row['p50_ms']:.2f}",
                f"{row['p99_ms']:.2f}",
                f"{row['requests_per_execution']:.2f}",
            ]
            for row in rows
        ],
    )


if __name__ == "__main__":
    main()
