"""``causcell embed``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from causcell.cli import options


def embed(
    data: options.Data,
    models: options.Models,
    out: Annotated[Path, typer.Option(help="File to write, .h5ad.", show_default=False)],
    expression: options.Expression = None,
    layer: options.Layer = None,
    raw: options.Raw = False,
    totals: options.Totals = None,
    round_counts: options.RoundCounts = False,
    where: options.Where = None,
    allow_missing_genes: options.MissingGenes = 0.0,
    batch_size: options.BatchSize = 256,
    threads: options.Threads = None,
    provider: options.Provider = None,
    connection: options.ConnectionFile = None,
    progress: options.Progress = True,
) -> None:
    """Write concept embeddings and predicted labels of cells.

    Examples
    --------
    causcell embed cells.h5ad --models models --out embedded.h5ad
    causcell embed cells.h5ad --models models --out b.h5ad --where 'type == "B"'
    """
    from causcell._internal.files import local_path, new_file, refuse_existing
    from causcell.generator import Generator

    out = local_path(out)
    options.require_suffix(out, ".h5ad")
    refuse_existing(out)
    link = options.read_connection(connection)
    with Generator.open(
        models, threads=threads, provider=provider, batch_size=batch_size, connection=link
    ) as generator:
        embedded = generator.embed(
            data,
            expression=expression,
            layer=layer,
            raw=raw,
            totals=totals,
            round_counts=round_counts,
            where=where,
            allow_missing_genes=allow_missing_genes,
            progress=progress,
        )
    with new_file(out) as file:
        embedded.write_h5ad(file)
    typer.echo(f"{embedded.n_obs} cells embedded: {out}")
