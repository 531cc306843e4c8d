"""``causcell serve``."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer


def serve(
    repository: Annotated[
        str, typer.Argument(help="Model repository: its folder, or its name on a hub.", show_default=False)
    ],
    http_port: Annotated[int, typer.Option(help="0 for any free one.")] = 8000,
    grpc_port: Annotated[int, typer.Option(help="0 for any free one.")] = 8001,
    threads: Annotated[
        int | None, typer.Option(help="Compute threads of each model. [default: as exported, else all CPUs]")
    ] = None,
    provider: Annotated[
        str | None, typer.Option(help="Where models run: cpu or cuda. [default: cpu]", show_default=False)
    ] = None,
    log: Annotated[
        Path | None, typer.Option(help="File for the server's output. [default: a temporary one]", show_default=False)
    ] = None,
) -> None:
    """Serve a model repository by Triton on loopback, for development, until it is interrupted.

    Ctrl-C and SIGTERM end it after the requests in flight, with exit status 0; a second one ends it at once. Nothing is
    left in shared memory. The status is 1 if Triton ends by itself.

    Examples
    --------
    causcell serve models
    causcell serve models --grpc-port 9001 --threads 4
    """
    from causcell.serve.server import TritonServer

    try:
        with (
            _interrupted_by_signals(),
            TritonServer(
                repository, http_port=http_port, grpc_port=grpc_port, threads=threads, provider=provider, log=log
            ) as server,
        ):
            typer.echo(f"serving {repository} ({server.manifest.digest[:12]}) at {server.grpc} and {server.http}")
            if server.not_served:
                typer.echo(f"not served, for want of a backend: {', '.join(server.not_served)}", err=True)
            typer.echo(f"log in {server.log}; Ctrl-C stops")
            status = server.wait()
    except KeyboardInterrupt:
        return
    typer.echo(f"error: Triton ended by itself, with status {status}", err=True)
    raise typer.Exit(1)


@contextlib.contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """Raise `KeyboardInterrupt` on SIGTERM, as on Ctrl-C: whatever is started then is ended, and cleaned up."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
