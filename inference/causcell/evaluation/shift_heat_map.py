"""Heat map of shifts, stratum by gene: the real one of each stratum right above what was predicted."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from causcell._internal.svg import figure_svg, shorten
from causcell.evaluation.gene_shifts import GeneShifts
from causcell.evaluation.shift_panels import choose_shown, describe_gene

MOST_ROWS = 16
"""Shifts that have a row, at most; those of most cells have one."""

_GENES = 32
_LEFT, _TOP, _CELL, _LINE, _GAP, _FOOT = 286, 74, 16, 15, 7, 40

STYLE = (
    ".heat .up{fill:var(--up)}.heat .down{fill:var(--down)}.heat .gene{font-size:10px}"
    ".heat .frame{fill:none;stroke:var(--line)}"
)
"""What a page needs for it, beside `shift_panels.STYLE`."""


def choose_genes(shifts: Sequence[GeneShifts], most: int = _GENES) -> list[int]:
    """Choose the genes of the largest shifts, real or predicted (root mean square), from most raised to most lowered.

    Examples
    --------
    >>> import numpy as np
    >>> real, predicted = np.float32([0, -1, 0.5]), np.float32([0.1, -1, 2])
    >>> genes = ("A", "B", "C")
    >>> choose_genes([GeneShifts(genes, genes, "stim", "a", "b", "", 9, 9, real, real, predicted, 0.9)], 2)
    [2, 1]
    """
    values = np.concatenate([[each.real, each.predicted] for each in shifts])
    size = (values.astype(np.float64) ** 2).mean(axis=0)
    chosen = np.argsort(-size, kind="stable")[:most]
    means = values[:, chosen].mean(axis=0)
    return [int(gene) for gene in chosen[np.argsort(-means, kind="stable")] if size[gene] > 0]


def draw_heat_map(title: str, shifts: Sequence[GeneShifts]) -> str:
    """Draw the genes of the largest shifts: two lines a stratum, real and predicted, with the number of cells of each.

    Parameters
    ----------
    title
        Of the figure.
    shifts
        At least one; at most sixteen, those of most cells, have a row.

    Returns
    -------
    SVG. A stronger colour is a larger shift; every row has both its values at the pointer.
    """
    shown = choose_shown(shifts, MOST_ROWS)
    genes = choose_genes(shown)
    largest = max(float(np.abs([each.real[genes], each.predicted[genes]]).max(initial=0)) for each in shown)
    high = 2 * _LINE + _GAP
    size = (_LEFT + max(len(genes) * _CELL, 220) + 46, _TOP + len(shown) * high + _FOOT)
    parts = [
        f'<text class="gene" transform="translate({_LEFT + (place + 0.7) * _CELL:.1f} {_TOP - 6}) rotate(-60)">'
        f"{escape(shorten(shown[0].symbols[gene], 76, 10))}</text>"
        for place, gene in enumerate(genes)
    ]
    parts += [
        _draw_row(each, genes, _TOP + number * high, largest or 1.0, several=_targets(shown) > 1)
        for number, each in enumerate(shown)
    ]
    parts.append(_draw_scale(size[1] - 24, largest))
    named = ", ".join(shown[0].symbols[gene] for gene in genes)
    told = f"Real and predicted shift of {len(genes)} genes in {len(shown)} strata, from most raised to most lowered"
    return figure_svg("heat", title, f"{told}: {named}.", size, "".join(parts))


def _targets(shifts: Sequence[GeneShifts]) -> int:
    return len({each.target for each in shifts})


def _draw_row(shift: GeneShifts, genes: Sequence[int], top: int, largest: float, *, several: bool) -> str:
    swatch = f'<rect x="8" y="{top + 3}" width="9" height="9" rx="2" fill="{shift.color}"/>' * bool(shift.color)
    name = f"{shift.target}, {shift.row_name}" if several and shift.stratum else shift.row_name
    left = 8 + 14 * bool(shift.color)
    parts = [
        f"<g><title>{escape(shift.name)}</title>{swatch}",
        f'<text x="{left}" y="{top + 12}">{escape(shorten(name, _LEFT - left - 66))}</text>',
        f'<text class="quiet" x="{left}" y="{top + 26}">n {shift.source_cells:,} → {shift.target_cells:,}</text></g>',
        f'<text class="quiet" x="{_LEFT - 6}" y="{top + 11}" text-anchor="end">real</text>',
        f'<text class="quiet" x="{_LEFT - 6}" y="{top + _LINE + 11}" text-anchor="end">predicted</text>',
    ]
    for place, gene in enumerate(genes):
        told = escape(f"{shift.symbols[gene]}, {shift.row_name}: {describe_gene(shift, gene)}")
        x = _LEFT + place * _CELL
        cells = "".join(
            _draw_cell(float(values[gene]), x, top + line * _LINE, largest)
            for line, values in enumerate((shift.real, shift.predicted))
        )
        parts.append(f"<g><title>{told}</title>{cells}</g>")
    frame = f'width="{len(genes) * _CELL}" height="{2 * _LINE}"'
    parts.append(f'<rect class="frame" x="{_LEFT}" y="{top}" {frame}/>')
    return "".join(parts)


def _draw_cell(value: float, x: float, y: float, largest: float) -> str:
    way = "up" if value > 0 else "down"
    strength = f"{min(1.0, abs(value) / largest):.2f}"
    return f'<rect class="{way}" x="{x}" y="{y}" width="{_CELL}" height="{_LINE}" fill-opacity="{strength}"/>'


def _draw_scale(y: float, largest: float) -> str:
    steps = 11
    cells = [
        _draw_cell((2 * step / (steps - 1) - 1) * (largest or 1.0), _LEFT + 14 * step, y, largest or 1.0).replace(
            f'width="{_CELL}"', 'width="14"'
        )
        for step in range(steps)
    ]
    end = _LEFT + 14 * steps
    return "".join(
        [
            *cells,
            f'<rect class="frame" x="{_LEFT}" y="{y}" width="{14 * steps}" height="{_LINE}"/>',
            f'<text class="quiet" x="{_LEFT - 6}" y="{y + 12}" text-anchor="end">lowered -{largest:.2f}</text>',
            f'<text class="quiet" x="{end + 6}" y="{y + 12}">{largest:.2f} raised (log scale)</text>',
        ]
    )
