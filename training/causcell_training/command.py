"""The command ``causcell train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from causcell._deprecation import moved_names
from causcell.cli import options
from causcell.cli.flags import name_flags
from causcell.errors import format_list

__getattr__ = moved_names(__name__, ["causcell.cli.evaluate"])


def _print_settings(asked: bool) -> None:
    if asked:
        from causcell_training.settings import format_settings

        typer.echo(format_settings())
        raise typer.Exit


def train(
    data: options.Files,
    out: Annotated[Path, typer.Option(help="Folder of the run.", show_default=False)],
    start_from: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Folder of a finished run whose model learns these cells too: new labels, more cells. It decides "
            "concepts, edges, genes and networks.",
            show_default=False,
        ),
    ] = None,
    concept: options.Concepts = None,
    edge: options.Edges = None,
    label_features: options.LabelFeatures = None,
    set_control: options.SetControl = None,
    expression: Annotated[
        str | None, typer.Option(help="What the values are: counts or log1p. They are checked. [default: counts]")
    ] = None,
    genes: options.Genes = None,
    gene_selection: options.GeneSelection = None,
    batch_key: options.BatchKey = None,
    include_genes: options.IncludeGenes = None,
    layer: options.Layer = None,
    raw: options.Raw = False,
    totals: options.Totals = None,
    round_counts: options.RoundCounts = False,
    cache: options.Cache = "auto",
    freeze: Annotated[
        list[str] | None,
        typer.Option(
            metavar="encoder|decoder|graph|none",
            help="With --from: a part whose weights stay as they are; repeat. [default: encoder]",
            show_default=False,
        ),
    ] = None,
    replay: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="With --from: share of a batch that the run's own model decodes in place of the cells it was trained "
            "on. [default: 0.5]",
        ),
    ] = None,
    allow_missing_genes: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="With --from: share of the panel, and of a cell's total, that may be missing."
        ),
    ] = None,
    devices: Annotated[
        int | None, typer.Option(help="GPUs, or processes on CPUs, that share out each batch. [default: 1]")
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            metavar="ddp_spawn|ddp_fork",
            help="With --devices: start their processes anew, or (on CPUs) as copies. [default: ddp_spawn]",
            show_default=False,
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings; flags go before it.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any setting: SECTION.KEY=VALUE, such as objective.adversary=0.2; repeat."),
    ] = None,
    settings: Annotated[
        bool,
        typer.Option(
            "--settings",
            help="List every setting with its default, what it may be and what it does.",
            callback=_print_settings,
            is_eager=True,
        ),
    ] = False,
    split: Annotated[
        Path | None, typer.Option(help="CSV file, columns cell and split (train or test). [default: at random]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of all random numbers. [default: 0]")] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Continue an interrupted run; epochs, patience, accelerator and strategy may be others."
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Remove the run that is in the folder.")] = False,
    progress: options.Progress = True,
) -> None:
    """Train a model on labelled cells.

    Examples
    --------
    causcell train cells.h5ad --concept stim --concept donor --out run
    causcell train new.h5ad --from run --out run2
    """
    from causcell_training.config import load_config, parse_overrides
    from causcell_training.fitting import fit

    try:
        run = fit(
            options.name_files(data),
            out,
            start_from=start_from,
            config=load_config(config, parse_overrides(setting or [])),
            concepts=concept,
            edges=edge,
            label_features=label_features,
            set_control=set_control,
            expression=expression,
            genes=None if genes is None else options.read_genes(genes),
            gene_selection=gene_selection,
            batch_key=batch_key,
            include_genes=include_genes,
            layer=layer,
            raw=raw or None,
            totals=totals,
            round_counts=round_counts or None,
            seed=seed,
            freeze=freeze or None,
            replay=replay,
            allow_missing_genes=allow_missing_genes,
            devices=devices,
            strategy=strategy,
            split=split,
            cache=cache,
            resume=resume,
            overwrite=overwrite,
            progress=progress,
        )
    except KeyboardInterrupt as interrupt:
        if told := str(interrupt):
            interrupt.args = (name_flags(told, {"resume": "--resume", "unfinished": "causcell export --unfinished"}),)
        raise
    if descent := run.provenance.get("descends_from"):
        new = [f"{name}: {format_list(labels)}" for name, labels in descent[0]["new_labels"].items()]
        typer.echo(f"started from {start_from}; new labels: {'; '.join(new) or 'none'}")
    measures = run.provenance["held_out"]
    quality = f"; held-out mean estimate: PCC {measures['pcc']:.3f}, MSE {measures['mse']:.3f}" if measures else ""
    typer.echo(
        f"trained on {run.training_cells.count} cells x {len(run.model.preprocessing.genes)} genes, "
        f"{run.provenance['epochs']} epochs in {run.provenance['seconds']:.0f} s{quality}: {run.path}"
    )
