"""Principal components of the training rows' expression, which the encoder reads."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from causcell_training.data.cells import TrainingData
from causcell_training.data.reading import sample_rows
from causcell_training.data.split import TRAINING

_RANK_TOLERANCE = 1e-12
"""Share of the largest variance below which a component is noise of the arithmetic."""


def principal_axes(data: TrainingData, components: int, seed: int) -> np.ndarray:
    """Compute the map from standardised expression to principal components of the training rows on the log scale.

    The components are scaled by one number, to a mean standard deviation of 1; those beyond the rank of the data are
    zero.

    Parameters
    ----------
    data
        Training data with G panel genes.
    components
        Number of components.
    seed
        Seed of the sample of rows and of the decomposition's start.

    Returns
    -------
    ndarray
        Axes, float32 [G x components].
    """
    rows = sample_rows(data.rows(TRAINING), np.random.default_rng((seed, 3)))
    expression = data.expression[rows].astype(np.float64)
    directions, variance = _decompose(expression, min(components, min(expression.shape) - 1), seed)
    beyond_rank = ~(variance > _RANK_TOLERANCE * variance.max())
    directions[beyond_rank] = 0
    scale = np.sqrt(variance[~beyond_rank]).mean()
    axes = np.zeros((expression.shape[1], components), dtype=np.float32)
    axes[:, : len(directions)] = (directions * data.preprocessing.deviation).T / scale
    return axes


def _decompose(expression: sparse.csr_matrix, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute ``count`` principal directions [count x G] and the variance along each; fewer than the rank or more."""
    from scipy.sparse.linalg import ArpackError
    from sklearn.decomposition import PCA

    try:
        pca = PCA(count, svd_solver="arpack", random_state=seed).fit(expression)
        if np.isfinite(pca.components_).all() and np.isfinite(pca.explained_variance_).all():
            return pca.components_, pca.explained_variance_
    except ArpackError:
        pass  # few directions have any variance
    centred = expression.toarray()
    centred -= centred.mean(axis=0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    return directions[:count], singular[:count] ** 2 / max(len(centred) - 1, 1)
