"""The gene panel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from causcell.cells.collection import Cells
from causcell.cells.panel import check_gene_names
from causcell.errors import ConfigurationError, GenePanelError, format_list
from causcell_training.config import TrainConfig
from causcell_training.data.reading import make_unit_preprocessing, read_panel, sample_rows


def choose_panel(cells: Cells, train: np.ndarray, config: TrainConfig, rng: np.random.Generator) -> list[str]:
    """Choose the panel's genes: all, those of a file, or the most variable ones of the training rows.

    Parameters
    ----------
    cells
        Opened cells.
    train
        Training rows, ascending int64.
    config
        ``genes`` says how many or which, ``expression`` the scale.
    rng
        Samples the cells that dispersions are computed from, where there are many.

    Returns
    -------
    list of str
        Names of the panel genes: in the file's order, where they are listed, else in the data's.

    Raises
    ------
    ConfigurationError
        ``config.genes`` is below 2, or no readable file of two or more names.
    GenePanelError
        A listed gene is duplicated or not in the data.
    """
    genes = cells.genes
    if isinstance(config.genes, str):
        return genes if config.genes == "all" else _read_listed_genes(config.genes, genes)
    if config.genes < 2:
        raise ConfigurationError(f"genes={config.genes}: take at least 2, 'all', or a file of gene names")
    if len(genes) <= config.genes:
        return genes
    return _choose_variable_genes(cells, sample_rows(train, rng), config.genes, config)


def _read_listed_genes(path: str, genes: list[str]) -> list[str]:
    """Read gene names from a file, one a line, and check that the data have them."""
    try:
        listed_genes = Path(path).read_text().split()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"genes={path!r} is neither a number, nor 'all', nor a file of gene names ({error})"
        ) from error
    check_gene_names(listed_genes)
    if len(listed_genes) < 2:
        raise ConfigurationError(f"genes={path!r} names {len(listed_genes)} genes; give two or more")
    known = set(genes)
    absent = [gene for gene in listed_genes if gene not in known]
    if absent:
        raise GenePanelError(
            f"{len(absent)} of {len(listed_genes)} genes of genes={path!r} are not in the data: "
            f"{format_list(absent)}; leave them out, or give data that have them"
        )
    return listed_genes


def _choose_variable_genes(cells: Cells, rows: np.ndarray, count: int, config: TrainConfig) -> list[str]:
    """Choose the ``count`` genes of largest normalised dispersion among some rows, in the data's order."""
    import anndata
    import pandas as pd
    import scanpy

    genes = cells.genes
    expression = read_panel(
        cells,
        make_unit_preprocessing(genes, config.expression, genes if config.expression == "counts" else []),
        rows,
        totals=config.totals,
        round_counts=config.round_counts,
    )
    threads = torch.get_num_threads()
    statistics = scanpy.pp.highly_variable_genes(
        anndata.AnnData(expression, var=pd.DataFrame(index=genes)), n_top_genes=count, inplace=False
    )
    torch.set_num_threads(threads)  # numba, in scanpy, sets OpenMP's threads for the whole process
    # not statistics["highly_variable"]: ties at its threshold make it longer than asked
    dispersion = statistics["dispersions_norm"].fillna(-np.inf).to_numpy()
    chosen = np.argsort(-dispersion, kind="stable")[:count]
    return [genes[i] for i in np.sort(chosen)]
