"""CausCell: causal counterfactuals of single cells, generated from an exported model.

The client needs numpy, anndata and ONNX Runtime, never torch. `Generator` is where to begin::

    from causcell import Generator

    with Generator.open("models") as generator:
        stimulated = generator.counterfactual(adata, do={"stim": "IFN"}, seed=0)

`fit` trains such a model in one call, where training is installed; `push` shares it. `check` tells, before training,
what labels, concepts and graph let a model learn. Errors are one tree, described in `causcell.errors`; figures of
results are in `causcell.plot` (`causcell.pl`), tables in `causcell.get`.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from causcell.atlas.executors import Dask, InProcess, Processes
    from causcell.cells.check import check
    from causcell.errors import CausCellError
    from causcell.fitting import fit
    from causcell.generator import Generator
    from causcell.repository.folder import open_repository
    from causcell.repository.sharing import push

__version__ = "0.1.0"
"""The version; pyproject.toml reads it from here."""

__all__ = [
    "CausCellError",
    "Dask",
    "Generator",
    "InProcess",
    "Processes",
    "__version__",
    "check",
    "fit",
    "open_repository",
    "push",
]

_MODULES = {"errors": "errors", "get": "get", "pl": "plot", "plot": "plot"}
_HOME = {
    "CausCellError": "errors",
    "Dask": "atlas.executors",
    "Generator": "generator",
    "InProcess": "atlas.executors",
    "Processes": "atlas.executors",
    "check": "cells.check",
    "fit": "fitting",
    "open_repository": "repository.folder",
    "push": "repository.sharing",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"causcell.{_MODULES[name]}")
    if name not in _HOME:
        raise AttributeError(f"module 'causcell' has no attribute {name!r}")
    return getattr(importlib.import_module(f"causcell.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, *_MODULES]


class _OldModules:
    """Find modules by the names that they had; tables and machinery are loaded when one is asked for."""

    @staticmethod
    def find_spec(fullname: str, path: Any = None, target: Any = None) -> Any:
        if not fullname.startswith("causcell."):
            return None
        from causcell import _moved
        from causcell._deprecation import MovedModules

        finder = MovedModules(_moved.MOVED, _moved.RENAMED, _moved.REPLACED, _moved.KEPT)
        return finder.find_spec(fullname, path, target)


sys.meta_path.append(_OldModules)
