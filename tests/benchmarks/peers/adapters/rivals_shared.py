"""What scDisInFact, scCBGM, scPRAM and CellFlow share. No adapter of its own."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd


def open_checkout(job: Any, system: str, packages: Iterable[str], url: str) -> None:
    """Make a checkout's packages importable, without what their ``__init__`` imports (plots, trackers, other systems).

    Raises
    ------
    SystemExit
        Without a checkout, or with one that does not hold the packages.
    """
    if job.checkout is None:
        raise SystemExit(f"{system} is on no package index: give a checkout of {url} as the job's `checkout`")
    for name in packages:
        folder = Path(job.checkout, *name.split("."))
        if not folder.is_dir():
            raise SystemExit(f"{system}: the checkout {job.checkout} has no folder {name.replace('.', '/')}")
        package = ModuleType(name)
        package.__path__ = [str(folder)]  # type: ignore[attr-defined]
        sys.modules[name] = package
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, package)


@contextlib.contextmanager
def stubbed(name: str, **content: Any) -> Iterator[None]:
    """Put a module in the place of a package that a system imports and a model does without, for as long as it lasts.

    It is taken away again: other packages ask whether this one is there.
    """
    if name in sys.modules:
        yield
        return
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    module.__dict__.update(content)
    sys.modules[name] = module
    try:
        yield
    finally:
        del sys.modules[name]


def trained(cells: Any) -> Any:
    """Return the cells that are no validation cells."""
    return cells[~cells.obs["validation"].to_numpy(dtype=bool)].copy()


def log_values(cells: Any) -> np.ndarray:
    """Return the cells' log1p of counts per 10,000, float32 [n x G]."""
    return np.asarray(cells.layers["log1p"].todense(), dtype=np.float32)


def counts(cells: Any) -> np.ndarray:
    """Return the cells' counts, float32 [n x G]."""
    return np.asarray(cells.X.todense(), dtype=np.float32)


def labels_of(cells: Any, columns: Iterable[str]) -> pd.DataFrame:
    """Return labels as text, a row a cell."""
    return cells.obs[list(columns)].astype(str)


def repeated(values: np.ndarray, draws: int) -> np.ndarray:
    """Return the same values for every draw, [draws x n x G]: samples of a system that has no noise in its decoder."""
    return np.repeat(values[None], draws, axis=0)


def single_concept(do: dict[str, str], system: str) -> tuple[str, str]:
    """Return the one concept that is set, and its label.

    Raises
    ------
    NotImplementedError
        For several: the system has one condition.
    """
    if len(do) > 1:
        raise NotImplementedError(f"{system} changes one condition at a time, not {', '.join(do)} together")
    return next(iter(do.items()))
