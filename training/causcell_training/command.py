"""``causcell train`` and ``causcell evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from causcell.cli import options


def train(
    data: options.Data,
    out: Annotated[Path, typer.Option(help="Folder of the run.", show_default=False)],
    concept: Annotated[
        list[str] | None, typer.Option(help="Column of obs with a concept's labels; repeat.", show_default=False)
    ] = None,
    edge: Annotated[
        list[str] | None, typer.Option(help="PARENT:CHILD, a causal edge; repeat.", show_default=False)
    ] = None,
    expression: Annotated[
        str | None, typer.Option(help="What the values are: counts or log1p. They are checked. [default: counts]")
    ] = None,
    genes: Annotated[
        str | None,
        typer.Option(help="A number of highly variable genes, all, or a file with one name a line. [default: 2000]"),
    ] = None,
    layer: options.Layer = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings; flags go before it.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any setting: SECTION.KEY=VALUE, such as objective.adversary=0.2; repeat."),
    ] = None,
    split: Annotated[
        Path | None, typer.Option(help="CSV file, columns cell and split (train or test). [default: at random]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of all random numbers. [default: 0]")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    progress: options.Progress = True,
) -> None:
    """Train a model on labelled cells."""
    from causcell_training.config import load_config, parse_overrides

    flags = {
        "concept": concept,
        "edge": edge,
        "expression": expression,
        "genes": int(genes) if genes is not None and genes.removeprefix("-").isdecimal() else genes,
        "layer": layer,
        "seed": seed,
    }
    given = {name: value for name, value in flags.items() if value is not None}
    settings = load_config(config, parse_overrides(setting or []) | given)
    from causcell_training.fitting import fit

    run = fit(data, out, config=settings, split=split, resume=resume, progress=progress)
    measures = run.provenance["held_out"]
    quality = f"; held-out mean estimate: PCC {measures['pcc']:.3f}, MSE {measures['mse']:.3f}" if measures else ""
    typer.echo(
        f"trained on {run.training_cells.count} cells x {len(run.model.preprocessing.genes)} genes, "
        f"{run.provenance['epochs']} epochs in {run.provenance['seconds']:.0f} s{quality}: {run.path}"
    )


def evaluate(
    data: options.Data,
    models: options.Models,
    out: Annotated[Path, typer.Option(help="Folder for report.json and report.html.", show_default=False)],
    finer: Annotated[
        list[str] | None,
        typer.Option(help="Column of obs with labels that were not trained, to compare clusters with; repeat."),
    ] = None,
    expression: options.Expression = None,
    layer: options.Layer = None,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 256,
    threads: options.Threads = None,
    connection: options.ConnectionFile = None,
    progress: options.Progress = True,
) -> None:
    """Measure a trained model on cells that it was not trained on, beside trivial baselines and ceilings."""
    from causcell.generator import Generator
    from causcell.output import refuse_existing
    from causcell_training.evaluation.evaluate import evaluate as measured
    from causcell_training.evaluation.report import circumstances, write_report
    from causcell_training.evaluation.table import as_text

    refuse_existing(out)
    link = options.read_connection(connection)
    with Generator.open(models, threads=threads, batch_size=batch_size, connection=link) as generator:
        evaluation = measured(
            data,
            generator,
            finer=finer or (),
            scale=expression,
            layer=layer,
            seed=seed,
            report=(lambda name: typer.echo(f"measuring {name}", err=True)) if progress else None,
        )
    write_report(out, f"Evaluation of {models} on {data.name}", circumstances() | evaluation.facts, evaluation.tables)
    for table in evaluation.tables:
        typer.echo("\n".join([table.name, *(f"  {line}" for line in as_text(table)), ""]))
    cells = evaluation.facts["cells"]
    typer.echo(
        f"{cells['judged']} of {cells['given']} cells judged, "
        f"{cells['left out, as the model was trained on them']} left out that the model was trained on: {out}"
    )
