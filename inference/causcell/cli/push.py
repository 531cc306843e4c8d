"""``causcell push``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from causcell.cli import options

if TYPE_CHECKING:
    from causcell.repository.sharing import Package


def push(
    folder: Annotated[Path, typer.Argument(help="Model repository: its folder.", show_default=False)],
    name: Annotated[str, typer.Argument(help="hf://OWNER/NAME.", show_default=False)],
    license: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Licence of the model, as hubs name it: cc-by-4.0, cc0-1.0, apache-2.0, ... Needed, but for --card.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data", metavar="TEXT", help="What the model was trained on, for the model card.", show_default=False
        ),
    ] = None,
    card: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A model card of your own, which names the licence.", show_default=False),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Open to the owner alone.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the model card and what would be sent; ask no hub.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Share a model on a Hugging Face hub, with a model card made from its manifest; others open it by its name.

    Token and hub are those of huggingface_hub: HF_TOKEN or `hf auth login`, and HF_ENDPOINT.

    Examples
    --------
    causcell push models hf://lab/kang --license cc-by-4.0 --data GSE96583
    causcell push models hf://lab/kang --license cc-by-4.0 --dry-run
    """
    from causcell.repository.sharing import prepare_push, send

    package = prepare_push(folder, name, license=license, data=data, card=card)
    if dry_run:
        _tell_dry_run(package, private, as_json)
        return
    pushed = send(package, private=private)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(pushed), indent=2))
        return
    typer.echo(f"shared {pushed.name}")
    typer.echo(f"{pushed.files} files, {pushed.size:,} bytes: {pushed.url}")
    typer.echo(f"open it anywhere: causcell inspect {package.name}")


def _tell_dry_run(package: Package, private: bool, as_json: bool) -> None:
    from causcell.repository.model_card import CARD_FILE

    files = [CARD_FILE, *package.files]
    if as_json:
        told = {
            "name": str(package.name),
            "private": private,
            "files": files,
            "size": package.size,
            "card": package.card,
        }
        typer.echo(json.dumps(told, indent=2))
        return
    typer.echo(package.card)
    to = f"{package.name}, private" if private else f"{package.name}"
    typer.echo(f"not sent: {len(files)} files, {package.size:,} bytes, to {to}", err=True)
    typer.echo("\n".join(f"  {file}" for file in files), err=True)
