"""Panels of a map: real cells, the same cells as the model makes them, and counterfactual ones over real targets."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from causcell._internal.figures import safe_colours
from causcell._internal.svg import draw_points, draw_rings, figure_svg, shorten, text_width
from causcell.concepts import UNLABELLED
from causcell.evaluation.cell_maps import CellMap, MappedCells, list_shown_labels

_PANEL, _GAP, _TOP, _LEFT, _FOOT, _EDGE = 256, 22, 42, 22, 26, 8
_LAYERS = 6
"""Parts that cells are drawn in, each with cells of every label, so that no label covers the others."""

DARK = (
    "#4da3dc", "#e69f00", "#2fc79b", "#ff8c3a", "#dd93bb", "#8fd0f7", "#f0e442", "#e6e9ee", "#9a8cf0", "#d9649a",
    "#bdbd52", "#d07fca",
)  # fmt: skip
"""Colours of labels on a dark page, in place of `safe_colours`, some of which are not seen there."""

_MOST_NAMES = 6
"""Labels that are named over their cells, at most: the key names more."""


def _define(colours: Sequence[str]) -> str:
    return "".join(f"--label-{number}:{colour};" for number, colour in enumerate(colours))


STYLE = (
    f":root{{{_define(safe_colours(len(DARK)))}}}@media(prefers-color-scheme:dark){{:root{{{_define(DARK)}}}}}"
    ".map .cells{fill:none;stroke-width:9;stroke-linecap:round;stroke-opacity:.85}.map .behind{fill:none;"
    "stroke:var(--behind);stroke-width:9;stroke-linecap:round}.map .rings{fill:none;stroke-width:2.4}"
    ".map .name{font-size:11px;font-weight:600;paint-order:stroke;stroke:var(--back);stroke-width:3px;"
    "text-anchor:middle}"
)
"""What a page needs for them, beside `shift_panels.STYLE`."""


@dataclass(frozen=True)
class _Panel:
    """Two lines of text, the cells in colour, real ones behind them in grey, and cells that are drawn as rings."""

    head: str
    line: str
    cells: tuple[MappedCells, ...]
    behind: MappedCells | None = None
    rings: MappedCells | None = None


def draw_map(title: str, drawn: CellMap) -> str:
    """Draw a map's panels side by side, cells in the colour of the label that they carry (had before).

    Parameters
    ----------
    title
        Of the figure.
    drawn
        The map.

    Returns
    -------
    SVG, with a key of the colours below the panels.
    """
    shown = list_shown_labels(drawn)
    colours = choose_colours(drawn, shown)
    panels = _list_panels(drawn)
    points = np.concatenate([drawn.sources.places, *(each.places for panel in panels for each in panel.cells)])
    low, high = points.min(axis=0), points.max(axis=0)
    span = max(float((high - low).max()), 1e-6)
    parts = []
    for number, panel in enumerate(panels):
        left = _LEFT + number * (_PANEL + _GAP)
        parts += [
            f'<text x="{left}" y="{_TOP - 24}">{escape(shorten(panel.head, _PANEL))}</text>',
            f'<text class="quiet" x="{left}" y="{_TOP - 8}">{escape(shorten(panel.line, _PANEL, 10))}</text>',
            f'<rect class="frame" x="{left}" y="{_TOP}" width="{_PANEL}" height="{_PANEL}"/>',
        ]
        to = _Frame(left, (low + high - span) / 2, span)
        if panel.behind is not None:
            parts.append(f'<path class="behind" transform="scale(.5)" d="{draw_points(*to.place(panel.behind))}"/>')
        parts += _draw_cells(panel.cells, to, colours)
        if panel.rings is not None:
            parts += _draw_cells([panel.rings], to, colours, rings=True)
        if not number and len(shown) <= _MOST_NAMES:
            parts += _draw_names(drawn, to, [code for code in shown if code != UNLABELLED])
    width, middle = _LEFT + len(panels) * (_PANEL + _GAP), _TOP + _PANEL / 2
    key, height = _draw_key({_name(drawn, code): colours[code] for code in shown}, width, _TOP + _PANEL + _FOOT)
    parts += [
        f'<text class="quiet" x="{_LEFT}" y="{_TOP + _PANEL + 16}">{drawn.axes} 1</text>',
        f'<text class="quiet" x="14" y="{middle}" transform="rotate(-90 14 {middle})">{drawn.axes} 2</text>',
    ]
    told = (
        f"Real, factual and counterfactual cells in one plane ({drawn.axes}), coloured by {drawn.column}: "
        f"{len(drawn.sources.places)} real cells of {drawn.source}, {len(drawn.targets.places)} of {drawn.target}."
    )
    return figure_svg("map", title, told, (width, height), "".join([*parts, *key]))


def _draw_key(colours: Mapping[str, str], width: float, top: float) -> tuple[list[str], float]:
    """Draw a swatch and the name of each colour, in rows; return them with the lower edge."""
    parts, x, y = [], float(_LEFT), top + 14
    for name, colour in colours.items():
        room = 26 + text_width(name)
        if x > _LEFT and x + room > width:
            x, y = float(_LEFT), y + 20
        parts.append(f'<circle cx="{x + 6:.0f}" cy="{y - 4:.0f}" r="5.5" fill="{colour}"/>')
        parts.append(f'<text x="{x + 17:.0f}" y="{y:.0f}">{escape(name)}</text>')
        x += room + 8
    return parts, y + 8


def _list_panels(drawn: CellMap) -> list[_Panel]:
    words = "samples" if drawn.estimate == "sample" else "mean estimates"
    counts = [len(each.places) for each in (drawn.sources, drawn.targets)]
    real = f"○ {counts[0]:,} {drawn.source} · ● {counts[1]:,} {drawn.target}"
    acted = f"grey: real cells, {drawn.target}"
    return [
        _Panel("Real cells", real, (drawn.targets,), rings=drawn.sources),
        *(
            [_Panel(f"Factual {words}", f"grey: real cells, {drawn.source}", (drawn.factual,), drawn.sources)]
            if drawn.factual is not None
            else []
        ),
        _Panel(f"Counterfactual {words}", acted, (drawn.counterfactual,), drawn.targets),
    ]


@dataclass(frozen=True)
class _Frame:
    """Place of a panel, and the part of the map that it shows."""

    left: float
    low: np.ndarray
    span: float

    def place(self, cells: MappedCells) -> np.ndarray:
        """Return x and y in pixels, [2 x n]."""
        scaled = (cells.places - self.low) / self.span * (_PANEL - 2 * _EDGE) + _EDGE
        return np.stack([self.left + scaled[:, 0], _TOP + _PANEL - scaled[:, 1]])


def _draw_cells(
    cells: Sequence[MappedCells], frame: _Frame, colours: Mapping[int, str], *, rings: bool = False
) -> list[str]:
    points = np.concatenate([frame.place(each) for each in cells], axis=1)
    labels = np.concatenate([each.labels for each in cells])
    drawn, layer = [], np.arange(len(labels)) % _LAYERS
    for number, code in itertools.product(range(_LAYERS), colours):
        own, colour = points[:, (labels == code) & (layer == number)], colours[code]
        if own.size:
            kind, data = ("rings", draw_rings(own[0], own[1], 4)) if rings else ("cells", draw_points(own[0], own[1]))
            drawn.append(f'<path class="{kind}" stroke="{colour}" transform="scale(.5)" d="{data}"/>')
    return drawn


def _draw_names(drawn: CellMap, frame: _Frame, shown: Sequence[int]) -> list[str]:
    """Write each label over its real cells, below those that it would cover."""
    points = np.concatenate([frame.place(each) for each in (drawn.sources, drawn.targets)], axis=1)
    labels = np.concatenate([drawn.sources.labels, drawn.targets.labels])
    middles = {code: np.median(points[:, labels == code], axis=1) for code in shown}
    lines: list[tuple[float, float, float]] = []
    drawn_names = []
    for code, (x, y) in sorted(middles.items(), key=lambda each: each[1][1]):
        half = text_width(_name(drawn, code), 11) / 2
        x = float(np.clip(x, frame.left + half + 3, max(frame.left + _PANEL - half - 3, frame.left + half + 3)))
        for other, base, width in lines:
            if abs(other - x) < half + width and y < base + 12:
                y = base + 12
        lines.append((x, y, half))
        drawn_names.append(f'<text class="name" x="{x:.1f}" y="{y + 4:.1f}">{escape(_name(drawn, code))}</text>')
    return drawn_names


def choose_colours(drawn: CellMap, shown: list[int]) -> dict[int, str]:
    """Choose a colour of each label: that which scanpy stored, else one that people with any colour vision tell apart.

    Parameters
    ----------
    drawn
        The map.
    shown
        Codes of the labels.

    Returns
    -------
    CSS colours by code; cells without a label are grey.
    """
    stored = {code: drawn.colors[code] for code in shown if code != UNLABELLED and drawn.colors[code]}
    others = [code for code in shown if code != UNLABELLED and code not in stored]
    count = len(others)
    safe = [f"var(--label-{place})" for place in range(count)] if count <= len(DARK) else safe_colours(count)
    return stored | dict(zip(others, safe, strict=True)) | {UNLABELLED: "var(--quiet)"}


def _name(drawn: CellMap, code: int) -> str:
    return "(unlabelled)" if code == UNLABELLED else drawn.labels[code]
