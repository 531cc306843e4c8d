"""Export of a trained CausCell run to a verified model repository of ONNX graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from causcell_export.exporter import export

__all__ = ["export"]


def __getattr__(name: str) -> Any:
    if name != "export":
        raise AttributeError(f"module 'causcell_export' has no attribute {name!r}")
    from causcell_export.exporter import export

    return export
