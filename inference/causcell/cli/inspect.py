"""``causcell inspect``."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import typer

from causcell.cli import options
from causcell.cli.folding import say
from causcell.cli.tables import format_table, format_verdicts
from causcell.errors import format_list

if TYPE_CHECKING:
    from causcell.engine.protocol import Engine
    from causcell.repository.manifest import Manifest

_SERVED = {
    "model": "name",
    "version": "version",
    "state": "state",
    "largest batch": "max_batch_size",
    "queue delay (us)": "max_queue_delay_microseconds",
    "instances": "instances",
    "requests": "requests",
    "failed": "failed",
    "executions": "executions",
    "rows": "rows",
    "queue (ms)": "queue_ms",
    "compute (ms)": "compute_ms",
}
"""Columns of the table of a server's models: setting or statistic."""


_LONGEST = 1e15
"""Whole numbers below are written without a decimal point."""


def inspect(
    location: options.Location,
    provider: options.Provider = None,
    connection: options.ConnectionFile = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what is inside a model repository, every digest checked; of a server its models and statistics too.

    Examples
    --------
    causcell inspect models
    causcell inspect grpc://localhost:8001 --json
    """
    from causcell.engine.open import is_address, open_engine
    from causcell.repository.folder import open_repository

    if is_address(location) or provider is not None:
        engine = open_engine(location, provider=provider, connection=options.read_connection(connection))
        with contextlib.closing(engine):
            essentials = _describe(engine.manifest) | {"verified": True}
            essentials |= _served(engine) if is_address(location) else {"engine": engine.description}
    else:  # no runtime is needed to look
        manifest = open_repository(location).manifest  # raises unless every digest holds
        essentials = _describe(manifest) | {"verified": True}
    if as_json:
        typer.echo(json.dumps(essentials, indent=2))
        return
    for name, value in essentials.items():
        for line in _lines(name, value, essentials):
            say(line)


def _served(engine: Engine) -> dict[str, Any]:
    """Return servers with their models, and what each did since it started by address."""
    status = engine.status()
    return {
        "servers": [{key: value for key, value in each.items() if key != "statistics"} for each in status],
        "statistics": {each["address"]: each["statistics"] for each in status if each["ready"]},
    }


def _lineage(manifest: Manifest) -> dict[str, Any]:
    """Return the runs that a model descends from, the nearest first; nothing for one that was trained from nothing."""
    lineage = manifest.provenance.get("descends_from")
    return {"descends_from": lineage} if isinstance(lineage, list) and lineage else {}


def _lineage_line(run: dict[str, Any]) -> str:
    added = run.get("new_labels") or {}
    new = "; ".join(f"{name}: {format_list(labels)}" for name, labels in added.items())
    return (
        f"  run {run.get('run')} ({str(run.get('digest'))[:12]}), {run.get('cells')} training cells, finished "
        f"{run.get('finished')}; labels new since: {new or 'none'}"
    )


def _lines(name: str, value: Any, essentials: dict[str, Any]) -> list[str]:
    if name == "presets":
        from causcell.repository.preset_table import PRESET_HEADER, preset_rows

        head = f"presets, measured on {essentials['held_out_cells']} held-out cells (beside real cells):"
        return [head, *(f"  {line}" for line in format_table(PRESET_HEADER, preset_rows(value)))]
    if name == "effect_errors":
        return ["error of effects (none is measured: no intervals)"] if not value else _effect_lines(value)
    if name == "servers":
        return [line for server in value for line in _server_lines(server, essentials["statistics"])]
    if name == "verdicts":
        from causcell.repository.verdicts import Verdict

        return format_verdicts([Verdict(**verdict) for verdict in value])
    if name == "descends_from":
        return ["descends from, the nearest first:", *map(_lineage_line, value)]
    if name == "statistics":
        return []  # in the servers' tables
    if isinstance(value, dict):
        return [f"{name}:", *(f"  {key}: {_format_value(each)}" for key, each in value.items())]
    return [f"{name}: {_format_value(value)}"]


def _effect_lines(errors: dict[str, dict[str, Any]]) -> list[str]:
    """Return lines of a table: how far effects of each concept are off, and whether intervals hold."""

    def size(error: dict[str, float] | None) -> str:
        if error is None:
            return "not measured"
        return f"{error['constant'] ** 0.5:.2f} deviations and {error['relative'] ** 0.5:.0%} of the effect"

    rows = [
        [
            concept,
            *(size(each[part]) for part in ("stratum", "unseen")),
            "" if each["coverage"] is None else f"{each['coverage']:.2f}",
        ]
        for concept, each in errors.items()
    ]
    table = format_table(["", "error of effects", "of unseen combinations", "90 % intervals hold"], rows)
    return [
        "error of effects, measured on training cells; intervals tried on held-out ones:",
        *(f"  {x}" for x in table),
    ]


def _server_lines(server: dict[str, Any], statistics: dict[str, Any]) -> list[str]:
    """Return lines of a server: a model each, its settings, and what it did since the server started."""
    if not server["ready"]:
        return [f"server {server['address']}: not ready"]
    done = statistics[server["address"]]
    rows = [
        [str((model | done.get(model["name"], {})).get(key, "")) for key in _SERVED.values()]
        for model in server["models"]
    ]
    table = format_table(list(_SERVED), rows) if rows else []
    return [f"server {server['address']}: ready, Triton {server['version']}", *(f"  {line}" for line in table)]


def _format_value(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key} {_format_value(each)}" for key, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < _LONGEST else f"{value:.3g}"
    return "none" if value is None else str(value)


def _describe(manifest: Manifest) -> dict[str, Any]:
    from causcell.repository.preset_table import describe_presets, held_out_cells

    fields = manifest.model_dump(mode="json")
    return {
        "digest": manifest.digest,
        "schema_version": manifest.schema_version,
        "genes": {"count": len(manifest.genes.names), "digest": manifest.genes.digest},
        "expression": {
            "scale": manifest.expression.scale,
            "target_sum": manifest.expression.target_sum,
            "normalisation_genes": len(manifest.expression.normalisation_genes),
        },
        "concepts": {concept.name: list(concept.labels) for concept in manifest.concepts},
        **_describe_values(manifest),
        "edges": [f"{edge.parent}:{edge.child}" for edge in manifest.edges],
        "mechanism": manifest.mechanism,
        **({"learned_edges": manifest.provenance["edges"]} if "edges" in manifest.provenance else {}),
        "head": manifest.head,
        "precision": manifest.precision,
        "schedule": fields["schedule"],
        "dimensions": fields["dimensions"],
        "presets": describe_presets(manifest),
        "held_out_cells": held_out_cells(manifest),
        "default_preset": manifest.default_preset,
        "verdicts": [verdict.model_dump(mode="json") for verdict in manifest.verdicts],
        "effect_errors": fields.get("effect_errors", {}),
        "graphs": {
            name: {"inputs": list(graph.inputs), "outputs": list(graph.outputs)}
            for name, graph in manifest.graphs.items()
        },
        "parity": fields["parity"],
        "files": len(manifest.files),
        "training_cells": manifest.training_cells.count,
        "trained": {key: manifest.provenance.get(key) for key in ("finished", "seconds", "epochs", "device")}
        | ({"unfinished": True} if manifest.provenance.get("unfinished") else {}),
        **_lineage(manifest),
        "versions": manifest.versions,
    }


def _describe_values(manifest: Manifest) -> dict[str, Any]:
    """Return kind and values of each concept that is more than labels, by name; nothing for plain models."""
    found = {each.name: each.value for each in manifest.concepts if each.value is not None}
    values = {
        name: {"kind": value.kind}
        | ({"from": value.low, "to": value.high} if value.is_number else {})
        | ({"medians": list(value.numbers)} if value.kind == "continuous" else {})
        | ({"members": list(value.members), "control": value.control} if value.kind == "set" else {})
        | ({"features": list(value.feature_names), "known": list(value.known)} if value.kind == "features" else {})
        for name, value in found.items()
    }
    return {"values": values} if values else {}
