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

It holds all that export and evaluation need of a trained model, so that they take no data. Every file is written
beside its place and renamed, ``run.json`` last: a folder in which it is whole, with the files whose digests it has, is
a finished run. Until then the following are there::

    checkpoints/data.safetensors    what of the cells a model needs; its presence says that a run was begun
    checkpoints/best.safetensors    the best weights so far
    checkpoints/last.safetensors    the state after the last validation, from which training is resumed
    checkpoints/facts.json          steps, epochs and time of a training in several processes, at its end

No file holds a pickle, and none is read as one.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tomli_w

from causcell._internal.digests import file_digest
from causcell._internal.files import new_file, refuse_existing, staging_place
from causcell.errors import ConfigurationError, OutputExistsError, RunError, format_list
from causcell_training.config import TrainConfig, load_config

RUN_FILE = "run.json"
CONFIG_FILE = "config.toml"
WEIGHTS_FILE = "weights.safetensors"
REFERENCE_FILE = "reference.npz"
HELD_OUT_FILE = "held_out.h5ad"
SPLIT_FILE = "split.csv"
METRICS_FILE = "metrics.csv"
CHECKPOINTS = "checkpoints"
DATA_FILE = f"{CHECKPOINTS}/data.safetensors"
BEST_FILE = f"{CHECKPOINTS}/best.safetensors"
LAST_FILE = f"{CHECKPOINTS}/last.safetensors"
FACTS_FILE = f"{CHECKPOINTS}/facts.json"
LIGHTNING_LOGS = "lightning_logs"

TRAINED_FILES = (WEIGHTS_FILE, REFERENCE_FILE, HELD_OUT_FILE)
"""Files whose digests stand in ``run.json``."""

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


FREE_ON_RESUME = ("epochs", "patience", "accelerator", "strategy")
"""Settings of ``optimisation`` that a resumed run may change: they do not change what an epoch does."""

EARLIER_MODEL: dict[str, Any] = {"abduction": "expression", "last_norm": True}
"""Settings of ``model`` as they were before they could be chosen: those of a run that does not name them."""


def is_finished(path: Path) -> bool:
    """Tell whether a folder holds a finished run: ``run.json`` is whole, and so are the files that it names."""
    try:
        files = json.loads((path / RUN_FILE).read_text()).get("files", {})
        if not files:  # an older version's: written last, digests were none
            return all((path / name).is_file() for name in TRAINED_FILES)
        return all(file_digest(path / name) == files[name] for name in TRAINED_FILES)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def is_begun(path: Path) -> bool:
    """Tell whether a folder holds a run that has not finished, or can't be read."""
    return any((path / name).exists() for name in (DATA_FILE, BEST_FILE, LAST_FILE)) or (
        (path / CONFIG_FILE).exists() and (path / SPLIT_FILE).exists()
    )


def check_resumable(path: Path, config: TrainConfig) -> None:
    """Check that the run at ``path`` can go on with these settings.

    Raises
    ------
    RunError
        The run has finished, was not begun, was begun with other settings, or is an older version's.
    """
    named = repr(str(path))
    if not is_begun(path):
        if is_finished(path):
            raise RunError(f"the run in {named} has finished; there is nothing to resume")
        raise RunError(f"{named} holds no run to resume, and no checkpoint; train without resume=True")
    linked = [name for name in ENTRIES if (path / name).is_symlink()]
    if linked:
        raise RunError(f"{named} has links in place of {format_list(linked)}; resume a run whose files are its own")
    if is_finished(path):
        raise RunError(f"the run in {named} has finished; there is nothing to resume")
    if not (path / DATA_FILE).exists():
        older = " of an older version, whose checkpoints are pickles, which are not read" if _has_pickles(path) else ""
        raise RunError(
            f"{named} holds the beginning of a run{older}, and no checkpoint to resume from; begin again with "
            "overwrite=True"
        )
    _compare_settings(path, config)


def _has_pickles(path: Path) -> bool:
    return any((path / CHECKPOINTS).glob("*.ckpt"))


def _compare_settings(path: Path, config: TrainConfig) -> None:
    """Raise `RunError` unless the settings are those that the run was begun with, `FREE_ON_RESUME` apart."""
    try:
        begun = read_config(path)
    except ConfigurationError as error:
        raise RunError(
            f"the run in {str(path)!r} has no readable {CONFIG_FILE} ({error}); begin again with overwrite=True"
        ) from error
    own, theirs = (_flatten(each.model_dump(mode="json")) for each in (config, begun))
    free = {"descent.steps", *(f"optimisation.{name}" for name in FREE_ON_RESUME)}
    names = dict.fromkeys([*own, *theirs])  # an option that is not used is in neither
    differing = [name for name in names if name not in free and own.get(name) != theirs.get(name)]
    if differing:
        told = "; ".join(f"{name} is {theirs.get(name)!r} there and {own.get(name)!r} here" for name in differing[:4])
        more = f" and {len(differing) - 4} more" if len(differing) > 4 else ""
        raise RunError(
            f"the run in {str(path)!r} was begun with other settings: {told}{more}; resume it with its own, those of "
            f"config={str(path / CONFIG_FILE)!r}, and with what is told here where that does not name it (free are "
            f"{format_list(FREE_ON_RESUME)})"
        )


def _flatten(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


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
        if path.is_dir() and is_begun(path) and not is_finished(path):
            raise OutputExistsError(
                f"{str(path)!r} exists already: a run that has not finished; go on with it by resume=True, or begin "
                "again by overwrite=True"
            )
        refuse_existing(path)
        return
    entries = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    strange = sorted(entries - set(ENTRIES) - {staging_place(path / name).name for name in ENTRIES})
    begun = RUN_FILE in entries or is_begun(path) or (path.is_dir() and not _has_files(path))
    if strange or not begun:
        found = f"it holds {format_list(strange)}" if strange else f"it has no {RUN_FILE}"
        raise OutputExistsError(
            f"{str(path)!r} is not overwritten, for it is not a training run's folder alone ({found}); name another "
            "place, or remove what is there"
        )


def _has_files(path: Path) -> bool:
    """Tell whether any file is below a folder, those apart that a killed process left half written."""
    files = (each.relative_to(path) for each in path.rglob("*") if each.is_file())
    return any(not any(part.startswith(".") for part in file.parts) for file in files)


def clear_run(path: Path) -> None:
    """Make the folder of a new run, or remove the run in it but for settings and split, which will be replaced.

    Killed at any moment, the folder is still known as a run's, which may be overwritten.
    """
    path.mkdir(parents=True, exist_ok=True)
    for entry in (*(path / name for name in ENTRIES[:-2]), *(staging_place(path / name) for name in ENTRIES)):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)


def read_config(path: Path) -> TrainConfig:
    """Read ``config.toml`` of a run folder, which may be an earlier version's.

    Raises
    ------
    ConfigurationError
        It can't be read, or holds what is no setting.
    """
    config = load_config(path / CONFIG_FILE)
    earlier = {name: value for name, value in EARLIER_MODEL.items() if name not in config.model.model_fields_set}
    return config.model_copy(update={"model": config.model.model_copy(update=earlier)})


def write_config(path: Path, config: TrainConfig) -> None:
    """Write ``config.toml`` to a run folder."""
    with new_file(path / CONFIG_FILE, overwrite=True) as staging:
        staging.write_text(format_config(config))


def write_split(path: Path, names: Iterable[str], parts: Iterable[str]) -> None:
    """Write ``split.csv`` to a run folder: name and part of each cell, both of length n."""
    with new_file(path / SPLIT_FILE, overwrite=True) as staging, staging.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["cell", "split"])
        writer.writerows(zip(names, parts, strict=True))


def format_config(config: TrainConfig) -> str:
    """Return the text of ``config.toml``."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))
