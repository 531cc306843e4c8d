"""Values of concepts as files hold them: nothing of them stands in the files of models of plain labels."""

from __future__ import annotations

from typing import Any


def leave_out_plain_values(fields: dict[str, Any]) -> dict[str, Any]:
    """Leave out the value of concepts of plain labels, and what the others do not have: as earlier versions wrote."""
    fields["concepts"] = [
        {name: _without_empty(part) if name == "value" else part for name, part in each.items() if part is not None}
        for each in fields["concepts"]
    ]
    return fields


def _without_empty(value: dict[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in value.items() if part is not None and part != () and part != []}
