"""What tests of results share: the solvers that each is tried with, and how results are compared.

Where a batch changes, results agree within 1e-4 (float32 sums in another order); where it does not, bit for bit.
"""

import anndata
import numpy as np
import pandas as pd
import pytest
from simulation import CONCEPTS

TOLERANCE = 1e-4
JOINT = {"stim": "IFN", "cell_type": "T"}
SOLVERS = {
    "mean": {"preset": "mean"},
    "draw": {"preset": "draw"},
    "draws": {"solver": "draw", "steps": 5, "draws": 2},
    "deterministic": {"solver": "ddim", "steps": 20},
    "ancestral": {"solver": "ddpm", "steps": 10, "draws": 2},
}

solvers = pytest.mark.parametrize("options", SOLVERS.values(), ids=SOLVERS)


def by_name(result, names):
    """Expression and annotations of a result's rows for cells, in the order of their names."""
    rows = pd.Index(result.obs["source_cell"].astype(str)).get_indexer_for(names)
    return result.X[rows], result.obs.iloc[rows].astype(str)


def assert_same_cells(result, expected, names, tolerance=TOLERANCE):
    """One value in a thousand may differ by more: draws decide between zero and a slab whose quantiles are steep."""
    x, obs = by_name(result, names)
    expected_x, expected_obs = by_name(expected, names)
    assert (np.abs(x - expected_x) > tolerance).mean() <= 1e-3
    pd.testing.assert_frame_equal(obs[list(CONCEPTS)], expected_obs[list(CONCEPTS)])


def log1p_of(cells):
    """The cells with log1p values normalised over all genes, which are the model's genes of a cell's total."""
    counts = cells.X.toarray().astype(float)
    values = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4).astype(np.float32)
    return anndata.AnnData(values, cells.obs.copy(), cells.var.copy())
