"""What the values of an atlas can't be, told in words; an empty text where nothing is wrong."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from causcell.atlas.plan import Plan
from causcell.counterfactual.outputs import PARTIAL, SIGNED


def describe_values(chunks: Iterable[np.ndarray], plan: Plan, place: str) -> str:
    """Describe values that are not finite, are negative where they can't be, or are zeros that a CSR matrix stores."""
    signed = plan.request.store not in ("expression", "counts", "summary") or place in SIGNED
    unfinite = negative = zeros = total = 0
    for chunk in chunks:
        total += chunk.size
        if place in plan.sparse:
            zeros += int(chunk.size - np.count_nonzero(chunk))
        if place in PARTIAL:
            chunk = np.nan_to_num(chunk, nan=0.0, posinf=np.inf, neginf=-np.inf)
        low, high = chunk.min(initial=0), chunk.max(initial=0)  # not a number where any value is none
        if np.isfinite(low) and np.isfinite(high) and (signed or low >= 0):
            continue
        unfinite += int(chunk.size - np.isfinite(chunk).sum())
        negative += 0 if signed else int((chunk < 0).sum())
    told = {"not finite": unfinite, "negative": negative, "stored zeros": zeros}
    return ", ".join(f"{count / total:.2%} of its values are {what}" for what, count in told.items() if count)


def describe_columns(chunks: Iterable[np.ndarray], plan: Plan, place: str) -> str:
    """Describe columns of a CSR matrix that it has not."""
    outside = total = 0
    for chunk in chunks:
        total += chunk.size
        outside += int(((chunk < 0) | (chunk >= plan.arrays[place])).sum())
    return f"{outside / total:.2%} of its columns are none of the matrix" if outside else ""
