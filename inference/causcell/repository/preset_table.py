"""Table of a model's presets: solver, steps, measures on held-out cells beside real cells, and speed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from causcell.repository.manifest import Manifest

_COLUMNS = {
    "solver": ("solver", "{}"),
    "steps": ("steps", "{}"),
    "energy distance": ("energy_distance", "{:.3f}"),
    "correlations": ("correlations", "{:.2f}"),
    "variance ratio": ("variance_ratio", "{:.2f}"),
    "nonzero": ("nonzero", "{:.3f}"),
    "nonzero mean": ("nonzero_mean", "{:.2f}"),
    "PCC": ("pcc", "{:.3f}"),
    "MSE": ("mse", "{:.3f}"),
    "cells/s": ("cells_per_second", "{:,.0f}"),
}
"""Columns of the table: measure and form."""

PRESET_HEADER = ("", *_COLUMNS)
"""Head of each column, of which the first names the preset."""


def describe_presets(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Return solver, measures and speed of each preset, side by side, by name."""
    return {
        name: asdict(preset.solver)
        | {key: value for key, value in (preset.quality or {}).items() if key != "cells"}
        | {"cells_per_second": manifest.speed.get(name)}
        for name, preset in manifest.presets.items()
    }


def preset_rows(presets: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Return the texts of the table below `PRESET_HEADER`: a preset each, then what real cells have.

    Parameters
    ----------
    presets
        As `describe_presets` returns them.
    """
    rows = [_texts(name, preset) for name, preset in presets.items()]
    return [*rows, _texts("real", next(iter(presets.values())), "_real")]


def held_out_cells(manifest: Manifest) -> int:
    """Return the number of cells that presets were measured on."""
    return max(int((preset.quality or {}).get("cells", 0)) for preset in manifest.presets.values())


def _texts(name: str, values: Mapping[str, Any], suffix: str = "") -> list[str]:
    found = ((values.get(f"{key}{suffix}"), form) for key, form in _COLUMNS.values())
    return [name, *("" if value is None else form.format(value) for value, form in found)]
