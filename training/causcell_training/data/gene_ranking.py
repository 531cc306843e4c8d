"""Rankings of genes by which a panel of a given size is chosen, each from training cells alone.

========================  ==============================================================================================
``dispersion``            dispersion (variance over mean of normalised counts) less that of genes of like mean, in units
                          of their spread (Satija et al. 2015, as `scanpy.pp.highly_variable_genes` has it)
``variance``              variance of expression on the log scale
``seurat_v3``             variance of counts, standardised by its trend with the mean and clipped (Stuart et al. 2019;
                          scanpy's, which takes `skmisc`)
``labels``                genes raised in a label against all other labels of its concept; see
                          `causcell_training.data.label_differences`
``variance_labels``       by turns the next gene of ``variance`` and of ``labels``
========================  ==============================================================================================

The first and the third hold a sample of cells as a sparse matrix; the others read slices and keep sums alone.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from causcell.cells.table import CellTable
from causcell.errors import DataError, RuntimeUnavailableError
from causcell_training.config import GeneSelection, TrainConfig
from causcell_training.data.label_differences import LabelMoments, rank_raised_genes
from causcell_training.data.reading import make_unit_preprocessing, read_counts, read_panel, read_slices


@dataclass(frozen=True)
class RankedCells:
    """Training cells that genes are ranked by.

    Attributes
    ----------
    cells
        Opened cells of G genes.
    rows
        Rows that count, ascending int64 [n].
    labels
        Codes of their labels, int32 [n x m]; -1 is unlabelled.
    batches
        Codes of their batches, int64 [n]; all 0 where there are none.
    config
        Settings of how values are read.
    """

    cells: CellTable
    rows: np.ndarray
    labels: np.ndarray
    batches: np.ndarray
    config: TrainConfig

    def slices(self) -> Iterator[tuple[slice, sparse.csr_matrix]]:
        """Read the rows slice by slice: which of them, and their expression on the log scale, float32 [slice x G]."""
        start = 0
        for block in read_slices(self.cells, self._preprocessing, self.rows, **self._reading):
            yield slice(start, start + block.shape[0]), block
            start += block.shape[0]

    def expression(self) -> sparse.csr_matrix:
        """Read all rows: expression on the log scale, float32 [n x G]."""
        return read_panel(self.cells, self._preprocessing, self.rows, **self._reading)

    @property
    def _preprocessing(self) -> Any:
        genes, scale = self.cells.genes, self.config.expression
        return make_unit_preprocessing(genes, scale, genes if scale == "counts" else [])

    @property
    def _reading(self) -> dict[str, Any]:
        return {"totals": self.config.totals, "round_counts": self.config.round_counts}


def rank_genes(ranked: RankedCells, count: int) -> np.ndarray:
    """Rank genes by ``gene_selection``.

    Parameters
    ----------
    ranked
        Cells to rank by.
    count
        Number of genes wanted, at most G.

    Returns
    -------
    ndarray
        Places of genes in the file, best first, int64 [count or more].

    Raises
    ------
    RuntimeUnavailableError
        ``seurat_v3`` lacks its package.
    DataError, ExpressionError
        Values can't be read, or ``seurat_v3`` finds no trend in them.
    """
    return _RANKINGS[ranked.config.gene_selection](ranked, count)


def require_packages(selection: GeneSelection) -> None:
    """Raise `RuntimeUnavailableError` if a package is missing that a way to choose genes takes."""
    if selection == "seurat_v3" and importlib.util.find_spec("skmisc") is None:
        raise RuntimeUnavailableError(
            "gene_selection='seurat_v3' fits a trend by scikit-misc, which is not installed: pip install "
            "'causcell[seurat]', or take gene_selection='variance'"
        )


def interleave(rankings: Sequence[Iterable[int]], count: int) -> list[int]:
    """Take the best of several rankings by turns, each gene once, until there are ``count`` or no more.

    Examples
    --------
    >>> interleave([[3, 1, 2], [3, 4], []], 3)
    [3, 4, 1]
    """
    taken: dict[int, None] = {}
    turns = [iter(ranking) for ranking in rankings]
    while turns and len(taken) < count:
        left = []
        for turn in turns:
            gene = next((gene for gene in turn if gene not in taken), None)
            if gene is None:
                continue
            left.append(turn)
            taken[int(gene)] = None
        turns = left
    return list(taken)[:count]


def _rank_by_dispersion(ranked: RankedCells, count: int) -> np.ndarray:
    found = _run_scanpy(ranked, ranked.expression(), count)
    if ranked.batches.any():
        return np.flatnonzero(found["highly_variable"].to_numpy())
    # not found["highly_variable"]: ties at its threshold make it longer than asked
    return np.argsort(-found["dispersions_norm"].fillna(-np.inf).to_numpy(), kind="stable")


def _rank_by_seurat_v3(ranked: RankedCells, count: int) -> np.ndarray:
    counts = read_counts(ranked.cells, ranked.rows, round_counts=ranked.config.round_counts)
    try:
        found = _run_scanpy(ranked, counts, count, flavor="seurat_v3")
    except ValueError as error:  # of loess, where few genes or few cells leave it no neighbours
        raise DataError(
            f"gene_selection='seurat_v3' finds no trend of variance with the mean ({str(error)[:200]}); take "
            "gene_selection='variance', or larger batches"
        ) from error
    return np.flatnonzero(found["highly_variable"].to_numpy())


def _run_scanpy(ranked: RankedCells, values: sparse.csr_matrix, count: int, **options: Any) -> Any:
    """Run `scanpy.pp.highly_variable_genes` on values [n x G]; a table of genes."""
    import anndata
    import pandas as pd
    import scanpy
    import torch

    obs = pd.DataFrame({"batch": pd.Categorical(ranked.batches.astype(str))}, index=np.arange(len(values.indptr) - 1))
    obs.index = obs.index.astype(str)
    adata = anndata.AnnData(values, obs=obs, var=pd.DataFrame(index=ranked.cells.genes))
    threads = torch.get_num_threads()
    key = "batch" if ranked.batches.any() else None
    try:
        return scanpy.pp.highly_variable_genes(adata, n_top_genes=count, batch_key=key, inplace=False, **options)
    finally:
        torch.set_num_threads(threads)  # numba, in scanpy, sets OpenMP's threads for the whole process


def _rank_by_variance(ranked: RankedCells, count: int) -> np.ndarray:
    moments = LabelMoments(int(ranked.batches.max()) + 1, len(ranked.cells.genes), squares=False)
    for part, block in ranked.slices():
        moments.add(ranked.batches[part], block)
    return np.argsort(-moments.within_variance(), kind="stable")


def _rank_by_labels(ranked: RankedCells, count: int) -> np.ndarray:
    variance, labels = _rank_both(ranked, count)
    return np.array(list(dict.fromkeys([*labels, *variance.tolist()])))


def _rank_by_both(ranked: RankedCells, count: int) -> np.ndarray:
    variance, labels = _rank_both(ranked, count)
    return np.array(interleave([variance.tolist(), labels], count))


def _rank_both(ranked: RankedCells, count: int) -> tuple[np.ndarray, list[int]]:
    """Rank all genes by variance, and at most ``count`` by differences between labels, in one pass."""
    genes, labels = len(ranked.cells.genes), ranked.labels
    everything = LabelMoments(1, genes, squares=False)
    concepts = [LabelMoments(int(codes.max()) + 1, genes) for codes in labels.T]
    for part, block in ranked.slices():
        everything.add(np.zeros(block.shape[0], dtype=np.int64), block)
        for moments, codes in zip(concepts, labels[part].T, strict=True):
            moments.add(codes, block)
    of_concepts = [interleave(rank_raised_genes(moments, count), count) for moments in concepts]
    variance = np.argsort(-everything.within_variance(), kind="stable")
    return variance, interleave(of_concepts, count)


_RANKINGS: dict[GeneSelection, Callable[[RankedCells, int], np.ndarray]] = {
    "dispersion": _rank_by_dispersion,
    "variance": _rank_by_variance,
    "seurat_v3": _rank_by_seurat_v3,
    "labels": _rank_by_labels,
    "variance_labels": _rank_by_both,
}
