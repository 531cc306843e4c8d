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
from causcell.evaluation.dot_plot import STYLE, draw_dots
from causcell.evaluation.scores import Role
from causcell.evaluation.table import Table
from causcell.repository.verdicts import Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

JSON_FILE = "report.json"
HTML_FILE = "report.html"

_PACKAGES = ("causcell", "anndata", "numpy", "scipy", "scikit-learn", "scanpy", "onnxruntime", "torch")
"""Distributions whose versions a report states, where they are installed."""

_CLASSES = {True: "usable", False: "doubtful", None: "unjudged"}
"""Class of a verdict in the page, by whether the concept is usable."""

_COLOURS: dict[Role, str] = {"model": "tab:blue", "trivial": "0.8", "replicate": "0.5", "cheat": "tab:red"}
"""Colour of a row's bars by its part; those of no part are as light as trivial ones."""

_STYLE = (
    ":root{color-scheme:light dark;--text:#1c2430;--quiet:#5b6675;--back:#fff;--card:#f4f6f9;--line:#d3dae3}"
    "@media(prefers-color-scheme:dark){:root{--text:#e6e9ee;--quiet:#a3adba;--back:#14181d;--card:#1e242c;"
    "--line:#3a4450}}body{font:16px/1.55 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;"
    "color:var(--text);background:var(--back)}h1{margin-bottom:.2rem}h2{margin-top:2.6rem}p{max-width:48rem}"
    "nav{columns:2;font-size:.92rem;background:var(--card);border-radius:8px;padding:.8rem 1.2rem}"
    "nav a{display:block;color:inherit;margin:.1rem 0}.silent{color:var(--quiet)}"
    ".verdicts{list-style:none;padding:0}.verdicts li{background:var(--card);border-left:6px solid #888;"
    "border-radius:6px;padding:.6rem 1rem;margin:.6rem 0}.usable{border-color:#007a5a!important}"
    ".doubtful{border-color:#c04f00!important}.word{font-weight:600;text-transform:uppercase;font-size:.78rem;"
    "letter-spacing:.04em;margin-right:.5rem}table{border-collapse:collapse;font-size:13px;margin-top:.6rem}"
    "td,th{padding:.2em .7em;border-bottom:1px solid var(--line);text-align:right;font-variant-numeric:tabular-nums}"
    "td:first-child,th:first-child{text-align:left}pre,.scroll{overflow:auto}pre{background:var(--card);padding:.7em;"
    "border-radius:6px}summary{cursor:pointer;color:var(--quiet)}dt{float:left;clear:left;font-weight:600;"
    "margin-right:.6rem}dd{margin:0 0 .3rem 0}"
) + STYLE

_VERDICT_WORDS = {True: "usable", False: "don't intervene on it", None: "not judged"}


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
) -> dict[str, Any]:
    """Write ``report.json`` and ``report.html`` into a new folder.

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
        (folder / HTML_FILE).write_text(format_page(title, facts, tables, verdicts))
    return content


def format_page(title: str, facts: Mapping[str, Any], tables: Sequence[Table], verdicts: Sequence[Verdict] = ()) -> str:
    """Lay the page out: verdicts first, contents, a figure and below it the numbers of each table, then the facts."""
    named = {f"table-{number}": table for number, table in enumerate(tables, 1)}
    links = [f'<a href="#{anchor}">{html.escape(table.name)}</a>' for anchor, table in named.items()]
    judged = "".join(map(_format_verdict, verdicts))
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f'<h2>Verdicts</h2><ul class="verdicts">{judged}</ul>' if judged else "",
        _format_graph(facts.get("model"), verdicts),
        f'<nav aria-label="contents">{"".join(links)}<a href="#facts">Cells, model, command and versions</a></nav>',
        *(_format_table_section(anchor, table) for anchor, table in named.items()),
        '<h2 id="facts">Cells, model, command and versions</h2>',
        f"<pre>{html.escape(str(facts.get('command', '')))}</pre><dl>",
        *(f"<dt>{html.escape(name)}</dt><dd>{html.escape(_format_fact(value))}</dd>" for name, value in facts.items()),
        "</dl>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _format_verdict(verdict: Verdict) -> str:
    word = f'<span class="word">{html.escape(_VERDICT_WORDS[verdict.usable])}</span>'
    return (
        f'<li class="{_CLASSES[verdict.usable]}"><b>{html.escape(verdict.title)}</b> {word}<br>'
        f"{html.escape(verdict.reason)}</li>"
    )


@dataclass(frozen=True)
class _DrawnGraph:
    names: tuple[str, ...]
    edges: tuple[Edge, ...]


def _format_graph(model: Any, verdicts: Sequence[Verdict]) -> str:
    """Draw the concepts of a model's facts and its edges, with how often each label is read right."""
    if not isinstance(model, Mapping) or not {"concepts", "edges"} <= set(model):
        return ""
    read = {each.concept: each.accuracy for each in verdicts if each.accuracy is not None}
    shown = {name: f"{name}: {read[name]:.2f} read right" if name in read else name for name in model["concepts"]}
    pairs = [text.rpartition(" (")[0].partition(":")[::2] for text in model["edges"]]
    edges = tuple(Edge(shown[parent], shown[child]) for parent, child in pairs if {parent, child} <= set(shown))
    return f"<p>{graph_svg(_DrawnGraph(tuple(shown.values()), edges))}</p>"


def _format_table_section(anchor: str, table: Table) -> str:
    distrusted = (
        f'<p class="silent">{html.escape(f"{measure} is not to be trusted on these data: it {why}")}.</p>'
        for measure, why in table.distrusted.items()
    )
    parts = [
        f'<h2 id="{anchor}">{html.escape(table.name)}</h2>',
        f"<p>{html.escape(table.interpretation)}</p>",
        draw_dots(table) if table.measures else "<p>Nothing could be measured.</p>",
        *distrusted,
        f'<p class="silent">What it can\'t tell: {html.escape(table.limitations)}</p>',
    ]
    if table.measures:
        parts.append(
            f'<details><summary>Numbers</summary><div class="scroll">{_format_html_table(table)}</div></details>'
        )
    return "".join(parts)


def _format_fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{name} {_format_fact(each)}" for name, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


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
