"""Open the cells of an atlas and plan it: what `Generator.plan_atlas` and `Generator.write_atlas` begin with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from causcell._internal.files import ScratchFolder
from causcell._internal.units import parse_size
from causcell.atlas.journal import Journal
from causcell.atlas.plan import Plan, make_plan
from causcell.atlas.task import AtlasTask, ShardMaker
from causcell.cells.collection import AnySource
from causcell.cells.panel_cells import Reading
from causcell.counterfactual.model import CounterfactualModel, ModelSource
from causcell.counterfactual.request import make_request, solver_settings
from causcell.counterfactual.stream import MeasuredCells
from causcell.counterfactual.tables import check_row_names
from causcell.errors import AtlasError
from causcell.repository.verdicts import warn_of_unusable


@dataclass(frozen=True)
class OpenAtlas:
    """An atlas whose model and cells are open.

    Attributes
    ----------
    maker
        Makes its shards; has its plan.
    origin
        Where the cells come from; see `causcell.cells.panel_cells.PanelCells.describe_origin`.
    """

    maker: ShardMaker
    origin: dict[str, Any]


@contextlib.contextmanager
def open_atlas(
    model: CounterfactualModel,
    source: ModelSource | None,
    cells: AnySource,
    path: Path,
    do: Mapping[str, object] | Sequence[Mapping[str, object]] | None,
    grid: Sequence[str],
    options: Mapping[str, Any],
) -> Iterator[OpenAtlas]:
    """Open cells and plan an atlas of them, for a ``with`` block.

    Parameters
    ----------
    model, source
        The model, and where other processes open it from.
    cells
        See `causcell.cells.collection.open_cells`.
    path
        Place of the atlas.
    do, grid
        See `causcell.counterfactual.interventions.plan_interventions`.
    options
        All of `causcell.atlas.options.AtlasOptions`.
    """
    settings = solver_settings(model.manifest, **_pick(options, "preset", "solver", "steps", "spacing", "eta"))
    generated = _pick(options, "mode", "match_parents", "draws", "seed", "store", "dtype", "interval")
    request = make_request(model.manifest, do, grid, settings=settings, **generated)
    sizes = {name: parse_size(size) for name, size in _pick(options, "chunk_size", "shard_size").items()}
    reading = Reading(**_pick(options, *(each.name for each in fields(Reading))))
    with (
        ScratchFolder() as scratch,
        reading.open(cells, where=options["where"], scratch=scratch.path) as opened,
    ):
        bound = reading.bind(opened, model.schema, model.preprocessing)
        check_row_names(bound, request)
        warn_of_unusable(model.manifest.verdicts, request.concepts(model.schema))
        plan = make_plan(model, bound, request, layout=options["layout"], **sizes)
        plan = plan if options["layout"] else take_begun_layout(path, plan)
        shared = bound.source
        task = AtlasTask(plan, str(path.absolute()), source, shared) if source and shared else None
        maker = ShardMaker(plan, path, model, MeasuredCells(model, bound), task)
        yield OpenAtlas(maker, bound.describe_origin())


def take_begun_layout(path: Path, plan: Plan) -> Plan:
    """Return the plan in the layout in which it was begun in a place, by an earlier version: there it goes on."""
    with contextlib.suppress(AtlasError):
        begun = Journal(path).plan()
        if begun is not None and begun.digest == plan.with_layout(begun.layout).digest:
            return plan.with_layout(begun.layout)
    return plan


def _pick(options: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: options[name] for name in names}
