"""Commands of the atlas: generate, verify, materialize.

With ``--json`` they print an object a line, each with an ``event``:

- ``plan``: ``digest``, ``cells``, ``interventions``, ``draws``, ``rows``, ``unseen_rows``, ``genes``, ``estimate``,
  ``store``, ``dtype``, ``shards``, ``shard_rows``, ``chunk_rows``; with ``--plan`` also ``bytes``, ``free_bytes``,
  ``rows_per_second`` (of one worker), ``seconds``;
- ``shard``, when one is committed: ``shard``, ``rows``, ``bytes``, ``seconds`` by stage, ``worker``, ``done_rows``,
  ``total_rows``;
- ``done``: ``atlas``, ``cells``, ``interventions``, ``draws``, ``rows``, ``made_rows`` (by this run), ``unseen_rows``,
  ``genes``, ``estimate``, ``bytes``, ``seconds``, ``rows_per_second``, ``stages``;
- ``verified``: ``atlas``, ``rows``, ``shards``, ``missing``, ``damaged`` (files by shard), ``finished``, ``sound``.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from causcell.cli import options

if TYPE_CHECKING:
    from causcell.atlas.journal import ShardRecord
    from causcell.atlas.plan import Plan
    from causcell.atlas.task import Inputs, Job, Measured
    from causcell.atlas.write import Written

_LARGEST_H5AD = 2 * 10**9


def generate(
    data: Annotated[
        list[str],
        typer.Argument(
            help="Cells: .h5ad or .zarr. Several files are one collection, cells named KEY:NAME; a file's key is its "
            "name, or is given as KEY=PATH.",
            show_default=False,
        ),
    ],
    models: options.Models,
    out: Annotated[Path, typer.Option(help="Atlas to write, .zarr; a small one also .h5ad.", show_default=False)],
    do: Annotated[
        list[str] | None,
        typer.Option(help="CONCEPT=LABEL; several are one joint intervention. None: reconstruct.", show_default=False),
    ] = None,
    grid: Annotated[
        list[str] | None, typer.Option(help="Concept to take every label of; several multiply.", show_default=False)
    ] = None,
    where: options.Where = None,
    mode: Annotated[str, typer.Option(help="do, exogenous or isolated.")] = "do",
    match_parents: Annotated[
        bool, typer.Option("--match-parents", help="Draw reference cells with the same labels of the target's parents.")
    ] = False,
    preset: Annotated[str | None, typer.Option(help="Solver setting of the model. [default: the model's]")] = None,
    solver: Annotated[str | None, typer.Option(help="draw, ddim, dpmpp, ddpm or mean, in place of a preset.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the solver.")] = None,
    spacing: Annotated[
        str | None, typer.Option(help="Spacing of the steps: trailing, uniform or log_snr. [default: trailing]")
    ] = None,
    eta: Annotated[float | None, typer.Option(help="Noise of ddim, 0 to 1.")] = None,
    draws: Annotated[int, typer.Option(help="Samples a cell and intervention.")] = 1,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 256,
    store: Annotated[
        str,
        typer.Option(
            help="What to keep: expression; embeddings (see materialize); effects (less the factual cell with the same "
            "noise); summary (mean and deviation over draws)."
        ),
    ] = "expression",
    dtype: Annotated[str, typer.Option(help="Of the atlas: float32 or float16.")] = "float32",
    chunk_size: Annotated[str, typer.Option(help="What readers fetch at once, uncompressed.")] = "2MB",
    shard_size: Annotated[str, typer.Option(help="What is made and committed at once, uncompressed.")] = "128MB",
    plan_only: Annotated[bool, typer.Option("--plan", help="Tell what would be done, and write nothing.")] = False,
    workers: Annotated[int, typer.Option(help="Processes.")] = 1,
    dask: Annotated[
        str | None,
        typer.Option(help="Address of a Dask scheduler whose workers make the shards.", show_default=False),
    ] = None,
    expression: options.Expression = None,
    layer: options.Layer = None,
    allow_missing_genes: options.MissingGenes = 0.0,
    threads: Annotated[
        int | None,
        typer.Option(help="Compute threads of each worker; reading and writing have their own. [default: 1]"),
    ] = None,
    connection: options.ConnectionFile = None,
    progress: options.Progress = True,
    as_json: options.AsJson = False,
) -> None:
    """Write an atlas of counterfactual cells; if interrupted, the same command goes on with it."""
    from causcell._internal.units import parse_size
    from causcell.atlas.plan import make_plan
    from causcell.atlas.task import Job, Measured
    from causcell.cells.collection import open_cells
    from causcell.counterfactual.interventions import check_mode, parse_do, plan_interventions
    from causcell.counterfactual.outputs import check_store
    from causcell.counterfactual.request import Request, check_dtype
    from causcell.counterfactual.tables import check_row_names
    from causcell.engine.open import is_address
    from causcell.errors import ConfigurationError
    from causcell.generator import Generator

    if out.suffix not in (".zarr", ".h5ad"):
        raise ConfigurationError(f"--out {str(out)!r} ends neither in .zarr nor in .h5ad")
    if workers < 1 or (dask is not None and workers != 1):
        raise ConfigurationError(f"--workers is {workers}; take at least 1, and leave it out with --dask")
    if threads is None and not is_address(models):
        threads = 1
    sources = _sources(data)
    link = options.read_connection(connection)
    with Generator.open(models, threads=threads, batch_size=batch_size, connection=link) as generator:
        request = Request(
            plan_interventions(generator.schema, parse_do(do or []), grid or []),
            generator.solver_settings(preset=preset, solver=solver, steps=steps, spacing=spacing, eta=eta),
            check_mode(mode),
            match_parents,
            draws,
            seed,
            check_store(store),
            check_dtype(dtype),
        )
        with (
            tempfile.TemporaryDirectory(prefix="causcell-") as scratch,
            open_cells(
                sources if isinstance(sources, str) else dict(sources),
                layer=layer,
                where=where,
                scratch=Path(scratch),
            ) as cells,
        ):
            check_row_names(cells, request)
            reader = generator.reader(cells, expression, allow_missing_genes)
            inputs = Measured(generator, cells, reader)
            plan = make_plan(
                generator,
                cells,
                reader,
                request,
                chunk_size=parse_size(chunk_size),
                shard_size=parse_size(shard_size),
            )
            job = Job(
                location=models if is_address(models) else str(Path(models).absolute()),
                connection=link,
                sources=sources,
                layer=layer,
                where=where,
                expression=expression,
                allow_missing_genes=allow_missing_genes,
                scratch=scratch,
                plan=plan,
                path=str(out.absolute()),
            )
            if plan_only:
                _tell_plan(plan, inputs, out, workers, as_json)
            else:
                _carry_out(job, inputs, out, workers=workers, dask=dask, progress=progress, as_json=as_json)


def _sources(data: list[str]) -> str | tuple[tuple[str, str], ...]:
    """A path, or paths by key; raises `ConfigurationError` for a key given twice."""
    from causcell.errors import ConfigurationError

    pairs = []
    for text in data:
        key, equals, path = text.partition("=")
        pairs.append((key, path) if equals and not Path(text).exists() else (None, text))
    if len(pairs) == 1 and pairs[0][0] is None:
        return str(Path(data[0]).absolute())
    keyed = tuple((key or Path(path).stem, str(Path(path).absolute())) for key, path in pairs)
    keys = [key for key, _ in keyed]
    twice = {key for key in keys if keys.count(key) > 1}
    if twice:
        raise ConfigurationError(
            f"several files have the key {sorted(twice)[0]!r}, which their cells' names begin with; give each its own: "
            "KEY=PATH"
        )
    return keyed


def _carry_out(
    job: Job, inputs: Measured, out: Path, *, workers: int, dask: str | None, progress: bool, as_json: bool
) -> None:
    """Make the atlas, by whom it should be, and tell."""
    from causcell.atlas.executors.dask import on_dask
    from causcell.atlas.executors.processes import on_processes
    from causcell.atlas.write import run_plan

    def run(path: Path) -> Written:
        placed = replace(job, path=str(path.absolute()))
        make = on_dask(placed, dask) if dask is not None else on_processes(placed, workers) if workers > 1 else None
        report = _Reporter(job.plan, path) if as_json else _silent
        return run_plan(job.plan, inputs, path, make=make, progress=progress, report=report)

    if as_json:
        _event("plan", _plan_fields(job.plan, inputs))
    written = run(out) if out.suffix == ".zarr" else _as_h5ad(run, job.plan, out)
    _tell_written(job.plan, written, out, as_json)


def _as_h5ad(run: Callable[[Path], Written], plan: Plan, out: Path) -> Written:
    """Write a small atlas as one file; raises `ConfigurationError` for a large one."""
    import anndata

    from causcell._internal.files import refuse_existing
    from causcell._internal.units import format_size
    from causcell.atlas.journal import raise_on_full_disk
    from causcell.errors import ConfigurationError

    refuse_existing(out)
    if plan.bytes_uncompressed > _LARGEST_H5AD:
        raise ConfigurationError(
            f"{str(out)!r} would hold {format_size(plan.bytes_uncompressed)} of values; .h5ad is for results of up to "
            f"{format_size(_LARGEST_H5AD)}, which fit into memory: name a .zarr"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        written = run(Path(folder) / "atlas.zarr")
        with raise_on_full_disk(out):
            anndata.read_zarr(Path(folder) / "atlas.zarr").write_h5ad(Path(folder) / out.name, compression="gzip")
            (Path(folder) / out.name).rename(out)
    return written


def _silent(_: ShardRecord) -> None:
    """Tells nothing."""


class _Reporter:
    """Prints an event for each shard."""

    def __init__(self, plan: Plan, out: Path) -> None:
        from causcell.atlas.journal import Journal

        self._total = plan.rows
        self._done = sum(record.rows for record in Journal(out).records().values())

    def __call__(self, record: ShardRecord) -> None:
        self._done += record.rows
        _event(
            "shard",
            {
                "shard": record.shard,
                "rows": record.rows,
                "bytes": sum(file.bytes for file in record.files.values()),
                "seconds": record.seconds,
                "worker": record.worker,
                "done_rows": self._done,
                "total_rows": self._total,
            },
        )


def _event(name: str, fields: dict[str, Any]) -> None:
    typer.echo(json.dumps({"event": name} | fields))


def _plan_fields(plan: Plan, inputs: Inputs) -> dict[str, Any]:
    from causcell.atlas.plan import unseen_rows

    generator = inputs.generator
    labels, seen = inputs.cells.labels(generator.schema), generator.engine.reference.combinations
    return {
        "digest": plan.digest,
        "cells": plan.cells,
        "interventions": [each.name for each in plan.request.interventions],
        "draws": plan.request.draws,
        "rows": plan.rows,
        "unseen_rows": unseen_rows(labels, plan.request, generator.schema, seen),
        "genes": plan.genes,
        "estimate": plan.request.settings.estimate,
        "store": plan.request.store,
        "dtype": plan.request.dtype,
        "shards": plan.shards,
        "shard_rows": plan.shard_rows,
        "chunk_rows": plan.chunk_rows,
    }


def _tell_plan(plan: Plan, inputs: Inputs, out: Path, workers: int, as_json: bool) -> None:
    """What would be done; raises `OutputFullError` if it can't fit."""
    from causcell._internal.files import refuse_existing
    from causcell._internal.units import format_duration, format_size
    from causcell.atlas.estimate import calibrate, free_bytes, require_space
    from causcell.atlas.journal import Journal
    from causcell.errors import format_list

    if not Journal(out).check_plan(plan):
        refuse_existing(out)
    estimate, free = calibrate(plan, inputs), free_bytes(out)
    workers = min(workers, plan.shards)
    seconds = plan.rows / estimate.rows_per_second / workers
    fields = _plan_fields(plan, inputs)
    if as_json:
        _event(
            "plan",
            fields
            | {
                "bytes": estimate.bytes,
                "free_bytes": free,
                "rows_per_second": round(estimate.rows_per_second, 1),
                "seconds": round(seconds, 1),
            },
        )
    else:
        done = len(Journal(out).records())
        for name, text in {
            "plan": plan.digest,
            "rows": f"{plan.rows:,} ({plan.cells:,} cells, {len(fields['interventions'])} interventions: "
            f"{format_list(fields['interventions'], 4)}, {plan.request.draws} draws)",
            "unseen": f"{fields['unseen_rows']:,} rows with combinations of labels that no training cell carries, as "
            "far as labels tell",
            "holds": f"{plan.request.store} ({fields['estimate']}), {plan.request.dtype}, {fields['genes']:,} genes",
            "shards": f"{plan.shards:,} of {plan.shard_rows:,} rows in chunks of {plan.chunk_rows:,}; {done} are done",
            "size": f"about {format_size(estimate.bytes)} ({format_size(plan.bytes_uncompressed)} uncompressed); "
            f"{format_size(free)} are free",
            "time": f"about {format_duration(seconds)} at {estimate.rows_per_second:,.0f} rows/s"
            + (f" for each of {workers} workers, if they do not slow each other" if workers > 1 else ""),
        }.items():
            typer.echo(f"{name}: {text}")
    require_space(plan, inputs, out, estimate)


def _tell_written(plan: Plan, written: Written, out: Path, as_json: bool) -> None:
    from causcell._internal.units import format_size

    request, genes = plan.request, plan.genes
    rate = written.made / written.seconds
    if as_json:
        _event(
            "done",
            {
                "atlas": str(out),
                "cells": plan.cells,
                "interventions": [each.name for each in request.interventions],
                "draws": request.draws,
                "rows": plan.rows,
                "made_rows": written.made,
                "unseen_rows": written.unseen,
                "genes": genes,
                "estimate": request.settings.estimate,
                "bytes": written.bytes,
                "seconds": round(written.seconds, 2),
                "rows_per_second": round(rate, 1),
                "stages": {name: round(seconds, 2) for name, seconds in written.stages.items()},
            },
        )
        return
    if not written.made:
        typer.echo(f"nothing to do: {out} is finished ({plan.rows} rows, {format_size(written.bytes)})")
        return
    before = f"; {plan.rows - written.made} were there" if written.made < plan.rows else ""
    typer.echo(
        f"{written.made} rows ({plan.cells} cells, {len(request.interventions)} interventions, {request.draws} draws; "
        f"{request.settings.estimate}) x {genes} genes in {written.seconds:.1f} s, "
        f"{rate:,.0f} rows/s, {format_size(written.bytes)}{before}: {out}"
    )


def verify(
    atlas: Annotated[Path, typer.Argument(help="Atlas, .zarr.", show_default=False)],
    progress: options.Progress = True,
    as_json: options.AsJson = False,
) -> None:
    """Check every file of an atlas by its digest; what is damaged is made anew by the next generate."""
    from causcell.atlas.verify import verify_atlas

    found = verify_atlas(atlas, progress=progress)
    if as_json:
        damaged = {"metadata" if shard is None else str(shard): list(files) for shard, files in found.damaged.items()}
        _event("verified", {"atlas": str(atlas)} | asdict(found) | {"damaged": damaged, "sound": found.sound})
    else:
        for shard, files in found.damaged.items():
            what = "metadata" if shard is None else f"shard {shard}"
            typer.echo(f"{what} is damaged: {', '.join(files)}")
        if found.missing:
            typer.echo(f"{len(found.missing)} of {found.shards} shards are not made yet")
        if found.sound:
            typer.echo(f"{atlas} is sound: {found.rows} rows in {found.shards} shards")
        else:
            typer.echo("run the command that made it again, to make what is damaged or missing")
    if not found.sound:
        raise typer.Exit(1)


def materialize(
    embeddings: Annotated[Path, typer.Argument(help="Atlas made with --store embeddings.", show_default=False)],
    models: options.Models,
    out: Annotated[Path, typer.Option(help="Atlas to write, .zarr.", show_default=False)],
    dtype: Annotated[str, typer.Option(help="Of the atlas: float32 or float16.")] = "float32",
    chunk_size: Annotated[str, typer.Option(help="What readers fetch at once, uncompressed.")] = "2MB",
    shard_size: Annotated[str, typer.Option(help="What is made and committed at once, uncompressed.")] = "128MB",
    threads: Annotated[
        int | None, typer.Option(help="Compute threads. [default: those that made the embeddings]")
    ] = None,
    connection: options.ConnectionFile = None,
    progress: options.Progress = True,
    as_json: options.AsJson = False,
) -> None:
    """Generate the expression that an atlas of embeddings stands for, bit for bit as if it had been stored."""
    from causcell._internal.units import parse_size
    from causcell.atlas.journal import Journal
    from causcell.atlas.materialize import materialize_atlas
    from causcell.counterfactual.request import check_dtype
    from causcell.engine.open import is_address
    from causcell.errors import ConfigurationError
    from causcell.generator import Generator

    if out.suffix != ".zarr":
        raise ConfigurationError(f"--out {str(out)!r} does not end in .zarr")
    stored = Journal(embeddings).require_plan()
    if threads is None and not is_address(models):
        threads = stored.threads or 1
    with Generator.open(
        models, threads=threads, batch_size=stored.batch_size, connection=options.read_connection(connection)
    ) as generator:
        plan, written = materialize_atlas(
            generator,
            embeddings,
            out,
            dtype=check_dtype(dtype),
            chunk_size=parse_size(chunk_size),
            shard_size=parse_size(shard_size),
            progress=progress,
        )
    _tell_written(plan, written, out, as_json)
