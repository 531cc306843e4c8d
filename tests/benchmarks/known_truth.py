"""Counterfactual error against a simulator's truth, by number of training cells and by what the model is.

    python tests/benchmarks/known_truth.py --cells 500 --cells 1000 --cells 2000 --seeds 3 --out report

Variants: the graph given (edge weights fixed at 1, or learned; mechanisms linear, or nonlinear), CausCell_IND (no
edges), and the graph given without the independence term of the objective. Worlds: the usual one, and ``--world
opposite``, where treatment activates cells of type A, makes those of B rest and leaves C alone, which no sum of causes
holds. Writes a report (JSON, HTML) with a table for each intervention and size.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from trained_models import SIMULATOR_DO, simulator_config, trained

from causcell.cli.tables import format_measures
from causcell.evaluation.known_truth import (
    average_signature_effect,
    compare_with_truth,
    find_state_genes,
    predict_effect,
)
from causcell.evaluation.report import run_environment, write_report
from causcell.evaluation.simulator import OPPOSITE, SCHEMA, Noise, World
from causcell.evaluation.table import Table, merge_repetitions
from causcell.generator import Generator
from causcell_training.config import parse_overrides

VARIANTS = {
    "graph": {},
    "graph, learned weights": {"model.edge_weights": "learned"},
    "graph, nonlinear": {"model.mechanism": "nonlinear"},
    "no edges (CausCell_IND)": {"model.graph": "independent"},
    "graph, no independence": {"objective.independence": 0.0},
}
NEW_CELLS = 1000
WORLDS: dict[str, dict[str, Any]] = {"usual": {}, "opposite": {"responses": OPPOSITE}}


def main() -> None:
    """Train every variant at every size and seed, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, action="append", required=True)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--variant", action="append", choices=list(VARIANTS))
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--world", choices=list(WORLDS), default="usual")
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    repetitions = []
    for seed in range(arguments.seeds):
        world = World.make(seed=seed, **WORLDS[arguments.world])
        for count in arguments.cells:
            for variant in arguments.variant or VARIANTS:
                started = time.perf_counter()
                overrides = parse_overrides(arguments.settings) | VARIANTS[variant]
                repetitions.append(tables_of(world, count, variant, overrides, seed))
                print(f"{variant}, {count} cells, seed {seed}: {time.perf_counter() - started:.0f} s", flush=True)
    tables = merge_repetitions(repetitions)
    for table in tables:
        print("\n".join(["", table.name, *format_measures(table)]))
    write_report(arguments.out, "Known truth", run_environment(), tables)
    draw(tables, arguments.cells).savefig(Path(arguments.out) / "figure.png", dpi=90)


def tables_of(world: World, count: int, variant: str, overrides: dict[str, object], seed: int) -> list[Table]:
    """Tables of one trained model, its rows named by variant."""
    cells = world.cells(world.noise(count, seed=seed + 100))
    noise = world.noise(NEW_CELLS, seed=seed + 200)
    with trained(cells, simulator_config(count, {**overrides, "seed": seed})) as generator:
        tables = [compare_with_truth(world, generator, cells, noise, dict([do])) for do in SIMULATOR_DO.items()]
        tables.append(signature(world, generator, noise))
    named = [table.with_row_names(lambda row: row.replace("model", variant)) for table in tables]
    return [replace(table, name=f"{table.name}, {count} training cells") for table in named]


def signature(world: World, generator: Generator, noise: Noise) -> Table:
    """The downstream state's signature under do(treatment = treated), by the state that truly follows."""
    do = {"treatment": "treated"}
    before, after = world.labels(noise), world.labels(noise, do)
    moved = before[:, 0] != 1
    cells = world.cells(noise)[moved]
    signs, active = find_state_genes(world), SCHEMA["state"].code("active")
    becomes, stays = (
        (after[moved, 3] == active) & (before[moved, 3] != active),
        (after[moved, 3] != active) & (before[moved, 3] != active),
    )
    effects = {
        "model, do(treatment)": predict_effect(generator, cells, do)[0],
        "model, do(treatment, state = resting)": predict_effect(generator, cells, do | {"state": "resting"})[0],
        "model, do(treatment, state = active)": predict_effect(generator, cells, do | {"state": "active"})[0],
        "truth, do(treatment)": world.effect(noise, do)[moved],
        "truth, do(treatment, state = resting)": world.effect(noise, do | {"state": "resting"})[moved],
        "truth, do(treatment, state = active)": world.effect(noise, do | {"state": "active"})[moved],
    }
    rows = {}
    for name, effect in effects.items():
        response = average_signature_effect(effect, signs)
        rows[name] = {
            "resting cells that become active": float(response[becomes].mean()),
            "resting cells that stay resting": float(response[stays].mean()),
        }
    return Table.of(
        "Signature of the state when treatment is intervened on",
        rows,
        interpretation="Mean effect on the genes that the state alone moves, each in its direction. In truth it "
        "follows the state: a cell that stays resting, or is held resting, shows none.",
        limitations="How strong a signature of a state that responds to treatment otherwise than by labels would be.",
    )


def draw(tables: Sequence[Table], sizes: Sequence[int]) -> Figure:
    """Error of the average effect by number of training cells, a panel an intervention."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    by_name = {table.name: table.rows for table in tables}
    panels = figure.subplots(1, len(SIMULATOR_DO), sharey=True)
    for ax, (concept, label) in zip(panels, SIMULATOR_DO.items(), strict=True):
        rows = [by_name[f"do({concept} = {label}), {size} training cells"] for size in sizes]
        for name in (*(f"{variant}, do" for variant in VARIANTS), "mean shift", "mean shift within cell types"):
            if all(name in each for each in rows):
                values = [np.mean(each[name]["error of the average"]) for each in rows]
                ax.plot(sizes, values, marker="o", markersize=3, label=name, linestyle="--" if "mean" in name else "-")
        ax.axhline(1, color="0.8", linewidth=0.8)
        ax.set(title=f"do({concept} = {label})", xlabel="training cells", xscale="log")
        ax.set_xticks(sizes, [str(size) for size in sizes], fontsize=7)
        ax.minorticks_off()
    panels[0].set_ylabel("error of the average effect (1: no change)")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=7, frameon=False
    )
    return figure


if __name__ == "__main__":
    main()
