"""The gene panel: all genes, those that are named or marked, or as many as asked for of the best by a ranking."""

from __future__ import annotations

import numpy as np

from causcell._internal.labels import label_column
from causcell._internal.telling import warn
from causcell.cells.gene_list import MARKED, check_gene_choice, find_included_genes, find_marked_genes, read_gene_list
from causcell.cells.table import CellTable
from causcell.concepts import UNLABELLED
from causcell.errors import ConfigurationError, DataError, format_list
from causcell_training.config import TrainConfig
from causcell_training.data.gene_ranking import RankedCells, rank_genes, require_packages
from causcell_training.data.reading import sample_rows

_MIN_LABEL_CELLS = 100
"""Cells of each label, if it has them, beside a sample: so that rare labels are tested."""

_MIN_BATCH_CELLS = 8

_BY_LABELS = ("labels", "variance_labels")


def choose_panel(
    cells: CellTable, labels: np.ndarray, train: np.ndarray, config: TrainConfig, rng: np.random.Generator
) -> list[str]:
    """Choose the panel's genes: all, those of a list or marked in ``var``, or the best of the training rows.

    Genes of ``include_genes`` are always among them: within a number of genes the last ones chosen make room, and to
    others they are added.

    Parameters
    ----------
    cells
        Opened cells.
    labels
        Codes of all cells' labels, int32 [n x m].
    train
        Training rows, ascending int64.
    config
        ``genes`` says how many or which, ``gene_selection`` how, within the batches of ``batch_key``.
    rng
        Samples the cells that genes are ranked by, where there are many.

    Returns
    -------
    list of str
        Names of the panel genes: in the file's order, where they are listed, else in the data's.

    Raises
    ------
    ConfigurationError
        ``config.genes`` is below 2 or below the genes to include, or no readable file of two or more names; or the
        batches can't be used.
    GenePanelError
        A named gene is duplicated or not in the data, or no column of ``var`` marks genes.
    RuntimeUnavailableError
        ``seurat_v3`` lacks its package.
    """
    genes = cells.genes
    check_panel(cells, config)
    included = find_included_genes(config.include_genes, genes)
    if config.genes == "all":
        return genes
    if config.genes == MARKED:
        wanted = {*find_marked_genes(cells), *included}
        return [gene for gene in genes if gene in wanted]
    if isinstance(config.genes, str):
        return list(dict.fromkeys([*read_gene_list(config.genes, genes), *included]))
    if len(genes) <= config.genes:
        return genes
    rows = _sample_rows(labels, train, config, rng)
    batches = np.zeros(len(rows), dtype=np.int64)
    if config.batch_key is not None:
        rows, batches = _find_batches(cells, rows, config.batch_key)
    ranking = rank_genes(RankedCells(cells, rows, labels[rows], batches, config), config.genes)
    places = {gene: place for place, gene in enumerate(genes)}
    chosen = dict.fromkeys([*(places[gene] for gene in included), *ranking.tolist()])
    return [genes[i] for i in sorted(list(chosen)[: config.genes])]


def check_panel(cells: CellTable, config: TrainConfig) -> None:
    """Check, before values are read, that the panel can be chosen from a file's genes; raises as `choose_panel`."""
    check_gene_choice(cells, config.genes, config.include_genes, config.batch_key)
    if isinstance(config.genes, str):
        return
    require_packages(config.gene_selection)
    if config.gene_selection == "seurat_v3" and config.expression != "counts":
        raise ConfigurationError(
            f"gene_selection='seurat_v3' reads raw counts, and expression={config.expression!r}; take "
            "gene_selection='variance'"
        )
    if config.gene_selection in _BY_LABELS and config.batch_key is not None:
        raise ConfigurationError(
            f"gene_selection={config.gene_selection!r} compares labels over all cells, and "
            f"batch_key={config.batch_key!r} would compare within batches; leave the batches out, or take "
            "gene_selection='variance'"
        )


def _sample_rows(labels: np.ndarray, train: np.ndarray, config: TrainConfig, rng: np.random.Generator) -> np.ndarray:
    """Sample the training rows that genes are ranked by; where labels are compared, more of the rare ones."""
    rows = sample_rows(train, rng)
    if config.gene_selection not in _BY_LABELS or len(rows) == len(train):
        return rows
    taken = np.isin(train, rows)
    more = [rows]
    for codes in labels[train].T:
        for code in np.unique(codes[codes != UNLABELLED]):
            others = train[(codes == code) & ~taken]
            lacking = _MIN_LABEL_CELLS - int(((codes == code) & taken).sum())
            if lacking > 0:
                more.append(rng.choice(others, min(lacking, len(others)), replace=False))
    return np.unique(np.concatenate(more))


def _find_batches(cells: CellTable, rows: np.ndarray, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Find the rows whose batch can be used, and codes of their batches, int64 [rows]."""
    import pandas as pd

    column = label_column(cells.column(key).iloc[rows].to_frame(), key)
    if column.isna().any():
        raise DataError(
            f"{int(column.isna().sum())} of {len(rows)} training cells have no batch in obs[{key!r}] (batch_key); give "
            "every cell one"
        )
    counts = column.value_counts()
    small = sorted(counts.index[counts < _MIN_BATCH_CELLS])
    kept = ~column.isin(small).to_numpy()
    if not kept.any():
        raise DataError(
            f"each of the {len(counts)} batches of obs[{key!r}] (batch_key) has fewer than {_MIN_BATCH_CELLS} training "
            "cells; name a column of larger ones, or leave it out"
        )
    if small:
        warn(
            f"genes are chosen without {int((~kept).sum())} cells of {len(small)} batches of obs[{key!r}] that have "
            f"fewer than {_MIN_BATCH_CELLS} training cells: {format_list(small)}"
        )
    return rows[kept], pd.factorize(column[kept], sort=True)[0].astype(np.int64)
