"""Quality and speed of each preset of an exported model, and the default preset that follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from causcell._internal.stages import Report, say_nothing
from causcell.bench.timing import BATCH_SIZE
from causcell.bench.workload import Workload
from causcell.evaluation.real_cells import RealCells
from causcell.generator import Generator
from causcell.repository.manifest import Manifest, Preset
from causcell_training.data.split import PART, TEST, VALIDATION

if TYPE_CHECKING:
    import anndata

_PARTS = {VALIDATION: (256, "to choose by"), TEST: (1024, "to report on")}  # most cells, and what they are for
_SEEDS = range(3)
_SECONDS = 0.2


def with_quality(
    manifest: Manifest, root: Path, held_out: anndata.AnnData, *, report: Report = say_nothing
) -> Manifest:
    """Measure each preset by the embedded engine, and choose the default preset.

    Parameters
    ----------
    manifest
        Manifest of the repository, as written.
    root
        The repository.
    held_out
        Held-out cells, panel expression on the log scale [n x G], with ``obs["causcell:part"]``.
    report
        Called with each stage that is begun.

    Returns
    -------
    The manifest with the quality of each preset on the test cells (mean over seeds; `None` where there are none), its
    speed in cells per second on one thread, and the default that the validation cells choose; see `default_preset`.
    """
    measured = {}
    with Generator.open(root) as generator:
        for part, (limit, purpose) in _PARTS.items():
            cells = held_out[held_out.obs[PART] == part]
            measured[part] = _measure_presets(generator, cells, limit, purpose, report)
    validation, test = measured[VALIDATION], measured[TEST]
    speed = {}
    with Generator.open(root, threads=1) as generator:
        workload = Workload(generator)
        for name in manifest.presets:
            report(f"timing preset {name}")
            found = workload.latency(name, BATCH_SIZE, _SECONDS, min_repeats=1)
            speed[name] = found["cells_per_second"]
    presets = {}
    for name, preset in manifest.presets.items():
        quality = {measure: round(float(np.mean(values)), 4) for measure, values in test.get(name, {}).items()}
        presets[name] = Preset(solver=preset.solver, quality=quality or None)
    default = default_preset(
        {name: preset.solver.steps for name, preset in manifest.presets.items()},
        {name: values.get("energy_distance") for name, values in validation.items()},
    )
    return manifest.model_copy(update={"presets": presets, "default_preset": default, "speed": speed})


_AS_GOOD = 0.01
"""Share of the energy distance of ``mean``, which has no spread at all, by which the default preset may be further off
than ``accurate``."""


def default_preset(steps: Mapping[str, int], distances: Mapping[str, Sequence[float] | None]) -> str:
    """Choose the cheapest preset that is about as good as ``accurate``, by energy distance.

    About as good: further off by no more than twice the noise of seeds, or a hundredth of the distance of ``mean``.
    (``accurate`` takes dozens of times longer than one draw. Its own distance is no scale: it may be next to nothing.
    By a half of it, one of three trainings on Kang's cells chose 50 steps, a tenth nearer on test cells.)

    Parameters
    ----------
    steps
        Network evaluations of each preset; the first of equals goes first.
    distances
        Energy distance of each preset, a value a seed; `None` where too few cells were held out to tell, and then the
        cheapest is taken.

    Examples
    --------
    >>> default_preset({"draw": 1, "accurate": 50}, {"draw": [0.10, 0.12], "accurate": [0.10, 0.11]})
    'draw'
    >>> distances = {"draw": [0.14, 0.14], "accurate": [0.10, 0.10], "mean": [6.0, 6.0]}
    >>> default_preset({"draw": 1, "accurate": 50, "mean": 1}, distances)
    'draw'
    >>> default_preset({"draw": 1, "accurate": 50, "mean": 1}, distances | {"draw": [0.40, 0.42]})
    'accurate'
    """
    names = sorted(steps, key=lambda name: steps[name])
    best = distances.get("accurate")
    if best is None:
        return names[0]
    as_good = _AS_GOOD * np.mean(distances.get("mean") or 0)
    for name in names:
        found = distances[name]
        if found is not None:
            noise = np.hypot(np.std(found, ddof=1), np.std(best, ddof=1))
            if np.mean(found) - np.mean(best) <= max(2 * noise, as_good):
                return name
    return "accurate"


def _measure_presets(
    generator: Generator, cells: anndata.AnnData, limit: int, purpose: str, report: Report
) -> dict[str, dict[str, list[float]]]:
    """Measure each preset on at most so many cells, one value a seed; nothing where there is no cell."""
    cells = cells[:: -(-cells.n_obs // limit) or 1].to_memory()
    if not cells.n_obs:
        return {}
    real = RealCells(cells.X.toarray(), np.asarray(cells.obs[generator.schema.cell_type_like].astype(str)))
    measured: dict[str, dict[str, list[float]]] = {}
    for name in generator.manifest.presets:
        values = measured.setdefault(name, {})
        for seed in _SEEDS:
            report(f"judging preset {name} on {cells.n_obs} cells {purpose}, {seed + 1} of {len(_SEEDS)}")
            generated = generator.reconstruct(cells, preset=name, expression="log1p", seed=seed).X
            for measure, value in (real.measure_quality(generated) | {"cells": cells.n_obs}).items():
                values.setdefault(measure, []).append(value)
    return measured
