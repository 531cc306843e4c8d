"""``causcell check``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from causcell.cli import options
from causcell.cli.folding import say


def check(
    data: options.Data,
    concept: options.Concepts = None,
    edge: options.Edges = None,
    label_features: options.LabelFeatures = None,
    set_control: options.SetControl = None,
    expression: Annotated[
        str | None, typer.Option(help="What the values are: counts or log1p. [default: told by the values]")
    ] = None,
    genes: options.Genes = None,
    batch_key: options.BatchKey = None,
    include_genes: options.IncludeGenes = None,
    layer: options.Layer = None,
    raw: options.Raw = False,
    as_json: options.AsJson = False,
) -> None:
    """Check labels, concepts, graph and values before training: what a model could learn, and what it could not.

    Examples
    --------
    causcell check cells.h5ad --concept stim --concept donor
    causcell check cells.h5ad --concept donor --concept type --edge donor:type
    """
    from causcell.cells.check import check as check_cells

    report = check_cells(
        data,
        concept or (),
        edge or (),
        label_features=label_features or (),
        set_control=set_control or (),
        expression=expression,
        layer=layer,
        raw=raw,
        genes=2000 if genes is None else options.read_genes(genes),
        batch_key=batch_key,
        include_genes=include_genes or (),
    )
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=1))
    else:
        say(str(report))
    if report.errors:
        raise typer.Exit(2)
