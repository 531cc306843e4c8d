"""Training of CausCell with PyTorch: `fit` turns labelled cells into a run folder, `CausCell` is the model."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from causcell._deprecation import MovedModules
from causcell._internal.waiting import wait_passively
from causcell_training import _moved

if TYPE_CHECKING:
    from causcell_training.config import TrainConfig
    from causcell_training.fitting import fit
    from causcell_training.loop.training_plan import TrainingPlan
    from causcell_training.model import CausCell
    from causcell_training.run import Run

__all__ = ["CausCell", "Run", "TrainConfig", "TrainingPlan", "fit"]

_HOME = {
    "CausCell": "model",
    "Run": "run",
    "TrainConfig": "config",
    "TrainingPlan": "loop.training_plan",
    "fit": "fitting",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'causcell_training' has no attribute {name!r}")
    return getattr(importlib.import_module(f"causcell_training.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


wait_passively()  # before any module here loads torch, which asks once

MovedModules(_moved.MOVED, _moved.RENAMED).install()
