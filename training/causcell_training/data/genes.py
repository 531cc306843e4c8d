"""The gene panel and its principal components."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from causcell.cells.collection import Cells
from causcell.cells.panel import check_gene_names
from causcell.errors import ConfigurationError, GenePanelError, format_list
from causcell_training.config import TrainConfig
from causcell_training.data.reading import read_panel, unit_preprocessing

if TYPE_CHECKING:
    from causcell_training.data.cells import TrainingData

_CELLS_FOR_STATISTICS = 20_000  # gene dispersions and principal components settle long before


def choose_panel(cells: Cells, train: np.ndarray, config: TrainConfig, rng: np.random.Generator) -> list[str]:
    """Names of the panel's genes: all, those of a file, or the most variable ones of the training cells."""
    genes = cells.genes
    if isinstance(config.genes, str):
        if config.genes == "all":
            return genes
        try:
            listed_genes = Path(config.genes).read_text().split()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"--genes {config.genes!r} is neither a number, nor 'all', nor a file of gene names ({error})"
            ) from error
        check_gene_names(listed_genes)
        if len(listed_genes) < 2:
            raise ConfigurationError(f"--genes {config.genes!r} names {len(listed_genes)} genes; give two or more")
        absent = [gene for gene in listed_genes if gene not in set(genes)]
        if absent:
            raise GenePanelError(
                f"{len(absent)} of {len(listed_genes)} genes of --genes {config.genes!r} are not in the data: "
                f"{format_list(absent)}; leave them out, or give data that have them"
            )
        return listed_genes
    if config.genes < 2:
        raise ConfigurationError(f"--genes is {config.genes}; take at least 2, 'all', or a file of gene names")
    if len(genes) <= config.genes:
        return genes
    import anndata
    import pandas as pd
    import scanpy

    everything = read_panel(cells, unit_preprocessing(genes, config.expression, genes), _sample(train, rng))
    threads = torch.get_num_threads()
    statistics = scanpy.pp.highly_variable_genes(
        anndata.AnnData(everything, var=pd.DataFrame(index=genes)), n_top_genes=config.genes, inplace=False
    )
    torch.set_num_threads(threads)  # numba, in scanpy, sets OpenMP's threads for the whole process
    # not statistics["highly_variable"]: ties at its threshold make it longer than asked
    dispersion = statistics["dispersions_norm"].fillna(-np.inf).to_numpy()
    chosen = np.argsort(-dispersion, kind="stable")[: config.genes]
    return [genes[i] for i in np.sort(chosen)]


def principal_axes(data: TrainingData, components: int, seed: int) -> np.ndarray:
    """Map from standardised expression to principal components of the training cells on the log scale.

    The components are scaled by one number, to a mean deviation of 1; those beyond the rank of the data are zero.

    Returns
    -------
    float32 [G x components].
    """
    from sklearn.decomposition import PCA

    rows = _sample(data.rows("train"), np.random.default_rng((seed, 3)))
    count = min(components, min(len(rows), data.expression.shape[1]) - 1)
    pca = PCA(count, svd_solver="arpack", random_state=seed).fit(data.expression[rows].astype(np.float64))
    scale = np.sqrt(pca.explained_variance_).mean()
    axes = np.zeros((data.expression.shape[1], components), dtype=np.float32)
    axes[:, :count] = (pca.components_ * data.preprocessing.deviation).T / scale
    return axes


def _sample(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if len(rows) <= _CELLS_FOR_STATISTICS:
        return rows
    return np.sort(rng.choice(rows, _CELLS_FOR_STATISTICS, replace=False))
