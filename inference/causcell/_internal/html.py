"""HTML of objects as notebooks show them: a card of facts, and a concept graph drawn as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Protocol

_BOX, _GAP, _ROW = (26, 8), 44, 44
"""Height of a node's box and its padding; distance of columns and of rows, in pixels."""
_CHARACTER = 7.2
"""Width of a character at 12 pixels."""

_STYLE = (
    "<style>.causcell-card{font:13px/1.5 sans-serif}.causcell-card table{border-collapse:collapse}"
    ".causcell-card td{padding:.1em .8em .1em 0;text-align:left;vertical-align:top;background:none}"
    ".causcell-card td:first-child{opacity:.7}.causcell-card svg{color:inherit;margin:.4em 0}</style>"
)


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


def graph_svg(graph: _Graph) -> str:
    """Draw a concept graph from causes (left) to effects (right), as inline SVG in the text's colour.

    Parameters
    ----------
    graph
        Names of the concepts, and edges between them; it has no cycle.
    """
    columns = _columns(graph)
    widths = {name: len(name) * _CHARACTER + 2 * _BOX[1] for name in graph.names}
    left, places = 1.0, {}
    for column in columns:
        for row, name in enumerate(column):
            places[name] = (left, 1.0 + row * _ROW)
        left += max(widths[name] for name in column) + _GAP
    size = (left - _GAP + 1, max(map(len, columns)) * _ROW - (_ROW - _BOX[0]) + 2)
    middle = _BOX[0] / 2
    lines = []
    for edge in graph.edges:
        (x1, y1), (x2, y2) = places[edge.parent], places[edge.child]
        lines.append(
            f'<line x1="{x1 + widths[edge.parent]:.0f}" y1="{y1 + middle:.0f}" x2="{x2 - 3:.0f}" '
            f'y2="{y2 + middle:.0f}" stroke="currentColor" marker-end="url(#causcell-arrow)"/>'
        )
    boxes = [
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{widths[name]:.0f}" height="{_BOX[0]}" rx="5" fill="none" '
        f'stroke="currentColor"/><text x="{x + widths[name] / 2:.0f}" y="{y + middle + 4:.0f}" font-size="12" '
        f'font-family="sans-serif" text-anchor="middle" fill="currentColor">{escape(name)}</text>'
        for name, (x, y) in places.items()
    ]
    arrow = (
        '<defs><marker id="causcell-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0L8 4L0 8z" fill="currentColor"/></marker></defs>'
    )
    drawing = "".join([arrow, *lines, *boxes])
    return (
        f'<svg role="img" aria-label="concept graph" width="{size[0]:.0f}" height="{size[1]:.0f}" '
        f'style="display:block" xmlns="http://www.w3.org/2000/svg">{drawing}</svg>'
    )


def _columns(graph: _Graph) -> list[list[str]]:
    """Put each concept one column right of its last cause."""
    depth = dict.fromkeys(graph.names, 0)
    for _ in graph.names:  # as many rounds as the longest path can need
        for edge in graph.edges:
            depth[edge.child] = max(depth[edge.child], depth[edge.parent] + 1)
    return [[name for name in graph.names if depth[name] == place] for place in range(max(depth.values()) + 1)]
