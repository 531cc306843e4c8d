"""``causcell evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from causcell.cli import options


def evaluate(
    data: options.Data,
    models: options.Models,
    out: Annotated[Path, typer.Option(help="Folder for report.json and report.html.", show_default=False)],
    finer: Annotated[
        list[str] | None,
        typer.Option(help="Column of obs with labels that were not trained, to compare clusters with; repeat."),
    ] = None,
    replicate: Annotated[
        str | None,
        typer.Option(
            help="Column of obs whose labels are independent (donors): intervals of effects are over them, not cells."
        ),
    ] = None,
    expression: options.Expression = None,
    layer: options.Layer = None,
    raw: options.Raw = False,
    totals: options.Totals = None,
    round_counts: options.RoundCounts = False,
    allow_missing_genes: options.MissingGenes = 0.0,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 256,
    threads: options.Threads = None,
    provider: options.Provider = None,
    connection: options.ConnectionFile = None,
    progress: options.Progress = True,
) -> None:
    """Measure a trained model on cells that it was not trained on, beside trivial baselines and ceilings."""
    from causcell._internal.files import local_path, refuse_existing
    from causcell.cli.tables import format_report
    from causcell.evaluation.evaluate import evaluate as measure
    from causcell.evaluation.report import run_environment, write_report
    from causcell.generator import Generator

    out = local_path(out)
    refuse_existing(out)
    link = options.read_connection(connection)
    with Generator.open(
        models, threads=threads, provider=provider, batch_size=batch_size, connection=link
    ) as generator:
        evaluation = measure(
            data,
            generator,
            finer=finer or (),
            scale=expression,
            layer=layer,
            raw=raw,
            totals=totals,
            round_counts=round_counts,
            allow_missing_genes=allow_missing_genes,
            replicate=replicate,
            seed=seed,
            report=(lambda name: typer.echo(f"measuring {name}", err=True)) if progress else None,
        )
    facts, title = run_environment() | evaluation.facts, f"Evaluation of {models} on {data.name}"
    write_report(out, title, facts, evaluation.tables, evaluation.verdicts)
    typer.echo("\n".join(format_report(evaluation.tables, evaluation.verdicts)))
    cells = evaluation.facts["cells"]
    typer.echo(
        f"{cells['judged']} of {cells['given']} cells judged, "
        f"{cells['left out, as the model was trained on them']} left out that the model was trained on: {out}"
    )
