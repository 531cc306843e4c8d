"""The gene panel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from causcell._internal.choices import suggest
from causcell._internal.spreadsheet import DELIMITERS, read_rows, read_text
from causcell.cells.collection import Cells
from causcell.cells.panel import check_gene_names
from causcell.errors import ConfigurationError, DataError, GenePanelError, format_list
from causcell_training.config import TrainConfig
from causcell_training.data.reading import make_unit_preprocessing, read_panel, sample_rows

_HEADS = {
    "x", "v1", "0", "gene", "genes", "gene_name", "gene_names", "gene_symbol", "gene_symbols", "gene_id",
    "gene_ids", "symbol", "symbols", "name", "names", "id", "index", "feature", "features", "feature_name",
    "var_names", "hgnc_symbol", "ensembl_id",
}  # fmt: skip
"""Heads that programs and people give to a list of genes."""


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
    check_panel(genes, config.genes)
    if isinstance(config.genes, str):
        return genes if config.genes == "all" else read_gene_list(config.genes, genes)
    if len(genes) <= config.genes:
        return genes
    return _choose_variable_genes(cells, sample_rows(train, rng), config.genes, config)


def check_panel(genes: Sequence[str], wanted: int | str) -> None:
    """Check, before values are read, that the panel can be chosen from a file's genes; raises as `choose_panel`."""
    check_gene_names(genes)
    if not genes:
        raise DataError("the data have no genes")
    if isinstance(wanted, str):
        if wanted != "all":
            read_gene_list(wanted, genes)
    elif wanted < 2:
        raise ConfigurationError(f"genes={wanted}: take at least 2, 'all', or a file of gene names")


def read_gene_list(path: str, genes: Sequence[str]) -> list[str]:
    """Read the panel from a file of gene names, one a line or one column of a table.

    Names may contain blanks; a head such as ``gene`` or ``x`` is passed over, comments (``#``) and quotes, too.

    Parameters
    ----------
    path
        The file.
    genes
        Genes of the data.

    Raises
    ------
    ConfigurationError
        The file can't be read, or does not say in which column the genes are, or names fewer than two.
    GenePanelError
        A listed gene is duplicated or not in the data.
    """
    try:
        text = read_text(path)
        listed = _find_genes(text, set(genes))
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"genes={path!r} is neither a number, nor 'all', nor a file of gene names ({error})"
        ) from error
    check_gene_names(listed)
    if len(listed) < 2:
        raise ConfigurationError(f"genes={path!r} names {len(listed)} genes; give two or more")
    known = set(genes)
    absent = [gene for gene in listed if gene not in known]
    if absent:
        raise GenePanelError(
            f"{len(absent)} of {len(listed)} genes of genes={path!r} are not in the data: "
            f"{format_list(gene[:100] for gene in absent)}; {suggest(absent[0][:100], genes)}leave them out, or give "
            "data that have them"
        )
    return listed


def _find_genes(text: str, known: set[str]) -> list[str]:
    """Find the genes in a list or table: one a line, the words of its lines, or the column that has them."""
    lines = _without_head([row[0] for row in read_rows(text, None)], known)
    if known.issuperset(lines):
        return lines
    words = [word for line in lines for word in ([line] if line in known else line.split())]
    if known.issuperset(words):
        return words
    for delimiter in DELIMITERS:
        try:
            rows = read_rows(text, delimiter)
        except ValueError:  # a quote in a list of names
            continue
        width = max(map(len, rows), default=0)
        if width < 2:
            continue
        columns = [[row[i] if i < len(row) else "" for row in rows] for i in range(width)]
        holding = [column for column in columns if known & set(column)]
        if len(holding) == 1:
            return [gene for gene in _without_head(holding[0], known) if gene]
        if holding:
            raise ValueError(f"{len(holding)} of its columns hold genes of the data; give one column")
    return lines


def _without_head(names: list[str], known: set[str]) -> list[str]:
    """Leave out a first name that is a head and no gene."""
    head = bool(names) and names[0] not in known and names[0].casefold() in _HEADS
    return names[1:] if head else names


def _choose_variable_genes(cells: Cells, rows: np.ndarray, count: int, config: TrainConfig) -> list[str]:
    """Choose the ``count`` genes of largest normalised dispersion among some rows, in the data's order."""
    import anndata
    import pandas as pd
    import scanpy
    import torch

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
