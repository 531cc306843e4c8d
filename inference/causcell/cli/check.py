"""``causcell check``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from causcell.cli import options


def check(
    data: options.Data,
    concept: options.Concepts = None,
    edge: options.Edges = None,
    expression: Annotated[
        str | None, typer.Option(help="What the values are: counts or log1p. [default: told by the values]")
    ] = None,
    genes: Annotated[int, typer.Option(help="Size of the panel, for the estimate of training time.")] = 2000,
    layer: options.Layer = None,
    raw: options.Raw = False,
    as_json: options.AsJson = False,
) -> None:
    """Check labels, concepts, graph and values before training: what a model could learn, and what it could not."""
    from causcell.cells.check import check as check_cells

    report = check_cells(data, concept or (), edge or (), expression=expression, layer=layer, raw=raw, genes=genes)
    typer.echo(json.dumps(report.to_dict(), indent=1) if as_json else str(report))
    if report.errors:
        raise typer.Exit(2)
