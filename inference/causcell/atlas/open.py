"""Open the cells of an atlas and plan it: what `Generator.plan_atlas` and `Generator.write_atlas` begin with."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from causcell._internal.files import ScratchFolder, local_path
from causcell._internal.remote import AnyPath, RemotePath, any_path
from causcell._internal.telling import warn
from causcell._internal.units import parse_size
from causcell.atlas.annotations import KeptAnnotations
from causcell.atlas.journal import Journal
from causcell.atlas.plan import Plan, make_plan
from causcell.atlas.source_digests import TEXTS, digest_names
from causcell.atlas.task import AtlasTask, ShardMaker
from causcell.cells.annotations import Annotations, Kept
from causcell.cells.collection import AnySource
from causcell.cells.panel_cells import Reading
from causcell.counterfactual.model import CounterfactualModel, ModelSource
from causcell.counterfactual.request import make_request, solver_settings
from causcell.counterfactual.stream import MeasuredCells
from causcell.counterfactual.tables import ResultTable, check_row_names
from causcell.errors import AtlasError, ConfigurationError
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


def atlas_path(out: str | os.PathLike[str] | RemotePath) -> AnyPath:
    """Return the place of an atlas to write: a path, or the URL of a store.

    Raises
    ------
    ConfigurationError
        It ends neither in ``.zarr`` nor in ``.h5ad``, or can't be written to, as ``.h5ad`` by a URL.
    """
    path = any_path(out)
    if path.suffix not in (".zarr", ".h5ad"):
        raise ConfigurationError(f"out={str(path)!r} ends neither in .zarr nor in .h5ad")
    return local_path(str(path)) if path.suffix == ".h5ad" else path


@contextlib.contextmanager
def open_atlas(
    model: CounterfactualModel,
    source: ModelSource | None,
    cells: AnySource,
    path: AnyPath | None,
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
        Place of the atlas; `None` where none will be written.
    do, grid
        See `causcell.counterfactual.interventions.plan_interventions`.
    options
        All of `causcell.atlas.options.AtlasOptions`.
    """
    settings = solver_settings(model.manifest, **_pick(options, "preset", "solver", "steps", "spacing", "eta"))
    chosen = ("mode", "match_parents", "target", "draws", "seed", "store", "dtype", "interval", "library_size")
    request = make_request(model.manifest, do, grid, settings=settings, **_pick(options, *chosen))
    sizes = {name: parse_size(size) for name, size in _pick(options, "chunk_size", "shard_size").items()}
    reading = Reading(**_pick(options, *(each.name for each in fields(Reading))))
    with (
        ScratchFolder() as scratch,
        reading.open(cells, where=options["where"], scratch=scratch.path) as opened,
    ):
        bound = reading.bind(opened, model.schema, model.preprocessing)
        check_row_names(bound, request)
        warn_of_unusable(model.manifest.verdicts, request.concepts(model.schema))
        request.warn_of_extrapolation(model.schema)
        kept = Kept(options["keep_obs"], options["keep_obsm"])
        annotations = ResultTable.of(model, request).select_annotations(opened, kept)
        annotations.warn_of_left_out()
        travelling = KeptAnnotations.of(annotations)
        plan = make_plan(model, bound, request, annotations=travelling, layout=options["layout"], **sizes)
        if path is not None:
            usual = None if kept.chosen else annotations
            by_digests = functools.partial(digest_names, opened, texts=False)
            plan = go_on(
                path,
                plan,
                usual_layout=options["layout"] is None,
                usual_annotations=usual,
                names=by_digests,
            )
        model = plan.adapt(model)
        place, shared = path or Path("atlas.zarr"), bound.source
        task = AtlasTask(plan, str(place.absolute()), source, shared) if source and shared else None
        found = None if plan.annotations is None else plan.annotations.find(annotations, str(place))
        maker = ShardMaker(plan, place, model, MeasuredCells(model, bound, request.library), found, task)
        yield OpenAtlas(maker, bound.describe_origin())


def go_on(
    path: AnyPath,
    plan: Plan,
    *,
    usual_layout: bool,
    usual_annotations: Annotations | None = None,
    names: Callable[[], str] | None = None,
) -> Plan:
    """Return the plan of the atlas that was begun, if it differs in what nobody asked for alone.

    Plans of earlier versions are dense, keep no annotations, have no groups of shards and pad small shards to whole
    batches; cells may have got a column since, and the names of many cells were digested one by one.

    Parameters
    ----------
    path, plan
        Place of the atlas, and its plan.
    usual_layout
        Whether no layout was asked for.
    usual_annotations
        The annotations that travel, where none were asked for.
    names
        Digests all names as earlier versions did, where that is needed.
    """
    begun = None
    with contextlib.suppress(AtlasError):  # which the run tells, if there is to be one
        begun = Journal(path).plan()
    if begun is None or begun.digest == plan.digest:
        return plan
    changes: dict[str, Any] = {"group": begun.group, "padded": begun.padded}
    if usual_layout:
        changes["layout"] = begun.layout
    if usual_annotations is not None:
        kept = begun.annotations
        fewer = None if kept is None else usual_annotations.only(kept.obs, kept.obsm, kept.var)
        changes["annotations"] = None if fewer is None else KeptAnnotations.of(fewer)
    by_digests = plan.source.names.startswith(TEXTS) and not begun.source.names.startswith(TEXTS)
    if by_digests:
        changes["source"] = plan.source.model_copy(update={"names": begun.source.names})
    candidate = plan.model_copy(update=changes)
    if candidate.digest != begun.digest or (by_digests and (names is None or names() != begun.source.names)):
        return plan
    if candidate.annotations != plan.annotations:
        there = "none" if candidate.annotations is None else candidate.annotations.describe()
        warn(
            f"{str(path)!r} was begun with fewer annotations of its cells ({there}) and goes on with these; for all of "
            "them name another place"
        )
    return candidate


def _pick(options: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: options[name] for name in names}
