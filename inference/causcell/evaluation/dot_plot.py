"""Dot plots of a table as SVG: a line a measure, with the model, the baselines and the ceiling on it.

Drawn as text, in the colours of the page around it: hundreds take no time, and light and dark pages show them alike.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from html import escape

import numpy as np

from causcell._internal.svg import figure_svg
from causcell.evaluation.registry import BETTER, KINDS, Better, registered_metrics
from causcell.evaluation.scores import Role
from causcell.evaluation.table import Table

_WIDTH, _LEFT, _RIGHT = 820, 250, 70
_LANE, _RADIUS, _ROOM = 19, 8, 15
"""Distance of dots one above another, their radius, and room above and below the line, in pixels."""

_CLASSES: dict[Role, str] = {"model": "model", "trivial": "trivial", "replicate": "ceiling", "cheat": "cheat"}
_WORDS = {
    "model": "judged",
    "trivial": "trivial",
    "ceiling": "ceiling",
    "cheat": "cheat",
    "other": "",
}

STYLE = (
    ".dots{max-width:100%;min-width:40rem;height:auto;font:12px system-ui,sans-serif}.dots text{fill:var(--text)}"
    ".dots .axis{stroke:var(--line)}.dots .quiet{fill:var(--quiet);font-size:11px}.dots .in{font-size:10px;fill:#fff}"
    ".dots .whisker{stroke:currentColor;stroke-opacity:.45}.dots .model{fill:#0072b2}.dots .trivial{fill:#7a8594}"
    ".dots .ceiling{fill:#007a5a}.dots .cheat{fill:#c04f00}.dots .other{fill:#555c66}.key{font-size:.85rem;columns:2}"
    ".key span{display:inline-block;min-width:1.25rem;border-radius:.7rem;color:#fff;text-align:center;"
    "font-size:.75rem}"
    ".key .model{background:#0072b2}.key .trivial{background:#7a8594}.key .ceiling{background:#007a5a}"
    ".key .cheat{background:#c04f00}.key .other{background:#555c66}.key div{break-inside:avoid;margin:.1rem 0}"
)
"""What a page needs for them; it defines the colours ``--text``, ``--quiet`` and ``--line``."""


def draw_dots(table: Table) -> str:
    """Draw every measure of a table on a line of its own, from its lowest to its highest value, with a key.

    Counts have none.

    Parameters
    ----------
    table
        The table; a row without a measure has no dot there. Whiskers show what stands beside the value in the table.

    Returns
    -------
    HTML: an SVG, and the key of its letters.

    Examples
    --------
    >>> rows = {"model": {"MSE": 0.2}, "mean": {"MSE": 0.5}}
    >>> html = draw_dots(Table.of("Errors", rows, interpretation="", limitations="", roles={"model": "model"}))
    >>> html.count("<circle"), "the lower the better" in html
    (2, True)
    """
    letters = dict(zip(table.rows, _letters(len(table.rows)), strict=True))
    parts, top = [], 8.0
    measures = [measure for measure in table.measures if measure not in table.counts]
    for measure in measures:
        drawn, height = _draw_measure(table, measure, letters, top)
        parts.append(drawn)
        top += height
    told = f"Values of {len(table.rows)} rows for {len(measures)} measures: {', '.join(measures)}."
    svg = figure_svg("dots", table.name, told, (_WIDTH, top), "".join(parts))
    return (
        f'{svg}<div class="key">{"".join(_describe_row(table, row, letter) for row, letter in letters.items())}</div>'
    )


def find_direction(measure: str, directions: Mapping[str, Better] | None = None) -> str:
    """Say in words when a measure is good; nothing for one whose direction is not known.

    Parameters
    ----------
    measure
        Title of the measure.
    directions
        Those of a table's own measures; they go before those that are registered.

    Examples
    --------
    >>> find_direction("PCC")
    'the higher the better'
    """
    found = {metric.title: metric.better for metric in registered_metrics(*KINDS)} | dict(directions or {})
    better = found.get(measure) or ("higher" if measure in ("accuracy", "precision", "recall", "F1") else None)
    return BETTER[better].partition(" (")[0] if better else ""


def _draw_measure(table: Table, measure: str, letters: dict[str, str], top: float) -> tuple[str, float]:
    """Draw one line; return it with its height."""
    values = {row: float(np.mean(each[measure])) for row, each in table.rows.items() if measure in each}
    finite = {row: value for row, value in values.items() if np.isfinite(value)}
    low, high = (min(finite.values()), max(finite.values())) if finite else (0.0, 1.0)
    span = (high - low) or 1.0
    inner = _WIDTH - _LEFT - _RIGHT
    places = {row: _LEFT + inner * (value - low) / span for row, value in finite.items()}
    lanes = _stack(places)
    line = top + _ROOM + _LANE * max(lanes.values(), default=0)
    parts = [
        f'<text x="8" y="{line + 1:.0f}">{escape(measure)}</text>',
        f'<text class="quiet" x="8" y="{line + 15:.0f}">{escape(find_direction(measure, table.better))}</text>',
        f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{line:.0f}" y2="{line:.0f}"/>',
        f'<text class="quiet" x="{_LEFT}" y="{line + 24:.0f}" text-anchor="middle">{low:.3g}</text>',
        f'<text class="quiet" x="{_WIDTH - _RIGHT}" y="{line + 24:.0f}" text-anchor="middle">{high:.3g}</text>',
    ]
    for row, x in places.items():
        y = line - _LANE * lanes[row]
        reach = float(table.whisker(row, measure)) * inner / span
        if np.isfinite(reach) and reach > 0:
            left, right = max(x - reach, _LEFT - 20), min(x + reach, _WIDTH - _RIGHT + 20)
            parts.append(f'<line class="whisker" x1="{left:.1f}" x2="{right:.1f}" y1="{y:.0f}" y2="{y:.0f}"/>')
        told = escape(f"{row}: {table.format_value(row, measure)}")
        parts.append(
            f'<g><title>{told}</title><circle class="{_part(table, row)}" cx="{x:.1f}" cy="{y:.0f}" r="{_RADIUS}"/>'
            f'<text class="in" x="{x:.1f}" y="{y + 3.5:.1f}" text-anchor="middle">{letters[row]}</text></g>'
        )
    return "".join(parts), _LANE * max(lanes.values(), default=0) + _ROOM + 32


def _stack(places: dict[str, float]) -> dict[str, int]:
    """Put dots that would cover each other into lanes, 0 on the line."""
    lanes: dict[str, int] = {}
    last: list[float] = []
    for row, place in sorted(places.items(), key=lambda each: each[1]):
        free = next((lane for lane, x in enumerate(last) if place - x >= 2 * _RADIUS + 1), len(last))
        last[free : free + 1] = [place]
        lanes[row] = free
    return lanes


def _letters(count: int) -> list[str]:
    one = list(string.ascii_lowercase)
    return (one + [f"{first}{second}" for first in one for second in one])[:count]


def _part(table: Table, row: str) -> str:
    return _CLASSES.get(table.roles.get(row, "other"), "other")


def _describe_row(table: Table, row: str, letter: str) -> str:
    part = _part(table, row)
    word = f" ({_WORDS[part]})" if _WORDS[part] else ""
    return f'<div><span class="{part}">{letter}</span> {escape(row)}{word}</div>'
