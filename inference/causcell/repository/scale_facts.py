"""Facts of the scale of a model's training cells, which files of earlier versions do not have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from causcell.preprocessing import SUM_QUANTILES

_SCALE_FACTS = ("totals", "shares", "panel_sums")


def leave_out_unknown(fields: dict[str, Any]) -> dict[str, Any]:
    """Leave out facts of the scale that a model does not know: files of earlier versions are written as they were."""
    return {name: value for name, value in fields.items() if value or name not in _SCALE_FACTS}


def leave_out_linear(fields: dict[str, Any]) -> dict[str, Any]:
    """Leave out the mechanism that every model of an earlier version has: files of linear models stay as they were."""
    return {name: value for name, value in fields.items() if (name, value) != ("mechanism", "linear")}


def check_scale_facts(normalisation_genes: Sequence[str], shares: Sequence[float], sums: Sequence[float]) -> None:
    """Raise `ValueError` unless there is a share for each normalisation gene, and ascending quantiles; or none."""
    if shares and len(shares) != len(normalisation_genes):
        raise ValueError(
            f"shares has {len(shares)} numbers for {len(normalisation_genes)} normalisation genes; it has one for each"
        )
    if sums and (len(sums) != len(SUM_QUANTILES) or list(sums) != sorted(sums)):
        raise ValueError(f"panel_sums has {len(sums)} numbers; it has {len(SUM_QUANTILES)}, in ascending order")
