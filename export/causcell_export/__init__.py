"""Export of a trained CausCell run to a verified model repository of ONNX graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from causcell._deprecation import MovedModules
from causcell._internal.waiting import wait_passively

if TYPE_CHECKING:
    from causcell_export.exporter import export

__all__ = ["export"]


def __getattr__(name: str) -> Any:
    if name != "export":
        raise AttributeError(f"module 'causcell_export' has no attribute {name!r}")
    from causcell_export.exporter import export

    return export


def __dir__() -> list[str]:
    return __all__


wait_passively()  # before any module here loads torch, which asks once

MovedModules(
    {
        "causcell_export.benchmark": ("causcell_export.cross_validation",),
        "causcell_export.repository": ("causcell_export.exporter", "causcell_export.quality"),
    },
    {"chosen_combinations": "choose_combinations"},
).install()
