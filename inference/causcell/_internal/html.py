"""HTML of objects as notebooks show them: a card of facts, and a concept graph drawn as SVG."""

from __future__ import annotations

import itertools
import math
import statistics
import unicodedata
from collections.abc import Mapping, Sequence
from html import escape
from typing import Protocol, TypeAlias

_BOX, _GAP, _ROW = (26, 8), 44, 44
"""Height of a node's box and its padding; distance of columns and of rows, in pixels."""
_CHARACTER, _CAPITAL, _WIDE = 7.6, 9.4, 12.1
"""Widths of characters at 12 pixels, in a font that is wide: DejaVu Sans."""

_STYLE = (
    "<style>.causcell-card{font:13px/1.5 sans-serif}.causcell-card table{border-collapse:collapse}"
    ".causcell-card td{padding:.1em .8em .1em 0;text-align:left;vertical-align:top;background:none}"
    ".causcell-card td:first-child{opacity:.7}.causcell-card svg{color:inherit;margin:.4em 0}</style>"
)


_Key: TypeAlias = str | tuple[str, str, int]
"""A concept by its name; or an edge in a column that it skips: cause, effect, column."""


class _Edge(Protocol):
    @property
    def parent(self) -> str: ...

    @property
    def child(self) -> str: ...


class _Graph(Protocol):
    """A concept graph; `causcell.concepts.ConceptSchema` is one."""

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def edges(self) -> Sequence[_Edge]: ...


def html_card(title: str, rows: Mapping[str, str], graph: str = "") -> str:
    """Return a title, an optional drawing and a table of facts, as one HTML element.

    Parameters
    ----------
    title
        First line.
    rows
        Facts by name; both are escaped.
    graph
        SVG, as it is.

    Examples
    --------
    >>> "<b>Run</b>" in html_card("Run", {"cells": "700 < 1,000"})
    True
    """
    facts = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in rows.items())
    return f'<div class="causcell-card">{_STYLE}<b>{escape(title)}</b>{graph}<table>{facts}</table></div>'


def graph_svg(graph: _Graph, colours: Mapping[str, str] | None = None) -> str:
    """Draw a concept graph from causes (left) to effects (right), as inline SVG in the text's colour.

    An edge that skips columns has a row of its own there, so that it runs through no other concept (the layered
    drawing of Sugiyama, Tagawa and Toda 1981).

    Parameters
    ----------
    graph
        Names of the concepts, and edges between them; it has no cycle.
    colours
        CSS colour of the box of some of the names.
    """
    places, size = place_concepts(graph)
    middle = _BOX[0] / 2
    lines = []
    depths = _depths(graph)
    ends = [
        max(places[name][1] for name in graph.names if depths[name] == depth)
        for depth in range(len(set(depths.values())))
    ]
    for edge in graph.edges:
        first, *between, last = (places[key] for key in _path(edge, depths))
        points = [(first[1], first[2]), (ends[depths[edge.parent]], first[2])]  # beside wider boxes of its column
        points += [(x, y) for left, right, y in between for x in (left, right)]
        text = " ".join(f"{x:.0f},{y + middle:.0f}" for x, y in [*points, (last[0] - 3, last[2])])
        lines.append(f'<polyline points="{text}" fill="none" stroke="currentColor" marker-end="url(#causcell-arrow)"/>')
    strokes = {name: (colours or {}).get(name, "currentColor") for name in graph.names}
    boxes = [
        f'<rect x="{left:.0f}" y="{y:.0f}" width="{right - left:.0f}" height="{_BOX[0]}" rx="5" fill="none" '
        f'stroke="{strokes[name]}"/><text x="{(left + right) / 2:.0f}" y="{y + middle + 4:.0f}" font-size="12" '
        f'font-family="sans-serif" text-anchor="middle" fill="currentColor">{escape(name)}</text>'
        for name, (left, right, y) in ((name, places[name]) for name in graph.names)
    ]
    arrow = (
        '<defs><marker id="causcell-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0L8 4L0 8z" fill="currentColor"/></marker></defs>'
    )
    told = "; ".join([", ".join(graph.names), *(f"{edge.parent} to {edge.child}" for edge in graph.edges)])
    drawing = "".join([arrow, *lines, *boxes])
    return (
        f'<svg role="img" aria-label="concept graph" width="{size[0]:.0f}" height="{size[1]:.0f}" '
        f'style="display:block" xmlns="http://www.w3.org/2000/svg"><title>Concept graph</title>'
        f"<desc>{escape(told)}</desc>{drawing}</svg>"
    )


def place_concepts(graph: _Graph) -> tuple[dict[_Key, tuple[float, float, float]], tuple[float, float]]:
    """Give left, right and upper edge of each concept, and of each edge in the columns that it skips; and the size."""
    depths = _depths(graph)
    columns: list[list[_Key]] = [[] for _ in range(max(depths.values()) + 1)]
    for name in graph.names:
        columns[depths[name]].append(name)
    before: dict[_Key, list[_Key]] = {}
    for edge in graph.edges:
        for source, target in itertools.pairwise(_path(edge, depths)):
            before.setdefault(target, []).append(source)
            if isinstance(target, tuple):
                columns[target[2]].append(target)
    places: dict[_Key, tuple[float, float, float]] = {}
    left = 1.0
    for column in columns:
        if left > 1.0:  # beside what they follow from
            column.sort(key=lambda key: statistics.mean(places[each][2] for each in before[key]))
        width = max(_box_width(key) for key in column if isinstance(key, str))
        for row, key in enumerate(column):
            own = _box_width(key) if isinstance(key, str) else width
            places[key] = (left, left + own, 1.0 + row * _ROW)
        left += width + _GAP
    return places, (left - _GAP + 1, max(map(len, columns)) * _ROW - (_ROW - _BOX[0]) + 2)


def _box_width(name: str) -> float:
    """Return the width of a box that holds the name in any usual font."""
    return math.ceil(sum(map(_character_width, name))) + 2 * _BOX[1]


def _character_width(character: str) -> float:
    if character in "MWmw@%" or unicodedata.east_asian_width(character) in "WF":
        return _WIDE
    return _CAPITAL if character.isupper() else _CHARACTER


def _path(edge: _Edge, depths: Mapping[str, int]) -> list[_Key]:
    """Give an edge's cause, its place in each column that it skips, and its effect."""
    skipped = range(depths[edge.parent] + 1, depths[edge.child])
    return [edge.parent, *((edge.parent, edge.child, column) for column in skipped), edge.child]


def _depths(graph: _Graph) -> dict[str, int]:
    """Put each concept one column right of its last cause."""
    depths = dict.fromkeys(graph.names, 0)
    for _ in graph.names:  # as many rounds as the longest path can need
        for edge in graph.edges:
            depths[edge.child] = max(depths[edge.child], depths[edge.parent] + 1)
    return depths
