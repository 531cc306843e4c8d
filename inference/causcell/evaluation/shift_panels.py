"""Panels of predicted against real shift of every gene, one a shift, with the line on which both are equal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from causcell._internal.svg import draw_points, figure_svg, nice_step, place_labels, shorten
from causcell.evaluation.gene_shifts import GeneShifts

MOST_PANELS = 12
"""Shifts that have a panel, at most; those of most cells have one."""

_WIDTH, _LARGEST, _HEAD, _GAP, _LEFT, _FOOT = 820, 300, 42, 24, 46, 44
_FAR, _OFF = 6, 4
"""Genes that are labelled in a panel: furthest from no shift, and furthest from the line."""

STYLE = (
    ".panels,.heat,.map{max-width:100%;min-width:40rem;height:auto;font:12px system-ui,sans-serif}"
    ".panels text,.heat text,.map text{fill:var(--text)}.panels .quiet,.heat .quiet,.map .quiet{fill:var(--quiet);"
    "font-size:11px}.panels .frame,.map .frame{fill:none;stroke:var(--line)}.panels .zero{stroke:var(--line)}"
    ".panels .same{stroke:var(--quiet);stroke-dasharray:5 4}.panels .genes{fill:none;stroke:var(--model);"
    "stroke-width:5;stroke-linecap:round;stroke-opacity:.5}.panels circle{fill:var(--back);stroke:var(--far);"
    "stroke-width:1.6}.panels .gene{font-size:10px;paint-order:stroke;stroke:var(--back);stroke-width:2.5px}"
    ".panels .to{stroke:var(--quiet);stroke-width:.7}"
)
"""What a page needs for them, and for the other figures of effects; it defines the colours of ``report.STYLE``."""


def draw_shift_panels(title: str, shifts: Sequence[GeneShifts]) -> str:
    """Draw predicted against real shift of every gene, a panel a shift, all on one scale.

    Parameters
    ----------
    title
        Of the figure.
    shifts
        At least one; at most twelve, those of most cells, have a panel.

    Returns
    -------
    SVG. Ringed genes are those furthest from no shift and furthest from the line; labels are left out where there is no
    room, and every ring tells its gene and both shifts to the pointer.
    """
    shown = choose_shown(shifts, MOST_PANELS)
    values = np.concatenate([each for shift in shown for each in (shift.real, shift.predicted)])
    several = len({each.target for each in shown}) > 1
    layout = _Layout.of(len(shown), min(0.0, float(values.min())), max(0.0, float(values.max())))
    parts = [_draw_panel(each, layout, number, _name(each, several=several)) for number, each in enumerate(shown)]
    size, middle = layout.size, _HEAD + (layout.rows * (layout.panel + _HEAD) - _HEAD) / 2
    parts += [
        f'<text x="{_LEFT}" y="{size[1] - 6:.0f}">real shift (log scale)</text>',
        f'<text x="13" y="{middle:.0f}" text-anchor="middle" transform="rotate(-90 13 {middle:.0f})">predicted shift '
        "(log scale)</text>",
    ]
    told = "; ".join(f"{each.name}: correlation {each.correlation:.2f}" for each in shown)
    return figure_svg("panels", title, f"Predicted against real shift of each gene. {told}.", size, "".join(parts))


@dataclass(frozen=True)
class _Layout:
    """Panels in rows, and the shifts at the edges of each."""

    count: int
    columns: int
    panel: float
    low: float
    high: float

    @classmethod
    def of(cls, count: int, low: float, high: float) -> _Layout:
        columns = min(count, 4) if -(-count // 4) < -(-count // 3) or count < 4 else 3
        edge = 0.06 * (high - low) or 1.0
        panel = min(_LARGEST, (_WIDTH - _LEFT) // columns - _GAP)
        return cls(count, columns, panel, low - edge, high + edge)

    @property
    def rows(self) -> int:
        return -(-self.count // self.columns)

    @property
    def size(self) -> tuple[float, float]:
        return _LEFT + self.columns * (self.panel + _GAP), self.rows * (self.panel + _HEAD) + _FOOT

    @property
    def scale(self) -> float:
        """Pixels of a shift of 1."""
        return self.panel / (self.high - self.low)

    def find_corner(self, number: int) -> tuple[float, float]:
        """Return the left and upper edge of a panel."""
        row, column = divmod(number, self.columns)
        return _LEFT + column * (self.panel + _GAP), _HEAD + row * (self.panel + _HEAD)

    def place(self, number: int, real: Any, predicted: Any) -> tuple[Any, Any]:
        """Return the places of shifts in a panel, in pixels."""
        left, top = self.find_corner(number)
        return left + (real - self.low) * self.scale, top + (self.high - predicted) * self.scale


def _name(shift: GeneShifts, *, several: bool) -> str:
    return f"{shift.target}, {shift.row_name}" if several and shift.stratum else shift.row_name


def choose_shown(shifts: Sequence[GeneShifts], most: int) -> list[GeneShifts]:
    """Choose the shifts whose smaller group of cells is largest, in the order given."""
    cells = [min(each.source_cells, each.target_cells) for each in shifts]
    kept = sorted(np.argsort([-count for count in cells], kind="stable")[:most].tolist())
    return [shifts[place] for place in kept]


def find_furthest(shift: GeneShifts) -> list[int]:
    """Return the genes to label: those furthest from no shift, then those furthest from the line.

    Examples
    --------
    >>> import numpy as np
    >>> real, predicted = np.zeros(20, np.float32), np.zeros(20, np.float32)
    >>> real[3], predicted[3], predicted[7] = 2.0, 2.0, 1.0
    >>> genes = tuple(map(str, range(20)))
    >>> find_furthest(GeneShifts(genes, genes, "stim", "a", "b", "", 9, 9, real, real, predicted, 0.9))
    [3, 7]
    """
    size, error = np.hypot(shift.real, shift.predicted), np.abs(shift.predicted - shift.real)
    far, off = np.argsort(-size, kind="stable")[:_FAR], np.argsort(-error, kind="stable")[:_OFF]
    found = [*(gene for gene in far if size[gene] > 0), *(gene for gene in off if error[gene] > 0)]
    return list(dict.fromkeys(map(int, found)))


def _draw_panel(shift: GeneShifts, layout: _Layout, number: int, name: str) -> str:
    left, top = layout.find_corner(number)
    right, bottom = left + layout.panel, top + layout.panel
    x, y = layout.place(number, shift.real, shift.predicted)
    zero = layout.place(number, 0.0, 0.0)
    swatch = f'<rect x="{left}" y="{top - 34}" width="9" height="9" rx="2" fill="{shift.color}"/>' * bool(shift.color)
    indent = 14 * bool(shift.color)
    parts = [
        f"<g>{_title(shift)}{swatch}",
        f'<text x="{left + indent}" y="{top - 25}">{escape(shorten(name, layout.panel - indent))}</text>',
        f'<text class="quiet" x="{left}" y="{top - 9}">n {shift.source_cells:,} → {shift.target_cells:,} · '
        f"r {shift.correlation:.2f}</text></g>",
        f'<path class="zero" d="M{left} {zero[1]:.1f}H{right}M{zero[0]:.1f} {top}V{bottom}"/>',
        f'<line class="same" x1="{left}" y1="{bottom}" x2="{right}" y2="{top}"/>',
        f'<rect class="frame" x="{left}" y="{top}" width="{layout.panel}" height="{layout.panel}"/>',
        f'<path class="genes" transform="scale(.5)" d="{draw_points(x, y)}"/>',
        *_draw_ticks(layout, number),
        *_draw_labels(shift, x, y, (left, top, right, bottom)),
    ]
    return "".join(parts)


def _draw_labels(
    shift: GeneShifts, x: np.ndarray, y: np.ndarray, box: tuple[float, float, float, float]
) -> Iterator[str]:
    """Ring the genes that lie furthest out, and write their names where there is room."""
    ringed = find_furthest(shift)
    points = [(shift.symbols[gene], float(x[gene]), float(y[gene])) for gene in ringed]
    for label in place_labels(points, box):
        if abs(label.y - 3 - label.point[1]) > 6:
            start = f'x1="{label.point[0]:.1f}" y1="{label.point[1]:.1f}"'
            yield f'<line class="to" {start} x2="{label.x:.1f}" y2="{label.y - 3:.1f}"/>'
        at = f'x="{label.x:.1f}" y="{label.y:.1f}" text-anchor="{label.anchor}"'
        yield f'<text class="gene" {at}>{escape(label.text)}</text>'
    for gene in ringed:
        told = f"{shift.symbols[gene]}: {describe_gene(shift, gene)}"
        yield f'<circle cx="{x[gene]:.1f}" cy="{y[gene]:.1f}" r="2.6"><title>{escape(told)}</title></circle>'


def _title(shift: GeneShifts) -> str:
    told = f"{shift.name}: {shift.source_cells} real cells of {shift.source}, {shift.target_cells} of {shift.target}"
    return f"<title>{escape(told)}</title>"


def describe_gene(shift: GeneShifts, gene: int) -> str:
    """Say what a gene's shifts are: the real one with its standard error, if it has one, and the predicted one."""
    error = f" ± {shift.error[gene]:.2f}" if np.isfinite(shift.error[gene]) else ""
    return f"real {shift.real[gene]:.2f}{error}, predicted {shift.predicted[gene]:.2f}"


def _draw_ticks(layout: _Layout, number: int) -> Iterator[str]:
    """Write the shifts along the left edge of a row's first panel, and below a column's last one."""
    left, top = layout.find_corner(number)
    step = nice_step(layout.high - layout.low, 6)
    for count in range(math.ceil(layout.low / step), math.floor(layout.high / step) + 1):
        x, y = layout.place(number, count * step, count * step)
        if number % layout.columns == 0:
            yield f'<text class="quiet" x="{left - 5}" y="{y + 4:.1f}" text-anchor="end">{count * step:g}</text>'
        if number + layout.columns >= layout.count:
            yield (
                f'<text class="quiet" x="{x:.1f}" y="{top + layout.panel + 14}" text-anchor="middle">'
                f"{count * step:g}</text>"
            )
