"""Reports: ``report.json``, and one self-contained HTML page with figures, the command and versions."""

from __future__ import annotations

import base64
import html
import io
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell._internal.cpus import available_cpus
from causcell._internal.figures import plain_text
from causcell._internal.files import new_folder
from causcell._internal.versions import installed_versions
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
    "body{font:15px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;font-size:13px}td,th{padding:.2em .7em;border-bottom:1px solid #ddd;"
    "text-align:right}td:first-child,th:first-child{text-align:left}pre{background:#f5f5f5;padding:.7em;"
    "overflow:auto}img{max-width:100%}.silent,.doubtful{color:#744}.usable{color:#252}"
)


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
        (folder / HTML_FILE).write_text(_format_page(title, facts, tables, verdicts))
    return content


def _format_page(
    title: str, facts: Mapping[str, Any], tables: Sequence[Table], verdicts: Sequence[Verdict] = ()
) -> str:
    parts = [f"<h1>{html.escape(title)}</h1>"]
    if verdicts:
        items = "".join(
            f'<li class="{_CLASSES[each.usable]}"><b>{html.escape(each.title)}</b>: {html.escape(each.reason)}</li>'
            for each in verdicts
        )
        parts.append(f"<h2>Verdicts</h2><ul>{items}</ul>")
    parts.append(f"<pre>{html.escape(str(facts.get('command', '')))}</pre>")
    parts += [f"<p><b>{html.escape(name)}</b>: {html.escape(_format_fact(value))}</p>" for name, value in facts.items()]
    for table in tables:
        parts += [
            f"<h2>{html.escape(table.name)}</h2>",
            f"<p>{html.escape(table.interpretation)}</p>",
            f'<p class="silent">What it can\'t tell: {html.escape(table.limitations)}</p>',
            _format_html_table(table),
            *(
                f'<p class="silent">{html.escape(f"{measure} is not to be trusted on these data: it {why}")}.</p>'
                for measure, why in table.distrusted.items()
            ),
            *([_format_figure(table)] if table.measures else []),
        ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _format_fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{name} {_format_fact(each)}" for name, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _format_figure(table: Table) -> str:
    return f'<p><img alt="{html.escape(table.name)}" src="data:image/png;base64,{_draw_figure(table)}"></p>'


def _format_html_table(table: Table) -> str:
    if not table.measures:
        return "<p>Nothing could be measured.</p>"
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


def _draw_figure(table: Table) -> str:
    """Draw a panel of bars for each measure, and return it as base64 of a PNG; a user's own settings change nothing."""
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(table.measures)
    panel = max(2.2, 0.08 * max(map(len, table.measures)))
    names = 0.062 * max(map(len, table.rows))
    with matplotlib.style.context("default"):
        width, height = 0.8 + names + panel * count, 0.9 + 0.26 * len(table.rows)
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        # the sizes of texts are known well enough: to have them measured takes as long as all the rest of an evaluation
        places = {"left": (0.3 + names) / width, "right": 1 - 0.1 / width, "wspace": 0.15}
        figure.subplots_adjust(**places, top=1 - 0.35 / height, bottom=0.35 / height)
        panels = np.atleast_1d(figure.subplots(1, count, sharey=True))
        for ax, measure in zip(panels, table.measures, strict=True):
            draw_bars(table, measure, ax)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=80)
    return base64.b64encode(buffer.getvalue()).decode()


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
