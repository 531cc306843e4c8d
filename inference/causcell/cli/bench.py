"""``causcell bench``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from causcell.cli import options


def bench(
    location: options.Location,
    out: Annotated[Path, typer.Option(help="File to write, .json.", show_default=False)],
    batch: Annotated[
        list[int] | None, typer.Option(help="Batch size; repeat. [default: 1, 16, 64, 256, 1024]", show_default=False)
    ] = None,
    seconds: Annotated[float, typer.Option(help="Time for each figure.")] = 1.0,
    provider: options.Provider = None,
    connection: options.ConnectionFile = None,
) -> None:
    """Measure how fast a model generates here or on a server: rates, latencies, and what they are held against.

    Examples
    --------
    causcell bench models --out bench.json
    causcell bench grpc://localhost:8001 --out served.json
    """
    from causcell._internal.files import local_path, new_file, refuse_existing
    from causcell.bench.measure import BATCHES, run_bench

    out = local_path(out)
    refuse_existing(out)
    results = run_bench(
        location,
        batches=batch or BATCHES,
        seconds=seconds,
        provider=provider,
        connection=options.read_connection(connection),
        report=typer.echo,
    )
    with new_file(out) as file:
        file.write_text(json.dumps(results, indent=2) + "\n")
    typer.echo(f"{results['seconds']:.0f} s on {results['hardware']['cpu']}: {out}")
