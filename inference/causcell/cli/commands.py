"""Commands of the client: inspect, embed, bench, serve."""

from __future__ import annotations

import contextlib
import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from causcell.cli import options

if TYPE_CHECKING:
    from causcell.repository.manifest import Manifest


def inspect(
    location: options.Location,
    connection: options.ConnectionFile = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what is inside a model repository, every digest checked; of a server its models and statistics too."""
    from causcell.engine.open import is_address, open_engine
    from causcell.repository.folder import open_repository

    if is_address(location):
        from causcell.engine.triton.engine import TritonEngine

        engine = open_engine(location, connection=options.read_connection(connection))
        assert isinstance(engine, TritonEngine)
        with contextlib.closing(engine):
            essentials = _essentials(engine.manifest) | {"verified": True}
            essentials |= {"servers": engine.status(), "statistics": engine.statistics()}
    else:
        manifest = open_repository(location).manifest  # raises unless every digest holds
        essentials = _essentials(manifest) | {"verified": True}
    if as_json:
        typer.echo(json.dumps(essentials, indent=2))
        return
    for name, value in essentials.items():
        if name == "presets":
            typer.echo(f"presets, measured on {essentials['held_out_cells']} held-out cells (beside real cells):")
            for line in _preset_table(value):
                typer.echo(f"  {line}")
        elif name == "servers":
            for server in value:
                version = f"ready, Triton {server['version']}" if server["ready"] else "not ready"
                typer.echo(f"server {server['address']}: {version}")
                for line in _server_table(server, essentials["statistics"]):
                    typer.echo(f"  {line}")
        elif name == "statistics":
            pass  # in the servers' tables
        elif isinstance(value, dict):
            typer.echo(f"{name}:")
            for key, each in value.items():
                typer.echo(f"  {key}: {_line(each)}")
        else:
            typer.echo(f"{name}: {_line(value)}")


def _essentials(manifest: Manifest) -> dict[str, Any]:
    fields = manifest.model_dump(mode="json")
    return {
        "digest": manifest.digest,
        "schema_version": manifest.schema_version,
        "genes": {"count": len(manifest.genes.names), "digest": manifest.genes.digest},
        "expression": {
            "scale": manifest.expression.scale,
            "target_sum": manifest.expression.target_sum,
            "normalisation_genes": len(manifest.expression.normalisation_genes),
        },
        "concepts": {concept.name: list(concept.labels) for concept in manifest.concepts},
        "edges": [f"{edge.parent}:{edge.child}" for edge in manifest.edges],
        "head": manifest.head,
        "precision": manifest.precision,
        "schedule": fields["schedule"],
        "dimensions": fields["dimensions"],
        "presets": {
            name: preset["solver"]
            | {key: value for key, value in (preset["quality"] or {}).items() if key != "cells"}
            | {"cells_per_second": manifest.speed.get(name)}
            for name, preset in fields["presets"].items()
        },
        "held_out_cells": max(int((preset.quality or {}).get("cells", 0)) for preset in manifest.presets.values()),
        "default_preset": manifest.default_preset,
        "graphs": {
            name: {"inputs": list(graph.inputs), "outputs": list(graph.outputs)}
            for name, graph in manifest.graphs.items()
        },
        "parity": fields["parity"],
        "files": len(manifest.files),
        "training_cells": manifest.training_cells.count,
        "trained": {key: manifest.provenance.get(key) for key in ("finished", "seconds", "epochs", "device")},
        "versions": manifest.versions,
    }


_COLUMNS = {
    "solver": ("solver", "{}"),
    "steps": ("steps", "{}"),
    "energy distance": ("energy_distance", "{:.3f}"),
    "correlations": ("correlations", "{:.2f}"),
    "variance ratio": ("variance_ratio", "{:.2f}"),
    "nonzero": ("nonzero", "{:.3f}"),
    "nonzero mean": ("nonzero_mean", "{:.2f}"),
    "PCC": ("pcc", "{:.3f}"),
    "MSE": ("mse", "{:.3f}"),
    "cells/s": ("cells_per_second", "{:,.0f}"),
}


def _preset_table(presets: dict[str, dict[str, Any]]) -> list[str]:
    """Lines of a table: a preset each, then what real cells have."""

    def texts(name: str, values: dict[str, Any], suffix: str = "") -> list[str]:
        found = ((values.get(f"{key}{suffix}"), form) for key, form in _COLUMNS.values())
        return [name, *("" if value is None else form.format(value) for value, form in found)]

    rows = [["", *_COLUMNS], *(texts(name, preset) for name, preset in presets.items())]
    rows.append(texts("real", next(iter(presets.values())), "_real"))
    return _aligned(rows)


_SERVED = {
    "model": "name",
    "version": "version",
    "state": "state",
    "largest batch": "max_batch_size",
    "queue delay (us)": "max_queue_delay_microseconds",
    "instances": "instances",
    "requests": "requests",
    "failed": "failed",
    "executions": "executions",
    "rows": "rows",
    "queue (ms)": "queue_ms",
    "compute (ms)": "compute_ms",
}


def _server_table(server: dict[str, Any], statistics: dict[str, Any]) -> list[str]:
    """Lines of a table: a model each, its settings, and what it did since the server started, warm-up included."""
    models = server.get("models", [])
    done = statistics.get(server["address"], {})
    rows = [[str((model | done.get(model["name"], {})).get(key, "")) for key in _SERVED.values()] for model in models]
    return _aligned([list(_SERVED), *rows]) if rows else []


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in rows]


def _line(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key} {_line(each)}" for key, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def embed(
    data: options.Data,
    models: options.Models,
    out: Annotated[Path, typer.Option(help="File to write, .h5ad.", show_default=False)],
    expression: options.Expression = None,
    layer: options.Layer = None,
    where: options.Where = None,
    allow_missing_genes: options.MissingGenes = 0.0,
    batch_size: options.BatchSize = 256,
    threads: options.Threads = None,
    connection: options.ConnectionFile = None,
    progress: options.Progress = True,
) -> None:
    """Write concept embeddings and predicted labels of cells."""
    from causcell._internal.files import refuse_existing
    from causcell.errors import ConfigurationError
    from causcell.generator import Generator

    if out.suffix != ".h5ad":
        raise ConfigurationError(f"--out {str(out)!r} does not end in .h5ad")
    refuse_existing(out)
    with Generator.open(
        models, threads=threads, batch_size=batch_size, connection=options.read_connection(connection)
    ) as generator:
        embedded = generator.embed(
            data,
            expression=expression,
            layer=layer,
            where=where,
            allow_missing_genes=allow_missing_genes,
            progress=progress,
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    embedded.write_h5ad(out)
    typer.echo(f"{embedded.n_obs} cells embedded: {out}")


def bench(
    location: options.Location,
    out: Annotated[Path, typer.Option(help="File to write, .json.", show_default=False)],
    batch: Annotated[
        list[int] | None, typer.Option(help="Batch size; repeat. [default: 1, 16, 64, 256, 1024]", show_default=False)
    ] = None,
    seconds: Annotated[float, typer.Option(help="Time for each figure.")] = 1.0,
    connection: options.ConnectionFile = None,
) -> None:
    """Measure how fast a model generates here or on a server: rates, latencies, and what they are held against."""
    from causcell._internal.files import refuse_existing
    from causcell.bench.measure import BATCHES, run_bench

    refuse_existing(out)
    results = run_bench(
        location,
        batches=batch or BATCHES,
        seconds=seconds,
        connection=options.read_connection(connection),
        report=typer.echo,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=2) + "\n")
    typer.echo(f"{results['seconds']:.0f} s on {results['hardware']['cpu']}: {out}")


def serve(
    repository: Annotated[Path, typer.Argument(help="Model repository: its folder.", show_default=False)],
    http_port: Annotated[int, typer.Option(help="0 for any free one.")] = 8000,
    grpc_port: Annotated[int, typer.Option(help="0 for any free one.")] = 8001,
    threads: Annotated[int | None, typer.Option(help="Compute threads of each model. [default: all CPUs]")] = None,
    log: Annotated[
        Path | None, typer.Option(help="File for the server's output. [default: a temporary one]", show_default=False)
    ] = None,
) -> None:
    """Serve a model repository by Triton on loopback, for development, until it is interrupted."""
    from causcell.serve.server import TritonServer

    with TritonServer(repository, http_port=http_port, grpc_port=grpc_port, threads=threads, log=log) as server:
        typer.echo(f"serving {repository} ({server.manifest.digest[:12]}) at {server.grpc} and {server.http}")
        typer.echo(f"log in {server.log}; Ctrl-C stops")
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: server.terminate())
        status = server.wait()
    if status not in (0, -signal.SIGTERM):
        typer.echo(f"error: Triton ended with status {status}", err=True)
        raise typer.Exit(1)
