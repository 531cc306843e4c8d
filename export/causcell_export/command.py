"""Commands ``causcell export``, ``causcell benchmark`` and ``causcell demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from causcell._internal.collection_pause import pause_collection
from causcell.cli import options
from causcell.cli.folding import say


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Model repository to write.", show_default=False)],
    precision: Annotated[
        str, typer.Option(help="fp32, or fp16: the denoiser's products at half precision, for GPUs.")
    ] = "fp32",
    torchscript: Annotated[
        bool, typer.Option("--torchscript", help="Also write TorchScript, for Triton's PyTorch backend.")
    ] = False,
    instances: Annotated[int, typer.Option(help="Copies of each model that a server on CPUs runs.")] = 1,
    threads_per_instance: Annotated[
        int | None,
        typer.Option(
            help="Compute threads of each copy; if not given: 1 if there are several, else as the server is told.",
            show_default=False,
        ),
    ] = None,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Export the best model so far of a run that has not finished.")
    ] = False,
    deploy: Annotated[
        bool,
        typer.Option("--deploy", help="Also write how to serve it: guide, Caddyfile, Compose, Kubernetes, Dockerfile."),
    ] = False,
    progress: options.Progress = True,
) -> None:
    """Export a trained run to a verified model repository.

    Examples
    --------
    causcell export run --out models
    causcell export run --out models --precision fp16
    """
    with pause_collection():  # imports make objects without circles, as many as take a second to search
        from causcell.cli.tables import format_verdicts
        from causcell.repository.folder import open_repository
        from causcell_export.exporter import export as write

    written = write(
        run,
        out,
        precision=precision,
        torchscript=torchscript,
        unfinished=unfinished,
        instances=instances,
        threads_per_instance=threads_per_instance,
        progress=progress,
    )
    if deploy:
        from causcell.serve.deployment import write_deployment

        write_deployment(written)
    manifest = open_repository(written).manifest
    for name, parity in manifest.parity.items():
        typer.echo(f"{name}: largest difference {parity.maximum:.1e}, mean {parity.mean:.1e}, limit {parity.limit:.0e}")
    say("\n".join(format_verdicts(manifest.verdicts)))
    typer.echo(f"exported and verified: {out}")


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("demo"),
    progress: options.Progress = True,
) -> None:
    """Run the main job on bundled real cells (700 PBMC), start to finish: train, export, verify, generate, look.

    Examples
    --------
    causcell demo
    causcell demo --out my_demo
    """
    from causcell_export.demo import run_demo

    run_demo(out, progress=progress)


def benchmark(
    data: options.Data,
    out: Annotated[Path, typer.Option(help="Folder for report.json and report.html.", show_default=False)],
    concept: options.Concepts = None,
    edge: options.Edges = None,
    folds: Annotated[int, typer.Option(help="1: a random fifth of the cells is judged; K: each once.")] = 1,
    hold_out: Annotated[
        list[str] | None,
        typer.Option(help="CONCEPT=LABEL,CONCEPT=LABEL: a combination to hold out of a training; repeat."),
    ] = None,
    choose: Annotated[int, typer.Option(help="Further combinations to hold out, chosen at random.")] = 0,
    seeds: Annotated[int, typer.Option(help="How many seeds, of splits and training.")] = 1,
    split: Annotated[
        Path | None, typer.Option(help="CSV file, columns cell and split: cells named test are judged, in every seed.")
    ] = None,
    finer: Annotated[
        list[str] | None,
        typer.Option(help="Column of obs with labels that are not trained, to compare clusters with; repeat."),
    ] = None,
    genes: options.Genes = None,
    gene_selection: options.GeneSelection = None,
    batch_key: options.BatchKey = None,
    include_genes: options.IncludeGenes = None,
    raw: options.Raw = False,
    totals: options.Totals = None,
    round_counts: options.RoundCounts = False,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings; flags go before it.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting of training: SECTION.KEY=VALUE; repeat.")
    ] = None,
    progress: options.Progress = True,
) -> None:
    r"""Train and measure over splits and seeds: in distribution, and on held-out combinations of labels.

    Examples
    --------
    causcell benchmark cells.h5ad --concept stim --concept type --out report
    causcell benchmark cells.h5ad --concept stim --concept type --out report \
        --hold-out 'stim=IFN,type=B' --seeds 3
    """
    from causcell._internal.files import local_path, refuse_existing
    from causcell._internal.stages import show_stages
    from causcell.cli.tables import format_report
    from causcell.evaluation.report import run_environment, write_report
    from causcell_export.cross_validation import run_benchmark
    from causcell_training.config import load_config, parse_overrides

    out = local_path(out)
    refuse_existing(out)
    flags: dict[str, Any] = {"concept": concept, "edge": edge, "totals": totals}
    flags |= {"genes": None if genes is None else options.read_genes(genes)}
    flags |= {"gene_selection": gene_selection, "batch_key": batch_key, "include_genes": include_genes}
    given = {name: value for name, value in flags.items() if value is not None}
    given |= {name: True for name, chosen in {"raw": raw, "round_counts": round_counts}.items() if chosen}
    with show_stages(progress) as report:
        result = run_benchmark(
            data,
            load_config(config, parse_overrides(setting or []) | given),
            folds=folds,
            hold_out=hold_out or (),
            choose=choose,
            seeds=seeds,
            split=split,
            finer=finer or (),
            report=report,
        )
    facts = run_environment() | result.facts
    write_report(out, f"Benchmark on {data.name}", facts, result.tables, result.verdicts)
    say("\n".join(format_report(result.tables, result.verdicts)))
    typer.echo(f"{len(result.facts['trainings'])} trainings: {out}")
