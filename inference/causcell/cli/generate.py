"""``causcell generate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from causcell.cli import options

if TYPE_CHECKING:
    from causcell.atlas.executors.base import Executor
    from causcell.atlas.open import OpenAtlas


def generate(
    data: options.Files,
    models: options.Models,
    out: Annotated[
        Path,
        typer.Option(help="Atlas to write, .zarr (also s3://, gs://); a small one also .h5ad.", show_default=False),
    ],
    do: options.Do = None,
    grid: options.Grid = None,
    where: options.Where = None,
    mode: options.Mode = "do",
    match_parents: options.MatchParents = False,
    target: options.Target = "reference",
    preset: options.Preset = None,
    solver: options.Solver = None,
    steps: options.Steps = None,
    spacing: options.Spacing = None,
    eta: options.Eta = None,
    draws: options.Draws = 1,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 256,
    store: options.Store = "expression",
    dtype: options.DType = "float32",
    interval: options.Interval = 0.9,
    library_size: options.LibrarySize = None,
    layout: options.Layout = None,
    keep_obs: options.KeepObs = None,
    keep_obsm: options.KeepObsm = None,
    chunk_size: options.ChunkSize = "2MB",
    shard_size: options.ShardSize = "128MB",
    plan_only: Annotated[bool, typer.Option("--plan", help="Tell what would be done, and write nothing.")] = False,
    workers: Annotated[int, typer.Option(help="Processes.")] = 1,
    dask: Annotated[
        str | None,
        typer.Option(help="Address of a Dask scheduler whose workers make the shards.", show_default=False),
    ] = None,
    expression: options.Expression = None,
    layer: options.Layer = None,
    raw: options.Raw = False,
    totals: options.Totals = None,
    round_counts: options.RoundCounts = False,
    allow_missing_genes: options.MissingGenes = 0.0,
    threads: options.WorkerThreads = None,
    provider: options.Provider = None,
    connection: options.ConnectionFile = None,
    progress: options.Progress = True,
    as_json: options.AsJson = False,
) -> None:
    """Write an atlas of counterfactual cells; if interrupted, the same command goes on with it.

    Examples
    --------
    causcell generate cells.h5ad --models models --do stim=IFN --out atlas.zarr
    causcell generate cells.h5ad --models models --grid type --out a.zarr --plan
    """
    given = dict(locals())
    from causcell.atlas.open import atlas_path, open_atlas
    from causcell.atlas.options import DEFAULTS
    from causcell.counterfactual.interventions import parse_do
    from causcell.engine.open import is_address
    from causcell.generator import Generator

    place = atlas_path(out)
    executor = _make_executor(workers, dask)
    files = options.name_files(data)
    chosen: dict[str, Any] = {name: given[name] for name in DEFAULTS}
    with Generator.open(
        models,
        threads=1 if threads is None and not is_address(models) else threads,
        provider=provider,
        batch_size=batch_size,
        connection=options.read_connection(connection),
    ) as generator:
        targets = parse_do(do or [])
        with open_atlas(generator.model, generator.source, files, place, targets, grid or [], chosen) as atlas:
            if plan_only:
                _tell_plan(atlas, workers, as_json)
            else:
                _write(atlas, executor, progress, as_json)


def _make_executor(workers: int, dask: str | None) -> Executor | None:
    """Return who makes the shards; raises `ConfigurationError`."""
    from causcell.atlas.executors import Dask, Processes
    from causcell.errors import ConfigurationError

    if workers < 1 or (dask is not None and workers != 1):
        raise ConfigurationError(f"workers={workers}: take at least 1, and leave it out with dask=")
    if dask is not None:
        return Dask(dask)
    return Processes(workers) if workers > 1 else None


def _write(atlas: OpenAtlas, executor: Executor | None, progress: bool, as_json: bool) -> None:
    from causcell.atlas.estimate import count_unseen_rows
    from causcell.atlas.write import write_atlas, write_h5ad
    from causcell.cli.events import ShardPrinter, plan_fields, print_event, print_summary

    maker = atlas.maker
    printer = None
    if as_json:
        table = maker.table
        unseen = count_unseen_rows(maker.source.labels, maker.plan.request, table.schema, table.combinations)
        print_event("plan", plan_fields(maker.plan, unseen))
        printer = ShardPrinter(maker.plan, sum(record.rows for record in maker.journal.records(maker.plan).values()))
    write = write_atlas if maker.path.suffix == ".zarr" else write_h5ad
    summary = write(maker, atlas.origin, executor=executor, progress=progress, on_event=printer)
    print_summary(maker.plan, summary, maker.path, as_json)


def _tell_plan(atlas: OpenAtlas, workers: int, as_json: bool) -> None:
    """Print what would be done; raises `OutputFullError` if it can't fit."""
    from dataclasses import replace

    from causcell.atlas.estimate import forecast_atlas, free_bytes, require_space
    from causcell.cli.events import print_plan

    maker = atlas.maker
    if not maker.journal.check_plan(maker.plan):
        maker.journal.storage.refuse_existing()
    plan = maker.plan.with_forecast(forecast_atlas(maker))
    print_plan(plan, free_bytes(maker.path), len(maker.journal.records(maker.plan)), workers, as_json)
    require_space(replace(maker, plan=plan))
