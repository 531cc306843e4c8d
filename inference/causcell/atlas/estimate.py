"""Estimate what an atlas would take, before it is written."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from causcell._internal.prefetch import StageClock
from causcell._internal.units import format_size
from causcell.atlas.plan import Plan
from causcell.atlas.shards import encoded_bytes
from causcell.atlas.task import Inputs
from causcell.counterfactual.tables import result_obs
from causcell.errors import OutputFullError

_CALIBRATION_BATCHES = 4


# -- before ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """What an atlas would take, from a few of its batches.

    Attributes
    ----------
    rows_per_second
        In this process.
    bytes
        On disk.
    """

    rows_per_second: float
    bytes: int


def calibrate(plan: Plan, inputs: Inputs) -> Estimate:
    """Generate a few batches, write nothing, and tell what the whole would take."""
    size = plan.batch_size
    starts = [start % plan.cells for start in range(0, (_CALIBRATION_BATCHES + 1) * size, size)]
    ranges = [slice(start, min(start + size, plan.cells)) for start in starts]
    blocks = inputs.blocks(plan, ranges, StageClock())
    next(blocks)  # graphs are loaded with it
    started, rows = time.perf_counter(), 0
    for block in blocks:
        rows += len(block.labels)
        last = block
    seconds = time.perf_counter() - started
    generator = inputs.generator
    factual = inputs.cells.labels(generator.schema)[last.cells]
    names = inputs.cells.names_of(last.cells)
    seen = generator.engine.reference.combinations
    obs = result_obs(generator.schema, plan.request, names, factual, last.labels, seen)
    per_row = encoded_bytes(plan, last.arrays, obs) / len(last.labels)
    return Estimate(rows / seconds, round(per_row * plan.rows))


def free_bytes(path: Path) -> int:
    """Space that is left where a path is, or would be."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def require_space(plan: Plan, inputs: Inputs, path: Path, estimate: Estimate | None = None) -> None:
    """Raise `OutputFullError` if an atlas can't fit where it should be written."""
    free = free_bytes(path)
    if estimate is None:
        if plan.bytes_uncompressed < free:
            return
        estimate = calibrate(plan, inputs)
    if estimate.bytes > free:
        raise OutputFullError(
            f"the atlas needs about {format_size(estimate.bytes)} and {str(path)!r} has {format_size(free)} left; free "
            "some space, name another place, or keep less (--store, --dtype float16)"
        )
