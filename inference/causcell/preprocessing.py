"""Preprocessing of expression: the one scale that every ONNX graph and every function works on.

The log scale is log1p of counts scaled to 10,000 a cell (or log1p values as given), over the genes of a panel, in the
panel's order. The networks standardise it inside. Training and serving both take their definitions from here, so that
they can't differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from causcell.errors import ConfigurationError, format_list

Scale = Literal["counts", "log1p"]
"""Scale of a file's values: raw ``counts``, or ``log1p`` values."""

SCALES: tuple[Scale, ...] = ("counts", "log1p")
"""All scales that a file may have."""

TARGET_SUM = 1e4
"""Total that a cell's counts are scaled to before log1p."""

SUM_QUANTILES = (0.0, 0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999, 1.0)
"""Quantiles of `Preprocessing.panel_sums`."""

DEVIATION_FLOOR = 0.1
"""Smallest standard deviation that a gene is divided by: noise in genes that hardly vary is not amplified."""

Names: TypeAlias = Sequence[str] | np.ndarray
"""Names of cells or genes, [n]."""

Matrix: TypeAlias = Any
"""A numpy array or a scipy sparse matrix, [cells x genes]."""


@dataclass(frozen=True)
class Preprocessing:
    """The way from a file's values to model input and back; recorded in the manifest.

    Attributes
    ----------
    genes
        Gene panel, in order; G genes.
    scale
        Scale of the file's values: raw ``counts``, or ``log1p`` values.
    normalisation_genes
        Genes over which a cell's total is taken (``counts`` without ``totals`` only, else empty); N genes.
    mean, deviation
        Mean and standard deviation of each gene over the training cells, float32 [G], log scale. The deviation is at
        least `DEVIATION_FLOOR`.
    totals
        Column of ``obs`` that the training cells' totals came from, where they are not sums over the file's genes.
        Which genes they count is not known, so that other cells need such a column too.
    shares
        Share of each normalisation gene in a cell's total, mean over the training cells, float32 [N]; `None` for
        models of earlier versions.
    panel_sums
        Quantiles (`SUM_QUANTILES`) over the training cells of the sum of expm1 of a cell's panel expression, float64;
        `None` for models of earlier versions. The panel and not all genes, as files to serve are often cut to it.

    Examples
    --------
    >>> import numpy as np
    >>> mean, deviation = np.float32([1.0, 0.5]), np.float32([2.0, 0.5])
    >>> preprocessing = Preprocessing(("CD3E", "LYZ"), "log1p", (), mean, deviation)
    >>> preprocessing.standardise(np.float32([[3.0, 0.0]]))
    array([[ 1., -1.]], dtype=float32)
    >>> preprocessing.expression(np.float32([[1.0, -1.0], [-5.0, 0.0]]))
    array([[3. , 0. ],
           [0. , 0.5]], dtype=float32)
    """

    genes: tuple[str, ...]
    scale: Scale
    normalisation_genes: tuple[str, ...]
    mean: np.ndarray
    deviation: np.ndarray
    totals: str | None = None
    shares: np.ndarray | None = None
    panel_sums: np.ndarray | None = None

    def standardise(self, expression: np.ndarray) -> np.ndarray:
        """Standardise expression: subtract the mean, divide by the deviation.

        Parameters
        ----------
        expression
            Log scale, float32 [B x G].

        Returns
        -------
        Standardised expression, float32 [B x G].
        """
        standardised: np.ndarray = (expression - self.mean) / self.deviation
        return standardised

    def expression(self, standardised: np.ndarray) -> np.ndarray:
        """Return standardised values to the log scale, clipped at zero expression.

        Parameters
        ----------
        standardised
            Standardised expression, float32 [B x G].

        Returns
        -------
        Expression on the log scale, float32 [B x G]; exactly 0 where the standardised value is `zero`.
        """
        expression: np.ndarray = np.maximum(standardised * self.deviation + self.mean, 0.0)
        expression[standardised == self.zero] = 0.0  # which rounding would miss
        return expression

    def describe_scale(self) -> str:
        """Say in words what a value of expression is.

        Examples
        --------
        >>> empty = np.zeros(1, dtype=np.float32)
        >>> Preprocessing(("CD3E",), "counts", ("CD3E",), empty, empty).describe_scale()
        'natural logarithm of 1 + counts per 10,000'
        """
        if self.scale == "counts":
            return f"natural logarithm of 1 + counts per {TARGET_SUM:,.0f}"
        return "log1p values, on the scale of the cells that the model was trained on"

    @property
    def zero(self) -> np.ndarray:
        """Standardised value of zero expression, float32 [G]."""
        zero: np.ndarray = -self.mean / self.deviation
        return zero


def gene_digest(genes: Sequence[str]) -> str:
    """Compute the SHA-256 (hex) of a gene panel in its order."""
    return hashlib.sha256("\n".join(genes).encode()).hexdigest()


def check_scale(scale: str) -> Scale:
    """Return ``scale`` as a `Scale`.

    Raises
    ------
    ConfigurationError
        The scale is neither ``counts`` nor ``log1p``.
    """
    for known in SCALES:
        if scale == known:
            return known
    raise ConfigurationError(f"expression scale {scale!r} is not known; declare one of {format_list(SCALES)}")
