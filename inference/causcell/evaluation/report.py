"""Reports: ``report.json``, and one self-contained HTML page with figures, the command and versions."""

from __future__ import annotations

import html
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell._internal.cpus import available_cpus
from causcell._internal.figures import plain_text
from causcell._internal.files import new_folder
from causcell._internal.html import graph_svg
from causcell._internal.versions import installed_versions
from causcell.concepts import Edge
from causcell.evaluation.cell_maps import CellMap
from causcell.evaluation.dot_plot import draw_dots
from causcell.evaluation.effect_figures import SHIFTS_FILE, format_effect_figures
from causcell.evaluation.gene_shifts import gene_shifts_anndata
from causcell.evaluation.page_style import STYLE
from causcell.evaluation.scores import Role
from causcell.evaluation.table import Table
from causcell.evaluation.verdict_cards import format_verdict
from causcell.repository.verdicts import Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

JSON_FILE = "report.json"
HTML_FILE = "report.html"

_PACKAGES = ("causcell", "anndata", "numpy", "scipy", "scikit-learn", "scanpy", "onnxruntime", "torch")
"""Distributions whose versions a report states, where they are installed."""

_VERDICT_COLOURS = {True: "var(--good)", False: "var(--far)", None: "var(--quiet)"}
"""Colour of a concept in the graph, by whether it is usable."""

_LONG = 480
"""Characters of an interpretation from which on it is shown on demand."""

_COLOURS: dict[Role, str] = {"model": "tab:blue", "trivial": "0.8", "replicate": "0.5", "cheat": "tab:red"}
"""Colour of a row's bars by its part; those of no part are as light as trivial ones."""


def run_environment() -> dict[str, Any]:
    """Return the exact command, the versions of packages and the hardware of this run."""
    return {
        "command": " ".join(["causcell", *sys.argv[1:]]),
        "versions": {"python": platform.python_version()} | installed_versions(*_PACKAGES),
        "hardware": f"{platform.machine()}, {available_cpus()} CPUs",
    }


def write_report(
    out: str | os.PathLike[str],
    title: str,
    facts: Mapping[str, Any],
    tables: Sequence[Table],
    verdicts: Sequence[Verdict] = (),
    maps: Mapping[str, CellMap | str] | None = None,
) -> dict[str, Any]:
    """Write ``report.json`` and ``report.html`` into a new folder, and ``shifts.h5ad`` where shifts of genes were kept.

    Parameters
    ----------
    out
        The folder.
    title
        Head of the page.
    facts
        What else the report states, by name: `run_environment`, the cells, the model.
    tables
        Measures; a figure is drawn of each.
    verdicts
        Verdicts on the concepts, which the report opens with.
    maps
        Map of an intervention by concept, or why there is none; see `causcell.evaluation.cell_maps`.

    Returns
    -------
    The content of ``report.json``.

    Raises
    ------
    OutputExistsError
        Something is at ``out``.
    """
    judged = [verdict.model_dump(mode="json") for verdict in verdicts]
    content = {"title": title, "verdicts": judged, **facts, "tables": [table.to_json() for table in tables]}
    with new_folder(out) as folder:
        (folder / JSON_FILE).write_text(json.dumps(content, indent=1) + "\n")
        (folder / HTML_FILE).write_text(format_page(title, facts, tables, verdicts, maps))
        shifts = [shift for table in tables for shift in table.shifts]
        if shifts:
            gene_shifts_anndata(shifts).write_h5ad(folder / SHIFTS_FILE, compression="gzip")
    return content


def format_page(
    title: str,
    facts: Mapping[str, Any],
    tables: Sequence[Table],
    verdicts: Sequence[Verdict] = (),
    maps: Mapping[str, CellMap | str] | None = None,
) -> str:
    """Lay the page out: verdicts first, contents, a figure and below it the numbers of each table, then the facts."""
    named = {f"table-{number}": table for number, table in enumerate(tables, 1)}
    links = [f'<a href="#{anchor}">{html.escape(table.name)}</a>' for anchor, table in named.items()]
    judged = "".join(map(format_verdict, verdicts))
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f'<h2>Verdicts</h2><ul class="verdicts">{judged}</ul>' if judged else "",
        _format_graph(facts.get("model"), verdicts),
        f'<nav aria-label="contents">{"".join(links)}<a href="#facts">Cells, model, command and versions</a></nav>',
        *(_format_table_section(anchor, table, maps or {}) for anchor, table in named.items()),
        '<h2 id="facts">Cells, model, command and versions</h2>',
        f"<pre>{html.escape(str(facts.get('command', '')))}</pre><dl>",
        *(
            f"<dt>{html.escape(name)}</dt><dd>{html.escape(_format_fact(value))}</dd>"
            for name, value in facts.items()
            if name != "command"
        ),
        "</dl>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


@dataclass(frozen=True)
class _DrawnGraph:
    names: tuple[str, ...]
    edges: tuple[Edge, ...]


def _format_graph(model: Any, verdicts: Sequence[Verdict]) -> str:
    """Draw the concepts of a model's facts and its edges, with how often each label is read right."""
    if not isinstance(model, Mapping) or not {"concepts", "edges"} <= set(model):
        return ""
    judged = {each.concept: each for each in verdicts if each.combinations == "seen"}
    shown = {name: _describe_reading(name, judged.get(name)) for name in model["concepts"]}
    colours = {shown[name]: _VERDICT_COLOURS[judged[name].usable] for name in judged if name in shown}
    pairs = [text.rpartition(" (")[0].partition(":")[::2] for text in model["edges"]]
    edges = tuple(Edge(shown[parent], shown[child]) for parent, child in pairs if {parent, child} <= set(shown))
    drawn = graph_svg(_DrawnGraph(tuple(shown.values()), edges), colours)
    arrows = "Arrows go from causes to effects. " if edges else ""
    return (
        f'<h2>Concepts</h2><figure><div class="scroll">{drawn}</div><figcaption>{arrows}Read right: '
        "share of the judged cells whose label is read right from its own embedding, the higher the better; guessed: "
        "the share of the most frequent label. Green: may be intervened on; orange: not to be; grey: not judged."
        "</figcaption></figure>"
    )


def _describe_reading(name: str, verdict: Verdict | None) -> str:
    if verdict is None or verdict.accuracy is None:
        return name
    guessed = "" if verdict.majority is None else f", {verdict.majority:.2f} guessed"
    return f"{name}: {verdict.accuracy:.2f} read right{guessed}"


def _format_table_section(anchor: str, table: Table, maps: Mapping[str, CellMap | str]) -> str:
    distrusted = (
        f'<p class="silent">{html.escape(f"{measure} is not to be trusted on these data: it {why}")}.</p>'
        for measure, why in table.distrusted.items()
    )
    parts = [
        f'<h2 id="{anchor}">{html.escape(table.name)}</h2>',
        _format_interpretation(table.interpretation),
        f'<div class="scroll">{draw_dots(table)}</div>' if table.measures else "<p>Nothing could be measured.</p>",
        *distrusted,
        format_effect_figures(table, maps),
        f'<p class="silent">What it can\'t tell: {html.escape(table.limitations)}</p>',
    ]
    if table.measures:
        parts.append(
            f'<details><summary>Numbers</summary><div class="scroll">{_format_html_table(table)}</div></details>'
        )
    return "".join(parts)


def _format_interpretation(text: str) -> str:
    """Return what a table's measures say: a long text opens on demand, below its summary."""
    if len(text) <= _LONG:
        return f"<p>{html.escape(text)}</p>"
    return f"<details><summary>What is measured, and how</summary><p>{html.escape(text)}</p></details>"


def _format_fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{name} {_format_fact(each)}" for name, each in value.items())
    return ", ".join(map(str, value)) or "none" if isinstance(value, list | tuple) else str(value)


def _format_html_table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(measure)}</th>" for measure in table.measures)
    lines = [
        f"<tr><td>{html.escape(row)}</td>"
        + "".join(f"<td>{_format_cell(table, row, measure)}</td>" for measure in table.measures)
        + "</tr>"
        for row in table.rows
    ]
    return f"<table><tr><th></th>{head}</tr>{''.join(lines)}</table>"


def _format_cell(table: Table, row: str, measure: str) -> str:
    score = table.format_score(row, measure)
    return table.format_value(row, measure) + (f"<br><small>score {html.escape(score)}</small>" if score else "")


def draw_bars(table: Table, measure: str, ax: Axes) -> Axes:
    """Draw one measure of all rows as bars, from the first row at the top.

    Whiskers show what stands beside the value in the table: the spread of repetitions, or a single one's interval.

    Parameters
    ----------
    table
        The table.
    measure
        One of its measures; a row without it has no bar.
    ax
        Axes to draw on; several that share their vertical axis may be given one after another.

    Returns
    -------
    The axes.
    """
    names = list(table.rows)
    values = [table.rows[name].get(measure, (np.nan,)) for name in names]
    colours = [_COLOURS.get(table.roles.get(name, "other"), "0.8") for name in names]
    places = np.arange(len(names))
    ax.barh(
        places, [np.mean(each) for each in values], xerr=[table.whisker(name, measure) for name in names], color=colours
    )
    ax.locator_params(axis="x", nbins=4)
    ax.set_yticks(places, [plain_text(name) for name in names])
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_title(plain_text(measure), fontsize=8)
    ax.tick_params(labelsize=7)
    return ax
