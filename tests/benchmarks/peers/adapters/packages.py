"""Packages whose names adapters in this folder have too. No adapter of its own."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType


def import_package(name: str) -> ModuleType:
    """Import a system's package, past the adapter of the same name in this folder."""
    own, path = str(Path(__file__).parent), list(sys.path)
    sys.modules.pop(name, None)
    sys.path[:] = [each for each in path if each != own]
    try:
        return importlib.import_module(name)
    finally:
        sys.path[:] = path
