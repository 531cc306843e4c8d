"""``causcell serve``."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer


def serve(
    repository: Annotated[Path, typer.Argument(help="Model repository: its folder.", show_default=False)],
    http_port: Annotated[int, typer.Option(help="0 for any free one.")] = 8000,
    grpc_port: Annotated[int, typer.Option(help="0 for any free one.")] = 8001,
    threads: Annotated[int | None, typer.Option(help="Compute threads of each model. [default: all CPUs]")] = None,
    provider: Annotated[
        str | None, typer.Option(help="Where models run: cpu or cuda. [default: cpu]", show_default=False)
    ] = None,
    log: Annotated[
        Path | None, typer.Option(help="File for the server's output. [default: a temporary one]", show_default=False)
    ] = None,
) -> None:
    """Serve a model repository by Triton on loopback, for development, until it is interrupted."""
    from causcell.serve.server import TritonServer

    with TritonServer(
        repository, http_port=http_port, grpc_port=grpc_port, threads=threads, provider=provider, log=log
    ) as server:
        typer.echo(f"serving {repository} ({server.manifest.digest[:12]}) at {server.grpc} and {server.http}")
        typer.echo(f"log in {server.log}; Ctrl-C stops")
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: server.terminate())
        status = server.wait()
    if status not in (0, -signal.SIGTERM):
        typer.echo(f"error: Triton ended with status {status}", err=True)
        raise typer.Exit(1)
