"""Output of the commands of the atlas: lines for people, and with ``--json`` an object a line.

Each object has an ``event``:

- ``plan``: ``digest``, ``cells``, ``interventions``, ``draws``, ``rows``, ``unseen_rows``, ``genes``, ``estimate``,
  ``store``, ``dtype``, ``layout``, ``keeps`` (names by ``obs``, ``obsm``, ``var``), ``shards``, ``shard_rows``,
  ``chunk_rows``; with ``--plan`` also ``bytes``, ``free_bytes``, ``rows_per_second`` (of one worker), ``seconds``;
- ``shard``, when one is committed: ``shard``, ``rows``, ``bytes``, ``seconds`` by stage, ``worker``, ``done_rows``,
  ``total_rows``;
- ``done``: ``atlas``, ``cells``, ``interventions``, ``draws``, ``rows``, ``made_rows`` (by this run), ``unseen_rows``,
  ``genes``, ``estimate``, ``bytes``, ``seconds``, ``rows_per_second``, ``stages``;
- ``verified``: ``atlas``, ``rows``, ``shards``, ``missing``, ``damaged`` (files by shard), ``invalid`` (what is wrong
  with values, by shard and file), ``unknown`` (files), ``read_only``, ``finished``, ``sound``.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from causcell._internal.units import format_count, format_duration, format_size
from causcell.errors import format_list

if TYPE_CHECKING:
    from causcell._internal.remote import AnyPath
    from causcell.atlas.events import AtlasEvent
    from causcell.atlas.plan import Plan
    from causcell.atlas.verify import Verification
    from causcell.atlas.write import AtlasSummary


def print_event(name: str, fields: dict[str, Any]) -> None:
    """Print an event as one line of JSON."""
    typer.echo(json.dumps({"event": name} | fields))


def plan_fields(plan: Plan, unseen_rows: int) -> dict[str, Any]:
    """Return the fields of a ``plan`` event."""
    return {
        "digest": plan.digest,
        "cells": plan.cells,
        "interventions": [each.name for each in plan.request.interventions],
        "draws": plan.request.draws,
        "rows": plan.rows,
        "unseen_rows": unseen_rows,
        "genes": plan.genes,
        "estimate": plan.request.settings.estimate,
        "store": plan.request.store,
        "dtype": plan.array_dtype("X"),
        "layout": plan.layout,
        "keeps": {} if plan.annotations is None else plan.annotations.names(),
        "shards": plan.shards,
        "shard_rows": plan.shard_rows,
        "chunk_rows": plan.chunk_rows,
    }


class ShardPrinter:
    """Print an event for each shard that is committed.

    Parameters
    ----------
    plan
        Plan of the atlas.
    done
        Rows that were there before.
    """

    def __init__(self, plan: Plan, done: int) -> None:
        self._total, self._done = plan.rows, done

    def __call__(self, event: AtlasEvent) -> None:
        """Take an event of the atlas."""
        from causcell.atlas.events import ShardCommitted

        if not isinstance(event, ShardCommitted):
            return
        record = event.record
        self._done += record.rows
        fields = {
            "shard": record.shard,
            "rows": record.rows,
            "bytes": record.bytes,
            "seconds": record.seconds,
            "worker": record.worker,
            "done_rows": self._done,
            "total_rows": self._total,
        }
        print_event("shard", fields)


def print_plan(plan: Plan, free: int | None, done: int, workers: int, as_json: bool) -> None:
    """Print a plan with its forecast.

    Parameters
    ----------
    plan
        A plan with a forecast.
    free
        Bytes that are free where it would be written; `None` where nobody tells.
    done
        Shards that are there already.
    workers
        How many would make it.
    as_json
        Print an event.
    """
    forecast = plan.forecast
    assert forecast is not None
    workers = min(workers, plan.shards)
    seconds = plan.rows / forecast.rows_per_second / workers
    if as_json:
        rate, time = round(forecast.rows_per_second, 1), round(seconds, 1)
        costs = {"bytes": forecast.bytes, "free_bytes": free, "rows_per_second": rate, "seconds": time}
        print_event("plan", plan_fields(plan, forecast.unseen_rows) | costs)
        return
    facts = plan.describe()
    together = f" for each of {workers} workers, if they do not slow each other" if workers > 1 else ""
    lines = {
        "plan": plan.digest,
        "rows": facts["rows"],
        "unseen": facts["unseen"],
        "holds": facts["holds"],
        "shards": f"{facts['shards']}; {done} are done",
        "size": str(facts["size"]) + ("" if free is None else f"; {format_size(free)} are free"),
        "time": f"about {format_duration(seconds)} at {forecast.rows_per_second:,.0f} rows/s{together}",
    }
    for name, text in lines.items():
        typer.echo(f"{name}: {text}")


def print_summary(plan: Plan, summary: AtlasSummary, out: AnyPath, as_json: bool) -> None:
    """Print what a run did."""
    request, genes = plan.request, plan.genes
    rate = summary.made / summary.seconds
    if as_json:
        fields = {
            "atlas": str(out),
            "cells": plan.cells,
            "interventions": [each.name for each in request.interventions],
            "draws": request.draws,
            "rows": plan.rows,
            "made_rows": summary.made,
            "unseen_rows": summary.unseen,
            "genes": genes,
            "estimate": request.settings.estimate,
            "bytes": summary.bytes,
            "seconds": round(summary.seconds, 2),
            "rows_per_second": round(rate, 1),
            "stages": {name: round(seconds, 2) for name, seconds in summary.stages.items()},
        }
        print_event("done", fields)
        return
    if not summary.made:
        typer.echo(f"nothing to do: {out} is finished ({format_count(plan.rows, 'row')}, {format_size(summary.bytes)})")
        return
    counted = (
        format_count(plan.cells, "cell"),
        format_count(len(request.interventions), "intervention"),
        format_count(request.draws, "draw"),
    )
    before = f"; {plan.rows - summary.made:,} were there" if summary.made < plan.rows else ""
    typer.echo(
        f"{format_count(summary.made, 'row')} ({', '.join(counted)}; "
        f"{request.settings.estimate}) x {format_count(genes, 'gene')} in {summary.seconds:.1f} s, "
        f"{rate:,.0f} rows/s, {format_size(summary.bytes)}{before}: {out}"
    )


def print_verification(found: Verification, atlas: AnyPath, as_json: bool) -> None:
    """Print what a check of an atlas found."""
    if as_json:
        damaged = {"metadata" if shard is None else str(shard): list(files) for shard, files in found.damaged.items()}
        print_event("verified", {"atlas": str(atlas)} | asdict(found) | {"damaged": damaged, "sound": found.sound})
        return
    for shard, files in found.damaged.items():
        what = "metadata" if shard is None else f"shard {shard}"
        typer.echo(f"{what} is damaged: {', '.join(files)}")
    for shard, values in found.invalid.items():
        wrong = "; ".join(f"{name}: {what}" for name, what in values.items())
        typer.echo(f"shard {shard} holds what can't be: {wrong}")
    if found.unknown:
        typer.echo(f"{len(found.unknown)} files are not the atlas's, remove them: {format_list(found.unknown)}")
    if found.missing:
        typer.echo(f"{len(found.missing)} of {found.shards} shards are not made yet")
    alone = " (read without its lock, as it can't be written to here)" if found.read_only else ""
    if found.sound:
        typer.echo(
            f"{atlas} is sound: {format_count(found.rows, 'row')} in {format_count(found.shards, 'shard')}{alone}"
        )
    elif found.read_only:
        typer.echo("the atlas can't be written to here: run the command that made it where it can, or on a copy")
    else:
        typer.echo("run the command that made it again, to make what is damaged or missing")
