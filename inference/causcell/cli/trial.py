"""``causcell trial``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from causcell.cli import options

if TYPE_CHECKING:
    import anndata

_GENES_SHOWN = 8
_LABELS_SHOWN = 40
_SEPARATORS = {".csv": ",", ".tsv": "\t"}


def trial(
    data: options.Data,
    models: options.Models,
    out: Annotated[Path, typer.Option(help="File to write, .h5ad.", show_default=False)],
    table: Annotated[
        Path | None,
        typer.Option(
            help="With --concept: write all labels' genes as a table, too, .csv or .tsv (causcell.get.effects_df).",
            show_default=False,
        ),
    ] = None,
    concept: Annotated[
        str | None, typer.Option(help="Set every cell to each of its labels: a row a label.", show_default=False)
    ] = None,
    do: Annotated[
        list[str] | None,
        typer.Option(help="In place of --concept: CONCEPT=LABEL or =VALUE, and its effect on each cell: a row a cell."),
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="Label to compare the others with. [default: the first]")] = None,
    replicate: Annotated[
        str | None, typer.Option(help="Column of obs with independent units, such as donors. [default: cells]")
    ] = None,
    where: options.Where = None,
    mode: options.Mode = "do",
    match_parents: options.MatchParents = False,
    target: options.Target = "reference",
    draws: Annotated[int, typer.Option(help="Draws of each cell's embeddings and reference cells.")] = 8,
    fdr: Annotated[
        float | None, typer.Option(help="False discovery rate at which a gene counts as changed. [default: 0.05]")
    ] = None,
    min_effect: Annotated[
        float | None,
        typer.Option(help="Effects up to this size, on the log scale, count as none. [default: 0.1]"),
    ] = None,
    interval: options.Interval = 0.9,
    keep_obs: options.KeepObs = None,
    keep_obsm: options.KeepObsm = None,
    rate: Annotated[float | None, typer.Option(hidden=True)] = None,
    least: Annotated[float | None, typer.Option(hidden=True)] = None,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 256,
    expression: options.Expression = None,
    layer: options.Layer = None,
    raw: options.Raw = False,
    totals: options.Totals = None,
    round_counts: options.RoundCounts = False,
    allow_missing_genes: options.MissingGenes = 0.0,
    threads: options.Threads = None,
    provider: options.Provider = None,
    connection: options.ConnectionFile = None,
    progress: options.Progress = True,
) -> None:
    r"""Write effects and their uncertainty: of a concept's labels on average, as in a trial, or on each cell.

    Examples
    --------
    causcell trial cells.h5ad --models models --concept stim --baseline ctrl \
        --out effects.h5ad --table effects.csv
    causcell trial cells.h5ad --models models --do stim=IFN --out on_cells.h5ad
    """
    from causcell._internal.files import local_path, new_file, refuse_existing
    from causcell.counterfactual.interventions import parse_do
    from causcell.generator import Generator

    out, table = local_path(out), None if table is None else local_path(table)
    options.require_suffix(out, ".h5ad")
    _check_table(table, concept)
    for place in (out, table):
        if place is not None:
            refuse_existing(place)
    common: dict[str, Any] = {
        "where": where,
        "mode": mode,
        "match_parents": match_parents,
        "target": target,
        "draws": draws,
        "seed": seed,
        "interval": interval,
        "keep_obs": keep_obs,
        "keep_obsm": keep_obsm,
        "expression": expression,
        "layer": layer,
        "raw": raw,
        "totals": totals,
        "round_counts": round_counts,
        "allow_missing_genes": allow_missing_genes,
        "progress": progress,
        **_take_renamed("--fdr", fdr, "--rate", rate),
        **_take_renamed("--min-effect", min_effect, "--least", least),
    }
    link = options.read_connection(connection)
    with Generator.open(
        models, threads=threads, provider=provider, batch_size=batch_size, connection=link
    ) as generator:
        result = generator.trial(
            data, concept, parse_do(do or []) or None, baseline=baseline, replicate=replicate, **common
        )
    with new_file(out) as file:
        result.write_h5ad(file)
    if table is not None:
        _write_table(result, table)
    lines = _format_averages(result) if concept is not None else _format_cell_effects(result)
    typer.echo("\n".join([*lines, f"{result.n_obs} rows x {result.n_vars} genes: {out}"]))


def _take_renamed(flag: str, value: float | None, old_flag: str, old_value: float | None) -> dict[str, float]:
    """Return a flag's value by its argument's name, if it is given, also by its old name, of which a warning tells."""
    import warnings

    from causcell.errors import CausCellWarning, ConfigurationError

    if old_value is not None:
        if value is not None:
            raise ConfigurationError(f"{old_flag} is the old name of {flag}; give {flag} alone")
        warnings.warn(f"{old_flag} is deprecated; use {flag}", CausCellWarning, stacklevel=2)
        value = old_value
    return {} if value is None else {flag.removeprefix("--").replace("-", "_"): value}


def _check_table(table: Path | None, concept: str | None) -> None:
    from causcell.errors import ConfigurationError

    if table is None:
        return
    if table.suffix not in _SEPARATORS:
        raise ConfigurationError(f"table={str(table)!r} ends neither in .csv nor in .tsv")
    if concept is None:
        raise ConfigurationError("table= belongs to concept=; effects on each cell (do=) are matrices, in out= alone")


def _write_table(trial: anndata.AnnData, path: Path) -> None:
    """Write the genes of all labels but the baseline, always with the column of their group."""
    from causcell._internal.files import new_file
    from causcell.get import effects_df

    genes = effects_df(trial)
    if "group" not in genes:
        (label,) = (name for name in trial.obs_names if name != trial.uns["causcell"]["trial"]["baseline"])
        genes.insert(0, "group", label)
    with new_file(path) as file:
        genes.to_csv(file, sep=_SEPARATORS[path.suffix], index=False)


def _format_averages(trial: anndata.AnnData) -> list[str]:
    """Format for each label the number of genes changed, and those (if none: of all) that change most."""
    import numpy as np

    settings = trial.uns["causcell"]["trial"]
    lines = [f"{settings['cells']} cells, {settings['units']} independent units ({settings['replicate']})"]
    others = [row for row, label in enumerate(trial.obs_names) if label != settings["baseline"]]
    strength = abs(trial.layers["effect"]).sum(axis=1)
    shown = sorted(sorted(others, key=lambda row: -strength[row])[:_LABELS_SHOWN])
    for row in shown:
        label = trial.obs_names[row]
        effect, lower, upper, changed = (trial.layers[name][row] for name in ("effect", "lower", "upper", "changed"))
        count = int(changed.sum())
        order = (-abs(effect * (changed if count else 1))).argsort()[: min(_GENES_SHOWN, count or _GENES_SHOWN)]
        genes = ", ".join(
            f"{trial.var_names[i]} {effect[i]:+.2f}"
            + ("" if np.isnan(lower[i]) else f" [{lower[i]:+.2f}, {upper[i]:+.2f}]")
            for i in order
        )
        told = f"genes changed: {count}; {genes}" if count else f"no gene changed for sure; largest: {genes}"
        lines.append(f"{label} against {settings['baseline']}: {told}")
        if unseen := int(np.ceil(trial.obs["unseen"].iloc[row] * settings["cells"])):
            lines.append(f"  {unseen} of the cells then have labels that no training cell carries together")
    if len(shown) < len(others):
        lines.append(
            f"{len(others) - len(shown)} other labels have weaker effects than these {len(shown)}; the file written "
            "has all"
        )
    return [*lines, _format_intervals(trial)]


def _format_cell_effects(effects: anndata.AnnData) -> list[str]:
    """Format the number of genes changed in a cell."""
    changed = sorted(effects.layers["changed"].sum(axis=1))
    told = f"genes changed in a cell: median {changed[len(changed) // 2]}, at most {changed[-1]}"
    return [told, _format_intervals(effects)]


def _format_intervals(result: anndata.AnnData) -> str:
    """Format what intervals cover, or why there are none."""
    facts = result.uns["causcell"]
    return f"intervals of {facts['interval']:.0%} hold: {facts['interval_covers']}"
