"""Fitting: from labelled cells to a run folder. Arguments are checked here, the loop is `causcell_training.loop`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from causcell.errors import ConfigurationError
from causcell_training.config import TrainConfig
from causcell_training.run_folder import check_writable, find_checkpoint

if TYPE_CHECKING:
    import anndata
    from lightning.pytorch import Callback
    from lightning.pytorch.loggers import Logger

    from causcell_training.loop.training_plan import TrainingPlan
    from causcell_training.run import Run

_ARGUMENTS = {"concept": "concepts", "edge": "edges"}
"""Arguments of `fit` that have another name than their setting, by setting."""


def fit(
    data: anndata.AnnData | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    config: TrainConfig | None = None,
    concepts: Sequence[str] | None = None,
    edges: Sequence[str | tuple[str, str]] | None = None,
    expression: str | None = None,
    genes: int | str | None = None,
    layer: str | None = None,
    raw: bool | None = None,
    totals: str | None = None,
    round_counts: bool | None = None,
    seed: int | None = None,
    split: str | os.PathLike[str] | Mapping[str, str] | None = None,
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
        Cells with labels in ``obs`` (missing: unlabelled), raw counts or log1p values; or a path to them.
    out
        Folder of the run; see `causcell_training.run_folder`.
    config
        Settings; `TrainConfig` documents those that ``concepts`` to ``seed`` override.
    concepts, edges, expression, genes, layer, raw, totals, round_counts, seed
        Columns of ``obs``; edges between them, ``"PARENT:CHILD"`` or pairs; scale, panel; the layer or ``adata.raw`` in
        place of ``X``; a column with cells' totals; whether to round counts; seed.
    split
        Part of each cell; see `causcell_training.data.cells.prepare`.
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
    reading = {"expression": expression, "layer": layer, "raw": raw, "totals": totals, "round_counts": round_counts}
    settings = _merge_settings(config, concepts, edges, genes=genes, seed=seed, **reading)
    checkpoint = _check_folder(Path(out), settings, resume=resume, overwrite=overwrite)
    from causcell_training.loop.trainer import LoopOptions, train_model  # late: torch takes seconds

    options = LoopOptions(progress=progress, callbacks=callbacks, logger=logger, plan=plan)
    return train_model(data, Path(out), settings, split, options, checkpoint=checkpoint, overwrite=overwrite)


def _merge_settings(
    config: TrainConfig | None,
    concepts: Sequence[str] | None,
    edges: Sequence[str | tuple[str, str]] | None,
    **others: Any,
) -> TrainConfig:
    """Put the arguments that are given over the settings; raises `ConfigurationError` naming the argument."""
    for name, value in (("concepts", concepts), ("edges", edges)):
        if isinstance(value, str):
            raise ConfigurationError(f"{name}={value!r} is one text; give a list: {name}=[{value!r}]")
    given = {name: value for name, value in others.items() if value is not None}
    if concepts is not None:
        given["concept"] = tuple(concepts)
    if edges is not None:
        given["edge"] = tuple(edge if isinstance(edge, str) else ":".join(edge) for edge in edges)
    try:
        return TrainConfig.model_validate(dict(config or TrainConfig()) | given)
    except ValidationError as error:
        first = error.errors()[0]
        setting = str(first["loc"][0]) if first["loc"] else ""
        named = f"{_ARGUMENTS.get(setting, setting)}={given.get(setting, first['input'])!r}: " if setting else ""
        raise ConfigurationError(named + first["msg"]) from error


def _check_folder(path: Path, config: TrainConfig, *, resume: bool, overwrite: bool) -> Path | None:
    """Check that the folder may be written to, and find the checkpoint to resume from, if any is wanted."""
    if resume and overwrite:
        raise ConfigurationError("resume=True and overwrite=True exclude each other; leave one out")
    if resume:
        return find_checkpoint(path, config)
    check_writable(path, overwrite=overwrite)
    return None
