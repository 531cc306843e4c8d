"""The run folder: its files, and who may write to it.

::

    run.json               concepts, graph, panel, normalisation, digests of training cells, provenance, versions
    config.toml            all settings, to be given to `load_config` again
    weights.safetensors    the moving average of the weights
    reference.npz          embeddings of the reference cells that interventions draw from
    held_out.h5ad          held-out cells: panel expression (log scale), labels, part (choose or report)
    split.csv              part of every cell
    metrics.csv            every term of the objective, by step and epoch
    checkpoints/           to resume from; gone when training has finished
    lightning_logs/        files of Lightning's own logger, where one was asked for

It holds all that export and evaluation need of a trained model, so that they take no data. ``run.json`` is written
last: a folder that has it is a finished run.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterable
from pathlib import Path

import tomli_w

from causcell._internal.files import refuse_existing
from causcell.errors import OutputExistsError, RunError, format_list
from causcell_training.config import TrainConfig

RUN_FILE = "run.json"
CONFIG_FILE = "config.toml"
WEIGHTS_FILE = "weights.safetensors"
REFERENCE_FILE = "reference.npz"
HELD_OUT_FILE = "held_out.h5ad"
SPLIT_FILE = "split.csv"
METRICS_FILE = "metrics.csv"
CHECKPOINTS = "checkpoints"
LIGHTNING_LOGS = "lightning_logs"

ENTRIES = (
    RUN_FILE,
    WEIGHTS_FILE,
    REFERENCE_FILE,
    HELD_OUT_FILE,
    METRICS_FILE,
    CHECKPOINTS,
    LIGHTNING_LOGS,
    SPLIT_FILE,
    CONFIG_FILE,
)
"""Everything that a run folder may hold, in the order in which a run is removed."""


def find_checkpoint(path: Path, config: TrainConfig) -> Path:
    """Find the checkpoint from which an interrupted run goes on.

    Raises
    ------
    RunError
        The run has finished, has no checkpoint, or was begun with other settings.
    """
    if (path / RUN_FILE).exists():
        raise RunError(f"the run in {str(path)!r} has finished; there is nothing to resume")
    last = path / CHECKPOINTS / "last.ckpt"
    if not last.is_file():
        raise RunError(f"{str(path)!r} holds no checkpoint to resume from; remove it, and train without resume=True")
    if (path / CONFIG_FILE).read_text() != format_config(config):
        raise RunError(
            f"the run in {str(path)!r} was begun with other settings (see its {CONFIG_FILE}); resume it with the same, "
            f"those of config={str(path / CONFIG_FILE)!r}"
        )
    return last


def check_writable(path: Path, *, overwrite: bool = False) -> None:
    """Check that a new run may be written to a folder.

    Parameters
    ----------
    path
        Folder of the new run.
    overwrite
        Allow a folder that holds a run, finished or not, and nothing else.

    Raises
    ------
    OutputExistsError
        Something is at ``path`` that is not overwritten.
    """
    if not (overwrite and path.exists()):
        refuse_existing(path)
        return
    entries = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    begun = RUN_FILE in entries or {CONFIG_FILE, SPLIT_FILE} <= entries
    strange = sorted(entries - set(ENTRIES))
    if strange or not (begun or (path.is_dir() and not entries)):
        found = f"it holds {format_list(strange)}" if strange else f"it has no {RUN_FILE}"
        raise OutputExistsError(
            f"{str(path)!r} is not overwritten, for it is not a training run's folder alone ({found}); remove it, or "
            "name another place"
        )


def begin_run(path: Path, config: TrainConfig, names: Iterable[str], parts: Iterable[str], *, overwrite: bool) -> None:
    """Make the folder of a new run, with its settings and its split; the run that it overwrites is removed.

    Parameters
    ----------
    path
        Folder of the run.
    config
        Settings.
    names, parts
        Name and part of each cell, both of length n.
    overwrite
        Allow a folder that holds a run.

    Raises
    ------
    OutputExistsError
        Something is at ``path`` that is not overwritten.
    """
    check_writable(path, overwrite=overwrite)
    path.mkdir(parents=True, exist_ok=True)
    for name in ENTRIES:
        entry = path / name
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)
    (path / CONFIG_FILE).write_text(format_config(config))
    with (path / SPLIT_FILE).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["cell", "split"])
        writer.writerows(zip(names, parts, strict=True))


def format_config(config: TrainConfig) -> str:
    """Return the text of ``config.toml``."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))
