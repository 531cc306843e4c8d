"""Figures of a table of effects in the report: shifts of single genes by stratum, and maps of cells."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from causcell.evaluation.cell_maps import CellMap
from causcell.evaluation.map_panels import draw_map
from causcell.evaluation.shift_heat_map import MOST_ROWS, draw_heat_map
from causcell.evaluation.shift_panels import MOST_PANELS, draw_shift_panels
from causcell.evaluation.table import EFFECTS, UNSEEN, Table

SHIFTS_FILE = "shifts.h5ad"

_PANELS = (
    "Each dot is a gene: to the right its shift between real cells ({source} → target), upwards the shift predicted "
    "for the {source} cells; in mean log1p expression, one scale for all panels. On the dashed line both are equal: "
    "the closer to it the better. Effects predicted too small lie nearer to the horizontal axis. Ringed are the genes "
    "furthest from no shift, and furthest from the line; the pointer tells their numbers. n: real source → target "
    "cells. r: Pearson correlation over genes, the higher the better, as the table averages it: without what the "
    "chance deviations of the source cells add to both. Few cells make real shifts noisy: dots then scatter sideways, "
    "whatever was predicted."
)
_HEAT = (
    "Each row has two lines, the real shift and right below it the predicted one: they should look the same. Orange is "
    "raised, blue is lowered, in mean log1p expression; the pointer tells the numbers, with the standard error of the "
    "real ones. n: real source → target cells."
)
_MAP = (
    "One plane for all panels: a place means the same in each. Factual cells should lie on the grey real ones, and "
    "counterfactual cells on the grey real target cells. A cell keeps the colour that it had before the intervention. "
    "Distances on a map are no measure of an effect: those stand in the table."
)


def format_effect_figures(table: Table, maps: Mapping[str, CellMap | str]) -> str:
    """Return the figures of a table of effects as HTML; of any other table nothing.

    Parameters
    ----------
    table
        The table. Without shifts of single genes, the page says that there are none.
    maps
        By concept: the map of an intervention on it, or why there is none.
    """
    if table.kind not in (EFFECTS, UNSEEN):
        return ""
    parts = []
    if table.shifts:
        sources = ", ".join(dict.fromkeys(shift.source for shift in table.shifts))
        panels = draw_shift_panels(f"Predicted against real shift, {table.name}", table.shifts)
        caption = _PANELS.format(source=sources) + _say_how_many(len(table.shifts), MOST_PANELS)
        parts += ["<h3>Predicted against real shift of each gene</h3>", _figure(panels, caption)]
        heat = draw_heat_map(f"Shift of the leading genes, {table.name}", table.shifts)
        caption = _HEAT + _say_how_many(len(table.shifts), MOST_ROWS)
        parts += ["<h3>Genes that shift most, real and predicted</h3>", _figure(heat, caption)]
    else:
        parts.append(
            '<p class="silent">No figures of single genes: this evaluation did not keep their shifts. Those of one '
            "repetition (<code>causcell evaluate</code>) do; earlier versions did not.</p>"
        )
    if table.kind == EFFECTS:
        parts.append(_format_map(table, maps.get(table.concept, "No map of cells was kept by this evaluation.")))
    return "".join(parts)


def _format_map(table: Table, found: CellMap | str) -> str:
    if isinstance(found, str):
        return f'<p class="silent">{escape(found)}</p>'
    intervention = f"do({found.concept} = {found.target})"
    why = f" Principal components in place of a UMAP: {found.why}." if found.why else ""
    drawn = draw_map(f"Cells under {intervention}", found)
    return f"<h3>Cells under {escape(intervention)}</h3>{_figure(drawn, _MAP + why)}"


def _say_how_many(count: int, most: int) -> str:
    return f" Shown are the {most} shifts of most cells; {SHIFTS_FILE} holds all {count}." if count > most else ""


def _figure(drawing: str, caption: str) -> str:
    return f'<figure><div class="scroll">{drawing}</div><figcaption>{escape(caption)}</figcaption></figure>'
