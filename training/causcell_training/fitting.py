"""Fitting: from labelled cells to a run folder. Arguments are checked here, the loop is `causcell_training.loop`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from causcell._internal.files import local_path
from causcell.cells.collection import AnySource
from causcell.errors import ConfigurationError, format_list
from causcell_training.config import TrainConfig
from causcell_training.data.panel_rows import find_cache
from causcell_training.data.split import Split
from causcell_training.entrance import check_inputs
from causcell_training.run_folder import check_resumable, check_writable

if TYPE_CHECKING:
    from lightning.pytorch import Callback
    from lightning.pytorch.loggers import Logger

    from causcell_training.loop.training_plan import TrainingPlan
    from causcell_training.run import Run

_ARGUMENTS = {"concept": "concepts", "edge": "edges"}
"""Arguments of `fit` that have another name than their setting, by setting."""


def fit(
    data: AnySource,
    out: str | os.PathLike[str],
    *,
    start_from: Run | str | os.PathLike[str] | None = None,
    config: TrainConfig | None = None,
    concepts: Sequence[str] | str | None = None,
    edges: Sequence[str | tuple[str, str]] | str | None = None,
    label_features: Sequence[str] | str | None = None,
    set_control: Sequence[str] | str | None = None,
    expression: str | None = None,
    genes: int | str | None = None,
    gene_selection: str | None = None,
    batch_key: str | None = None,
    include_genes: Sequence[str] | str | None = None,
    layer: str | None = None,
    raw: bool | None = None,
    totals: str | None = None,
    round_counts: bool | None = None,
    seed: int | None = None,
    freeze: Sequence[str] | str | None = None,
    replay: float | None = None,
    allow_missing_genes: float | None = None,
    devices: int | None = None,
    strategy: str | None = None,
    split: Split | None = None,
    cache: str | os.PathLike[str] = "auto",
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    callbacks: Sequence[Callback] = (),
    logger: Logger | bool = False,
    plan: type[TrainingPlan] | None = None,
) -> Run:
    """Train CausCell on labelled cells.

    Parameters
    ----------
    data
        Cells with labels in ``obs`` (missing: unlabelled), raw counts or log1p values; a path to them; or several
        of either by key, whose cells are named ``key:name`` and of which the genes that all have are read.
    out
        Folder of the run; see `causcell_training.run_folder`.
    start_from
        A finished run, or its folder, whose model learns these cells too: new labels, new donors, more cells. It
        decides concepts, edges, panel, scale and networks; see ``docs/fine_tuning.md``.
    config
        Settings; `TrainConfig` documents those that ``concepts`` to ``seed`` override.
    concepts, edges, label_features, set_control
        Columns of ``obs``, or one, each with ``:KIND`` or without; edges between them, ``"PARENT:CHILD"`` or pairs, or
        one; tables of label features, ``"NAME=FILE.csv"``; labels of cells without members of a set, ``"NAME=LABEL"``.
    expression, genes, gene_selection, batch_key, include_genes, layer, raw, totals, round_counts, seed
        Scale; panel, how it is chosen and within which batches, and genes that are on it anyhow; the layer or
        ``adata.raw`` in place of ``X``; a column with cells' totals; whether to round counts; seed.
    freeze, replay, allow_missing_genes
        With ``start_from``: parts whose weights stay as they are, the share of replayed cells in a batch, the share of
        genes that these cells may lack; see `causcell_training.config.DescentConfig`.
    devices, strategy
        GPUs, or processes on CPUs, that the cells of each batch are shared out among, and how their processes start;
        see `causcell_training.config.OptimisationConfig`, and ``docs/large.md`` for what a script of several needs.
    split
        Part of each cell; see `causcell_training.data.cells.prepare`. With ``start_from``, cells that the run knows by
        name keep the part they had, and need not be in it.
    cache
        Where the panel's values are kept meanwhile: ``auto``, ``memory``, ``disk`` (beside the run) or a folder; see
        ``docs/training.md``. The model is the same, bit for bit.
    resume, overwrite
        Continue the interrupted run at ``out``; or remove the run there, once the data have been checked.
    progress, callbacks, logger
        Show a progress bar; Lightning callbacks, beside fit's own; a Lightning logger (`True`: the default one).
    plan
        A subclass of `TrainingPlan`, which says what it may override.

    Returns
    -------
    Run
        The finished run, with its model.

    Raises
    ------
    CausCellError
        `OutputExistsError`, `RunError`, `ConfigurationError`, or what `prepare` finds in the data.

    Examples
    --------
    >>> import tempfile
    >>> from causcell.evaluation.simulator import World
    >>> from causcell_training.config import load_config
    >>> world, quick = World.make(genes=40), load_config(overrides={"optimisation.epochs": 1})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = fit(world.cells(world.noise(100)), f"{folder}/run", concepts=["state"], config=quick)
    >>> run.model.schema.names
    ('state',)
    """
    out = local_path(out)
    reading = {"expression": expression, "layer": layer, "raw": raw, "totals": totals, "round_counts": round_counts}
    panel = {"genes": genes, "gene_selection": gene_selection, "batch_key": batch_key, "include_genes": include_genes}
    descent = {"freeze": freeze, "replay": replay, "allow_missing_genes": allow_missing_genes}
    values = {"label_features": label_features, "set_control": set_control}
    sections: dict[str, dict[str, Any]] = {
        "descent": descent,
        "optimisation": {"devices": devices, "strategy": strategy},
    }
    settings = _merge_settings(config, concepts, edges, sections, seed=seed, **values, **panel, **reading)
    run = None if start_from is None else _open_start(start_from, out)
    if run is not None:
        from causcell_training.descent import inherit_settings, read_heritage

        settings = inherit_settings(run, settings)
    elif settings.descent is not None:
        raise ConfigurationError(
            f"{_name_descent(descent)} is for a training that starts from a run; name it (start_from=), or leave it out"
        )
    place = find_cache(cache, out)
    _check_folder(out, settings, resume=resume, overwrite=overwrite)
    if run is None:
        check_inputs(data, settings, split)
    from causcell_training.loop.trainer import LoopOptions, train_model  # late: torch takes seconds

    heritage = None if run is None else read_heritage(run, settings.seed)
    options = LoopOptions(progress=progress, cache=place, callbacks=callbacks, logger=logger, plan=plan)
    return train_model(data, out, settings, split, options, heritage=heritage, resume=resume, overwrite=overwrite)


def _open_start(start_from: Run | str | os.PathLike[str], out: Path) -> Run:
    """Open the run that training starts from; raises `ConfigurationError` if it is in the new run's folder."""
    from causcell_training.run import Run

    run = start_from if isinstance(start_from, Run) else Run.load(start_from)
    if run.path.resolve() == out.resolve():
        raise ConfigurationError(f"out={str(out)!r} is the run that training starts from, start_from; name another")
    return run


def _name_descent(descent: Mapping[str, object]) -> str:
    """Name what is given of a descent; its section of the settings, where no argument is."""
    given = [f"{name}={value!r}" for name, value in descent.items() if value is not None]
    return format_list(given) if given else "the section 'descent' of config"


def _merge_settings(
    config: TrainConfig | None,
    concepts: Sequence[str] | str | None,
    edges: Sequence[str | tuple[str, str]] | str | None,
    sections: Mapping[str, Mapping[str, Any]],
    **others: Any,
) -> TrainConfig:
    """Put the arguments that are given over the settings; raises `ConfigurationError` naming the argument."""
    given = {name: value for name, value in others.items() if value is not None}
    if concepts is not None:
        given["concept"] = (concepts,) if isinstance(concepts, str) else tuple(concepts)
    if edges is not None:
        listed = (edges,) if isinstance(edges, str) else edges
        given["edge"] = tuple(_edge_text(edge) for edge in listed)
    base = config or TrainConfig()
    own = {name: getattr(base, name) for name in base.model_fields_set}  # the others are defaults, and stay so
    inner: dict[str, Any] = {}
    for section, arguments in sections.items():
        of_section = {name: value for name, value in arguments.items() if value is not None}
        if of_section:
            before = getattr(base, section)
            given[section] = (before.model_dump(exclude_unset=True) if before else {}) | of_section
            inner |= of_section
    try:
        return TrainConfig.model_validate(own | given)
    except ValidationError as error:
        first = error.errors()[0]
        place = [str(each) for each in first["loc"]]
        setting = place[1] if len(place) > 1 and place[0] in sections else place[0] if place else ""
        given |= inner
        named = f"{_ARGUMENTS.get(setting, setting)}={given.get(setting, first['input'])!r}: " if setting else ""
        raise ConfigurationError(named + first["msg"]) from error


def _edge_text(edge: object) -> str:
    """Return an edge as ``PARENT:CHILD``."""
    if isinstance(edge, str):
        return edge
    if isinstance(edge, list | tuple) and len(edge) == 2 and all(isinstance(name, str) for name in edge):
        return ":".join(edge)
    raise ConfigurationError(f"edges= has {edge!r}; give each as 'PARENT:CHILD', or as a pair of names")


def _check_folder(path: Path, config: TrainConfig, *, resume: bool, overwrite: bool) -> None:
    """Check that the folder may be written to, or that the run in it can go on."""
    if resume and overwrite:
        raise ConfigurationError("resume=True and overwrite=True exclude each other; leave one out")
    if resume:
        check_resumable(path, config)
    else:
        check_writable(path, overwrite=overwrite)
