"""Figures of the results: quality against rate, effects predicted against real, leakage, and the paper's bars.

    python tests/benchmarks/peers/figures.py OUT [OUT ...]

The folders are those of run.py: effects on genes stand there alone. The rest is drawn from the committed results.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from results import read_jobs
from systems import SYSTEMS
from table import RESULTS, TESTED, TRAINED, UNSEEN, Row, spread_variants

COLOURS = {"own": "tab:blue", "peer": "tab:orange", "trivial": "0.6"}
LEAKAGE = "Leakage: labels read from embeddings of other concepts"
Take = Callable[[Row], Any]


def main() -> None:
    """Draw all of them beside the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--into", type=Path, default=RESULTS.parent)
    arguments = parser.parse_args()
    result = json.loads(RESULTS.read_text())
    rows = [row for row in spread_variants(result) if row["case"] == "kang"]
    figures = {
        "rates": draw_rates(rows, result),
        "effects": draw_effects(read_jobs(arguments.folders)),
        "leakage": draw_leakage(rows, result),
        "bars": draw_bars(rows, result),
    }
    for name, figure in figures.items():
        figure.savefig(arguments.into / f"peers_{name}.png", dpi=90)


def averages(rows: Sequence[Row], take: Take) -> dict[str, float]:
    """Average a measure over seeds, by title of the system."""
    found: dict[str, list[float]] = {}
    for row in rows:
        value = take(row)
        if value is not None:
            found.setdefault(row["title"], []).append(value[0] if isinstance(value, list) else value)
    return {title: statistics.mean(values) for title, values in found.items()}


def measure(view: str, table: str, row: str, name: str) -> Take:
    """Take a measure of a row of a table."""
    return lambda each: each["tables"].get(view, {}).get(table, {}).get(row, {}).get(name)


def colour(title: str, result: Mapping[str, Any]) -> str:
    """Return the colour of a system by its group."""
    groups = {each["title"]: each["group"] for each in result["systems"].values()}
    return COLOURS[groups.get(title.partition(", ")[0], groups.get(title, "trivial"))]


def draw_rates(rows: Sequence[Row], result: Mapping[str, Any]) -> Figure:
    """Draw two measures of unseen B cells against the rate of the call that makes counterfactual cells."""

    def rate(row: Row) -> float | None:
        rates = row["costs"]["rates"]
        found = rates.get("counterfactual_sample", rates.get("counterfactual_mean"))
        return None if found is None else found["cells a CPU second"]

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    rates = averages([row for row in rows if not row["title"].startswith("CausCell_IND,")], rate)
    panels = (("pcc", "Pearson of the mean shift"), ("MMD ratio", "MMD ratio (below 1: better than copying)"))
    for ax, (name, label) in zip(figure.subplots(1, 2), panels, strict=True):
        values = averages(rows, measure(TRAINED, UNSEEN, "model, do", name))
        for number, title in enumerate(rates, 1):
            if title in values:
                place = (rates[title], values[title])
                ax.plot(*place, "o", color=colour(title, result))
                ax.annotate(str(number), place, fontsize=8, xytext=(4, 2), textcoords="offset points")
        ax.set(xscale="log", xlabel="counterfactual cells a CPU second, one thread", ylabel=label)
        ax.margins(x=0.25)
    names = [
        Line2D([], [], marker="o", linestyle="", color=colour(title, result), label=f"{number} {title}")
        for number, title in enumerate(rates, 1)
    ]
    figure.legend(handles=names, loc="outside right center", fontsize=8)
    figure.suptitle("Kang, stimulated B cells unseen", fontsize=10)
    return figure


def draw_effects(jobs: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw each system's predicted mean shift of unseen B cells against the real one, a point a gene."""
    titles = {each.adapter: each.title for each in SYSTEMS}
    found = {}
    for content in jobs.values():
        job, shifts = content["job"], content["result"].get("shifts", [])
        if job["case"] == "kang" and job["seed"] == 0 and shifts and shifts[0]["predicted"]:
            found[titles.get(job["system"], job["system"])] = shifts[0]
    names = [title for title in titles.values() if title in found]
    columns = 6
    lines = max(1, -(-len(names) // columns))
    figure = Figure(figsize=(2.1 * columns, 2.2 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for ax, name in zip(panels, names, strict=False):
        real, predicted = np.array(found[name]["real"]), np.array(found[name]["predicted"][0])
        ax.plot(real, predicted, ".", markersize=2)
        ax.axline((0, 0), slope=1, color="0.7", linewidth=0.8)
        ax.set_title(f"{name}, r = {np.corrcoef(real, predicted)[0, 1] if predicted.any() else 0:.2f}", fontsize=8)
        ax.tick_params(labelsize=7)
    for ax in panels[len(names) :]:
        ax.set_visible(False)
    figure.supxlabel("real mean shift of B cells, log scale", fontsize=9)
    figure.supylabel("predicted", fontsize=9)
    return figure


def draw_leakage(rows: Sequence[Row], result: Mapping[str, Any]) -> Figure:
    """Draw how well labels are read from the embedding that should not know them; dashed: the most frequent label."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    for ax, label in zip(figure.subplots(1, 3, sharey=True), ("stim", "donor", "cell_type"), strict=True):
        values = averages(
            [row for row in rows if "variant" not in row], measure(TESTED, LEAKAGE, "embedding of unexplained", label)
        )
        ax.barh(list(values), list(values.values()), color=[colour(title, result) for title in values])
        chance = result["references"].get("kang", {}).get(TESTED, {}).get(LEAKAGE, {}).get("most frequent label", {})
        if label in chance:
            ax.axvline(chance[label][0], color="k", linestyle="--", linewidth=0.8)
        ax.set(title=label, xlim=(0, 1))
        ax.tick_params(labelsize=8)
    figure.axes[0].invert_yaxis()
    figure.suptitle("Accuracy of a linear probe in the unexplained, basal or shared embedding", fontsize=10)
    return figure


def draw_bars(rows: Sequence[Row], result: Mapping[str, Any]) -> Figure:
    """Draw the bars of the paper's figure: a panel a measure, a bar a system."""
    clusters = "Clusters of generated cells"
    panels = {
        "PCC of cells": measure(TESTED, "Mean estimate of the judged cells", "model, mean estimate", "PCC"),
        "MSE of cells": measure(TESTED, "Mean estimate of the judged cells", "model, mean estimate", "MSE"),
        "ARI, clusters": measure(TESTED, clusters, "model, samples", "ARI, clusters of real cells"),
        "NMI, clusters": measure(TESTED, clusters, "model, samples", "NMI, clusters of real cells"),
        "marker overlap": measure(TESTED, "Marker genes", "model, samples", "overlap"),
        "shift, unseen B cells": measure(TRAINED, UNSEEN, "model, do", "pcc"),
    }
    plain = [row for row in rows if "variant" not in row]
    names = [each.title for each in SYSTEMS if each.title in {row["title"] for row in plain}]
    figure = Figure(figsize=(13, 0.6 + 0.26 * len(names)), layout="constrained")
    for ax, (title, take) in zip(figure.subplots(1, len(panels), sharey=True), panels.items(), strict=True):
        values = averages(plain, take)
        ax.barh(names, [values.get(name, np.nan) for name in names], color=[colour(name, result) for name in names])
        ax.set_title(title, fontsize=9)
        ax.tick_params(labelsize=8)
    figure.axes[0].invert_yaxis()
    return figure


if __name__ == "__main__":
    main()
