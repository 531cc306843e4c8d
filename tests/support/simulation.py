"""Small simulated cells for tests: counts with programmes of several concepts on a known graph."""

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

CONCEPTS = ("stim", "donor", "cell_type", "state")
EDGES = ("donor:cell_type", "cell_type:state", "stim:state")


def simulated_cells(cells: int = 320, genes: int = 60, seed: int = 0) -> anndata.AnnData:
    """Raw counts (CSR int32) of cells whose labels are drawn along the graph; programmes are additive on the log scale.

    ``donor`` influences ``cell_type``; ``cell_type`` and ``stim`` influence ``state``.
    """
    rng = np.random.default_rng(seed)
    stim = rng.integers(2, size=cells)
    donor = rng.integers(3, size=cells)
    cell_type = (rng.random(cells) * 2 + donor * 0.5).astype(int) % 3
    state = (rng.random(cells) < 0.15 + 0.5 * stim * (cell_type > 0)).astype(int)
    codes = np.stack([stim, donor, cell_type, state], axis=1)
    rate = rng.normal(0.5, 1.0, size=genes)[None, :]
    for i, size in enumerate((2, 3, 3, 2)):
        rate = rate + (rng.normal(0, 0.8, size=(size, genes)) * (rng.random((size, genes)) < 0.4))[codes[:, i]]
    counts = rng.poisson(np.exp(rate) * rng.gamma(4, 0.25, size=(cells, 1))).astype(np.int32)
    counts[:, 0] += 1  # no empty cell
    names = {
        "stim": np.array(["ctrl", "IFN"]),
        "donor": np.array(["d1", "d2", "d3"]),
        "cell_type": np.array(["B", "T", "NK"]),
        "state": np.array(["rest", "active"]),
    }
    obs = pd.DataFrame(
        {name: pd.Categorical(labels[codes[:, i]]) for i, (name, labels) in enumerate(names.items())},
        index=[f"cell_{i:04d}" for i in range(cells)],
    )
    var = pd.DataFrame(index=[f"GENE{i}" for i in range(genes)])
    return anndata.AnnData(sparse.csr_matrix(counts), obs=obs, var=var)


def counts(cells: anndata.AnnData) -> np.ndarray:
    """Values of all cells, float32 [n x genes]."""
    return cells.X.toarray().astype(np.float32)


def replaced(cells: anndata.AnnData, values: np.ndarray) -> anndata.AnnData:
    """Cells of the same names and labels with other values, which are stored as CSR."""
    return anndata.AnnData(sparse.csr_matrix(values), obs=cells.obs, var=cells.var)
