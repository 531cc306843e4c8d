"""Estimate what an atlas would take, before it is written."""

from __future__ import annotations

import shutil
import time

import numpy as np

from causcell._internal.batching import batches
from causcell._internal.remote import AnyPath, RemotePath
from causcell._internal.units import format_size
from causcell.atlas.plan import Forecast
from causcell.atlas.shards import encoded_bytes
from causcell.atlas.task import ShardMaker
from causcell.cells.by_rows import Rows
from causcell.concept_encoding import distinct_rows
from causcell.concepts import UNLABELLED, ConceptSchema, unseen_combinations
from causcell.counterfactual.request import Request
from causcell.counterfactual.tables import concatenate_cells
from causcell.errors import OutputFullError

_BATCHES = 4
"""Batches that are timed, after one that loads the graphs."""

_SLICE = 2**18
"""Cells whose labels are counted at once."""


def forecast_atlas(maker: ShardMaker) -> Forecast:
    """Generate a few batches, write nothing, and tell what the whole would take."""
    plan, table = maker.plan, maker.table
    size = min(maker.model.batch_size, plan.cells_per_shard)
    starts = [start % plan.cells for start in range(0, (_BATCHES + 1) * size, size)]
    blocks = maker.blocks(slice(start, min(start + size, plan.cells)) for start in starts)
    next(blocks)
    started, rows = time.perf_counter(), 0
    for block in blocks:
        rows += len(block.labels)
        last = block
    seconds = time.perf_counter() - started
    obs, obsm = maker.annotate(table.obs(**concatenate_cells([last])), last.cells)
    final, most = (size / len(last.labels) * plan.rows for size in encoded_bytes(plan, last.arrays, obs, obsm))
    files = sum(plan.file_nonzeros * (np.dtype(plan.array_dtype(place)).itemsize + 4) for place in plan.sparse)
    unseen = count_unseen_rows(maker.source.labels, plan.request, table.schema, table.combinations)
    return Forecast(rows / seconds, round(final), unseen, round(most - final + min(files, final)))


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
    most = plan.bytes_uncompressed * (3 if plan.sparse else 1)  # of a CSR matrix of which no value is zero, and scratch
    if free is None or (plan.forecast is None and most < free):
        return
    forecast = plan.forecast or forecast_atlas(maker)
    needed = forecast.bytes + forecast.scratch_bytes
    if needed > free:
        raise OutputFullError(
            f"the atlas needs about {format_size(needed)} and {str(maker.path)!r} has {format_size(free)} left; free "
            "some space, name another place, or keep less (store=, dtype='float16')"
        )


def count_unseen_rows(labels: Rows, request: Request, schema: ConceptSchema, combinations: np.ndarray) -> int:
    """Count the counterfactual rows whose labels no training cell carries together, as far as labels tell.

    A descendant's label after the intervention is not known before it is generated, and matches any.

    Parameters
    ----------
    labels
        The cells' own label codes, int32 [n x m], in memory or read by rows.
    request
        The interventions.
    schema
        Concepts and graph.
    combinations
        Combinations of labels among the training cells, int32 [C x m].
    """
    distinct, counts = _count_combinations(labels)
    unseen = 0
    for intervention in request.interventions:
        if not intervention.targets:
            continue
        after = distinct.copy()
        if request.mode != "isolated":
            after[:, sorted(schema.descendants(concept for concept, _ in intervention.targets))] = UNLABELLED
        for concept, label in intervention.targets:
            after[:, concept] = label
        unseen += int(counts[unseen_combinations(after, combinations)].sum())
    return unseen * request.kept_draws


def _count_combinations(labels: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct rows of labels, int32 [k x m], and how often each is there, int64 [k]."""
    distinct, counts = np.empty((0, labels[0:1].shape[1]), dtype=np.int32), np.empty(0, dtype=np.int64)
    for rows in batches(len(labels), _SLICE):
        found, inverse = distinct_rows(labels[rows])
        every = np.concatenate([counts, np.bincount(inverse)])
        distinct, inverse = distinct_rows(np.concatenate([distinct, found]))
        counts = np.bincount(inverse, every).astype(np.int64)
    return distinct, counts
