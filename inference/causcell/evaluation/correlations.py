"""Correlations of genes over the cells of one label: those of real cells that other cells have too."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from causcell._deprecation import renamed_arguments

EXPRESSED = 0.05
"""Values above this count as nonzero: log1p values of one count are far above, solvers' residues of zero below."""


@renamed_arguments(least="min_cells")
def correlations_kept(cells: np.ndarray, real: np.ndarray, *, pairs: int = 200, min_cells: int = 24) -> float | None:
    """Share of the strength of real cells' strongest gene-gene correlations that other cells have too.

    Pairs are chosen by the real cells, among genes that at least a tenth of them express. Other real cells do not
    reach 1, as the strongest of many are in part strongest by chance.

    Parameters
    ----------
    cells, real
        Expression of one label's cells, [n x G] and [m x G].
    pairs
        Number of pairs of genes.
    min_cells
        With fewer cells in either set the share is not taken.

    Returns
    -------
    The share, between -1 and 1 or a little above; `None` for too few cells, or fewer pairs than asked for.
    """
    return compare_correlations(real, pairs=pairs, min_cells=min_cells)(cells)


def compare_correlations(
    real: np.ndarray, *, pairs: int = 200, min_cells: int = 24
) -> Callable[[np.ndarray], float | None]:
    """Find the strongest correlations of real cells once, and return `correlations_kept` of other cells as a function.

    Parameters
    ----------
    real, pairs, min_cells
        See `correlations_kept`.
    """
    often = np.flatnonzero((real > EXPRESSED).mean(axis=0) >= 0.1)
    upper = np.triu_indices(len(often), 1)
    if len(real) < min_cells or len(upper[0]) < pairs:
        return lambda cells: None
    scaled = _standardise_genes(real[:, often])
    correlations = (scaled.T @ scaled)[upper]
    strongest = np.argpartition(-np.abs(correlations), pairs - 1)[:pairs]
    expected = correlations[strongest]
    one, other = (often[genes[strongest]] for genes in upper)

    def compare(cells: np.ndarray) -> float | None:
        if len(cells) < min_cells:
            return None
        found = (_standardise_genes(cells[:, one]) * _standardise_genes(cells[:, other])).sum(axis=0)
        return float((found * np.sign(expected)).sum() / np.abs(expected).sum())

    return compare


def _standardise_genes(cells: np.ndarray) -> np.ndarray:
    """Centre genes over cells and scale them to length 1, [n x G]; a gene that does not vary becomes 0."""
    centred = cells - cells.mean(axis=0)
    norm = np.sqrt((centred**2).sum(axis=0))
    return np.asarray(np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 0))
