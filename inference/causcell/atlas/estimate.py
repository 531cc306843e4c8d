"""Estimate what an atlas would take, before it is written."""

from __future__ import annotations

import shutil
import time

from causcell._internal.remote import AnyPath, RemotePath
from causcell._internal.units import format_size
from causcell.atlas.plan import Forecast, count_unseen_rows
from causcell.atlas.shards import encoded_bytes
from causcell.atlas.task import ShardMaker
from causcell.counterfactual.tables import concatenate_cells
from causcell.errors import OutputFullError

_BATCHES = 4
"""Batches that are timed, after one that loads the graphs."""


def forecast_atlas(maker: ShardMaker) -> Forecast:
    """Generate a few batches, write nothing, and tell what the whole would take."""
    plan, table = maker.plan, maker.table
    starts = [start % plan.cells for start in range(0, (_BATCHES + 1) * plan.batch_size, plan.batch_size)]
    blocks = maker.blocks(slice(start, min(start + plan.batch_size, plan.cells)) for start in starts)
    next(blocks)
    started, rows = time.perf_counter(), 0
    for block in blocks:
        rows += len(block.labels)
        last = block
    seconds = time.perf_counter() - started
    obs, obsm = maker.annotate(table.obs(**concatenate_cells([last])), last.cells)
    per_row = encoded_bytes(plan, last.arrays, obs, obsm) / len(last.labels)
    unseen = count_unseen_rows(maker.source.labels, plan.request, table.schema, table.combinations)
    return Forecast(rows / seconds, round(per_row * plan.rows), unseen)


def free_bytes(path: AnyPath) -> int | None:
    """Return the space that is left where a path is, or would be; `None` for a URL, of which nobody tells."""
    if isinstance(path, RemotePath):
        return None
    place = path.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def require_space(maker: ShardMaker) -> None:
    """Raise `OutputFullError` if an atlas can't fit where it should be written.

    A forecast is made where the plan has none and the uncompressed values alone would not fit.
    """
    plan, free = maker.plan, free_bytes(maker.path)
    if free is None or (plan.forecast is None and plan.bytes_uncompressed < free):
        return
    needed = (plan.forecast or forecast_atlas(maker)).bytes
    if needed > free:
        raise OutputFullError(
            f"the atlas needs about {format_size(needed)} and {str(maker.path)!r} has {format_size(free)} left; free "
            "some space, name another place, or keep less (store=, dtype='float16')"
        )
