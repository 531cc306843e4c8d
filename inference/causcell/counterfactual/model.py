"""The causal model over an engine: abduction, action and prediction."""

from __future__ import annotations

import numpy as np

from causcell.randomness import Purpose, normals


def abduct(posterior: tuple[np.ndarray, np.ndarray], keys: np.ndarray, draw: int = 0) -> np.ndarray:
    """Exogenous embeddings drawn from their posterior, keyed by cell.

    What decodes them was trained on draws: from posterior means cells vary less than they should (Kang, three seeds,
    energy distance of one draw to held-out cells: from means .059, from draws .052).

    Parameters
    ----------
    posterior
        Mean and log-variance, each [B x M x k].
    keys
        The cells' keys, uint64 [B x 2].
    draw
        Index of the draw.

    Returns
    -------
    float32 [B x M x k].
    """
    mean, logvar = posterior
    noise = normals(keys, mean[0].size, Purpose.ABDUCTION, draw=draw).reshape(mean.shape)
    return mean + np.exp(0.5 * logvar) * noise
