"""Expression: the one scale that every graph and function speaks, and the way there from a file's values.

The scale is log1p of counts scaled to 10,000 a cell (or log1p values as given), over the genes of a panel, in the
panel's order. Training and serving both come here, so that they can't differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from causcell.errors import ConfigurationError, format_list

Scale = Literal["counts", "log1p"]


SCALES: tuple[Scale, ...] = ("counts", "log1p")


TARGET_SUM = 1e4
"""Total that a cell's counts are scaled to before log1p."""


DEVIATION_FLOOR = 0.1
"""Least deviation that a gene is standardised by: hardly varying genes are not blown up."""


Names: TypeAlias = Sequence[str] | np.ndarray


Matrix: TypeAlias = Any
"""A numpy array or a scipy sparse matrix, [cells x genes]."""


@dataclass(frozen=True)
class Preprocessing:
    """How values of a file become model input; recorded in the manifest.

    Attributes
    ----------
    genes
        The panel, in order.
    scale
        What the file holds: raw ``counts``, or ``log1p`` values.
    normalisation_genes
        Genes over which a cell's total is taken (``counts`` only, else empty).
    mean, deviation
        float32 [G], of the training cells on the log scale; the network standardises by them.
    """

    genes: tuple[str, ...]
    scale: Scale
    normalisation_genes: tuple[str, ...]
    mean: np.ndarray
    deviation: np.ndarray

    def standardise(self, expression: np.ndarray) -> np.ndarray:
        """Log scale to standardised scale, float32 [B x G]."""
        return (expression - self.mean) / self.deviation

    def expression(self, standardised: np.ndarray) -> np.ndarray:
        """Standardised scale to log scale, clipped at zero expression, float32 [B x G]."""
        expression = np.maximum(standardised * self.deviation + self.mean, 0.0)
        expression[standardised == self.zero] = 0.0  # which rounding would miss
        return expression

    @property
    def zero(self) -> np.ndarray:
        """Standardised zero expression, float32 [G]."""
        return -self.mean / self.deviation


def gene_digest(genes: Sequence[str]) -> str:
    """SHA-256 (hex) of a gene panel in its order."""
    return hashlib.sha256("\n".join(genes).encode()).hexdigest()


def check_scale(scale: str) -> Scale:
    """The scale, if it is one; raises `ConfigurationError`."""
    for known in SCALES:
        if scale == known:
            return known
    raise ConfigurationError(f"expression scale {scale!r} is not known; declare one of {format_list(SCALES)}")
