"""Measures of generated against real expression (log scale, panel genes, clipped at zero)."""

from __future__ import annotations

import numpy as np


def pearson(real: np.ndarray, generated: np.ndarray) -> float:
    """Pearson correlation over genes for each cell, then the mean over cells, of [n x G] arrays.

    Cells whose expression (or profile) is the same in all genes have no correlation and are left out.
    """
    a = real - real.mean(axis=1, keepdims=True)
    b = generated - generated.mean(axis=1, keepdims=True)
    norm = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return float(((a * b).sum(axis=1)[norm > 0] / norm[norm > 0]).mean())


def mean_squared_error(real: np.ndarray, generated: np.ndarray) -> float:
    """Mean over all entries of [n x G] arrays."""
    return float(((real - generated) ** 2).mean())
