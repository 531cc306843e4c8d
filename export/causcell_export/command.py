"""``causcell export`` and ``causcell demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from causcell.cli import options


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished training run.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Model repository to write.", show_default=False)],
    precision: Annotated[
        str, typer.Option(help="fp32, or fp16: the denoiser's products at half precision, for GPUs.")
    ] = "fp32",
    torchscript: Annotated[
        bool, typer.Option("--torchscript", help="Also write TorchScript, for Triton's PyTorch backend.")
    ] = False,
) -> None:
    """Export a trained run to a verified model repository."""
    from causcell.repository import open_repository
    from causcell_export.repository import export as write

    manifest = open_repository(write(run, out, precision=precision, torchscript=torchscript)).manifest
    for name, parity in manifest.parity.items():
        typer.echo(f"{name}: largest difference {parity.maximum:.1e}, mean {parity.mean:.1e}, limit {parity.limit:.0e}")
    typer.echo(f"exported and verified: {out}")


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("demo"),
    progress: options.Progress = True,
) -> None:
    """The main job on bundled real cells (700 PBMC), start to finish: train, export, verify, generate, look."""
    from causcell_export.demo import run_demo

    run_demo(out, progress=progress)
