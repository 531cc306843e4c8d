"""Principal components of the training rows' expression, which the encoder reads."""

from __future__ import annotations

import numpy as np

from causcell_training.data.cells import TrainingData
from causcell_training.data.reading import sample_rows
from causcell_training.data.split import TRAINING


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
    from sklearn.decomposition import PCA

    rows = sample_rows(data.rows(TRAINING), np.random.default_rng((seed, 3)))
    count = min(components, min(len(rows), data.expression.shape[1]) - 1)
    pca = PCA(count, svd_solver="arpack", random_state=seed).fit(data.expression[rows].astype(np.float64))
    scale = np.sqrt(pca.explained_variance_).mean()
    axes = np.zeros((data.expression.shape[1], components), dtype=np.float32)
    axes[:, :count] = (pca.components_ * data.preprocessing.deviation).T / scale
    return axes
