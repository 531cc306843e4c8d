"""``causcell evaluate``."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from causcell._internal.waiting import compute_on_one_thread
from causcell.cli import options
from causcell.cli.folding import say


def evaluate(
    data: options.Data,
    out: Annotated[Path, typer.Option(help="Folder for report.json and report.html.", show_default=False)],
    models: options.ModelsOrNone = None,
    predictions: Annotated[
        list[Path] | None,
        typer.Option(
            help="In place of a model: cells that any method predicted, .h5ad or .zarr, each row with source_cell and "
            "intervention in obs, as in an atlas; repeat, for samples and mean estimates of one method.",
            show_default=False,
        ),
    ] = None,
    concepts: options.Concepts = None,
    edges: options.Edges = None,
    split: Annotated[
        Path | None,
        typer.Option(help="Of predictions: CSV file, columns cell and split: what the method was trained on."),
    ] = None,
    part: Annotated[
        str | None, typer.Option(help="Of predictions: column of obs of the cells with the parts, in place of --split.")
    ] = None,
    estimate: Annotated[
        str | None,
        typer.Option(help="Of predictions that do not say: their rows are a sample of a cell, or a mean estimate."),
    ] = None,
    predictions_expression: Annotated[
        str | None, typer.Option(help="Of predictions: log1p or counts. They are checked. [default: log1p]")
    ] = None,
    predictions_totals: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Of predicted counts: column of their obs with each row's total of counts."
        ),
    ] = None,
    predictions_layer: Annotated[
        str | None, typer.Option(help="Of predictions: read this layer in place of X.")
    ] = None,
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
    scorer: Annotated[
        str | None,
        typer.Option(help="Have the field's scorer measure the same effects, too: cell-eval2 (causcell[scorer])."),
    ] = None,
    maps: Annotated[
        str,
        typer.Option(
            metavar="umap|pca|none", help="Plane of the figures of cells under interventions; a UMAP takes seconds."
        ),
    ] = "umap",
    fail_below: Annotated[
        float | None,
        typer.Option(
            help="End with status 3 if the concepts' mean score is below this (0: trivial, 1: a replicate), or if no "
            "concept can be judged.",
            show_default=False,
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
    r"""Measure a model, or any method's predictions, on cells it was not trained on, beside baselines and ceilings.

    Examples
    --------
    causcell evaluate cells.h5ad --models models --out report
    causcell evaluate cells.h5ad --predictions scgen.h5ad --estimate mean \
        --concept stim --concept type --split split.csv --out report
    """
    compute_on_one_thread()
    from causcell._internal.choices import check_choice
    from causcell._internal.files import local_path, refuse_existing
    from causcell._internal.stages import show_stages
    from causcell.cli.tables import format_report
    from causcell.evaluation.cell_maps import MAP_KINDS
    from causcell.evaluation.evaluate import evaluate as measure
    from causcell.evaluation.prediction_data import Method
    from causcell.evaluation.predictions import PredictionReading
    from causcell.evaluation.report import run_environment, write_report
    from causcell.evaluation.scorer import check_scorer
    from causcell.evaluation.verdicts import mean_score
    from causcell.generator import Generator

    out = local_path(out)
    refuse_existing(out)
    plane = check_choice(maps, MAP_KINDS, "maps")
    if scorer is not None:
        check_scorer(scorer)
    link = options.read_connection(connection)
    method = Method(concepts or (), edges or (), split, part)
    how = PredictionReading(estimate, predictions_expression or "log1p", predictions_totals, predictions_layer)
    with ExitStack() as opened:
        generator = None
        if models is not None:
            generator = opened.enter_context(
                Generator.open(models, threads=threads, provider=provider, batch_size=batch_size, connection=link)
            )
        tell = opened.enter_context(show_stages(progress))
        evaluation = measure(
            data,
            generator,
            predictions=predictions or None,
            method=method if predictions or method != Method(()) else None,
            reading=how if predictions or how != PredictionReading() else None,
            finer=finer or (),
            scale=expression,
            layer=layer,
            raw=raw,
            totals=totals,
            round_counts=round_counts,
            allow_missing_genes=allow_missing_genes,
            replicate=replicate,
            scorer=scorer,
            maps=plane,
            seed=seed,
            report=lambda name: tell(f"measuring {name}"),
        )
    judged = models or ", ".join(map(str, predictions or ()))
    facts, title = run_environment() | evaluation.facts, f"Evaluation of {judged} on {data.name}"
    write_report(out, title, facts, evaluation.tables, evaluation.verdicts, evaluation.maps)
    say("\n".join(format_report(evaluation.tables, evaluation.verdicts)))
    _say_what_was_judged(evaluation.facts, "model" if predictions is None else "method", out)
    if fail_below is not None:
        _exit_if_below(mean_score(evaluation.verdicts), fail_below)


def _say_what_was_judged(facts: Mapping[str, Any], by: str, out: Path) -> None:
    """Say what could not be answered, and how many cells were judged, by a model or method, and left out."""
    from causcell.evaluation.data import JUDGED_FURTHER

    for sentence in facts.get("not answered", ()):
        say(f"not answered: {sentence}")
    cells = facts["cells"]
    trained = next(count for name, count in cells.items() if name.endswith("was trained on them"))
    added = cells.get(JUDGED_FURTHER, 0)
    typer.echo(
        f"{cells['judged']} of {cells['given']} cells judged"
        + (f" (and {added} of rare labels, for effects alone)" if added else "")
        + f", {trained} left out that the {by} was trained on: {out}"
    )


def _exit_if_below(score: float | None, least: float) -> None:
    """End with status 3 if the concepts' mean score is below the least that was asked for, or there is none."""
    if score is None or score < least:
        found = "no concept could be judged" if score is None else f"the concepts' mean score is {score:.2f}"
        typer.echo(f"below --fail-below {least:g}: {found}", err=True)
        raise typer.Exit(3)
