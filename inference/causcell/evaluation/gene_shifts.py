"""Shifts of single genes that an evaluation keeps for its figures: predicted beside real, a stratum at a time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import anndata
    import pandas as pd

_SYMBOL_COLUMNS = ("gene_symbols", "gene_symbol", "symbols", "symbol", "gene_names", "gene_name", "feature_name")
"""Columns of ``var`` that hold gene symbols where the index holds identifiers, as the field's files name them."""

_IDENTIFIER = re.compile(r"ENS[A-Z]*G\d{6,}(\.\d+)?$")


@dataclass(frozen=True, eq=False)
class GeneShifts:
    """Mean shift of every gene under one intervention within one stratum: what was predicted, and what real cells show.

    Attributes
    ----------
    genes
        Names of the G genes.
    symbols
        Names to print, as long as ``genes``.
    concept, source, target
        ``do(concept = target)`` on cells that carry ``source``.
    stratum
        Labels that source and target cells share, ``cell_type=B cells``; empty where all cells are compared.
    source_cells, target_cells
        Numbers of real cells.
    real
        Mean of the real target cells less the mean of the real source cells, log scale, float32 [G].
    error
        Standard error of ``real``, float32 [G]; infinite where there are fewer than two replicates.
    predicted
        Mean counterfactual less mean factual of the source cells, float32 [G], by the first of the predictor's modes.
    correlation
        Pearson correlation of ``predicted`` with ``real``, as the table of effects averages it: without what noise
        that both share adds (`causcell.evaluation.metrics.shared_noise`).
    color
        Colour of the stratum (of the target where there is none) that scanpy stored with the cells, ``#rrggbb``, or "".
    """

    genes: tuple[str, ...]
    symbols: tuple[str, ...]
    concept: str
    source: str
    target: str
    stratum: str
    source_cells: int
    target_cells: int
    real: np.ndarray
    error: np.ndarray
    predicted: np.ndarray
    correlation: float
    color: str = ""

    @property
    def name(self) -> str:
        """The intervention, and the stratum if there is one."""
        intervention = f"{self.concept}={self.target}"
        return f"{intervention} in {self.stratum}" if self.stratum else intervention

    @property
    def row_name(self) -> str:
        """Label of the stratum; without one, the target."""
        return self.stratum.partition("=")[2] if self.stratum else self.target

    def to_json(self) -> dict[str, Any]:
        """Return what ``report.json`` holds of it: all but the genes, which are in ``shifts.h5ad``."""
        return {
            "shift": self.name,
            "from": self.source,
            "source cells": self.source_cells,
            "target cells": self.target_cells,
            "correlation": float(self.correlation),
        }


def gene_shifts_anndata(shifts: Sequence[GeneShifts]) -> anndata.AnnData:
    """Gather shifts as AnnData: a row a shift, a column a gene.

    Parameters
    ----------
    shifts
        At least one; all of the same genes.

    Returns
    -------
    ``X`` is the real shift, ``layers["predicted"]`` what was predicted, ``layers["error"]`` the standard error of the
    real one, all float32 [shifts x G]; ``obs`` has ``concept``, ``source``, ``target``, ``stratum``, ``source_cells``,
    ``target_cells`` and ``correlation``, ``var`` the column ``symbol``.
    """
    import anndata
    import pandas as pd

    columns = ("concept", "source", "target", "stratum", "source_cells", "target_cells", "correlation")
    obs = pd.DataFrame({name: [getattr(each, name) for each in shifts] for name in columns})
    obs.index = [each.name for each in shifts]
    var = pd.DataFrame({"symbol": list(shifts[0].symbols)}, index=list(shifts[0].genes))
    layers = {name: np.stack([getattr(each, name) for each in shifts]) for name in ("predicted", "error")}
    return anndata.AnnData(np.stack([each.real for each in shifts]), obs=obs, var=var, layers=layers)


def find_gene_symbols(genes: Sequence[str], var: pd.DataFrame) -> tuple[str, ...]:
    """Return the names to print of a panel: symbols from a usual column of ``var`` where genes are Ensembl identifiers.

    Parameters
    ----------
    genes
        Names of the panel's genes.
    var
        Annotation of the cells' genes, by name.

    Examples
    --------
    >>> import pandas as pd
    >>> var = pd.DataFrame({"gene_symbols": ["CD3E"]}, index=["ENSG00000198851"])
    >>> find_gene_symbols(["ENSG00000198851", "ENSG00000090382"], var)
    ('CD3E', 'ENSG00000090382')
    """
    column = next((name for name in _SYMBOL_COLUMNS if name in var), None)
    if column is None or not any(map(_IDENTIFIER.match, genes)):
        return tuple(genes)
    known = {str(gene): symbol for gene, symbol in zip(var.index, var[column], strict=True)}
    found = ((gene, known.get(gene)) for gene in genes)
    return tuple(str(symbol) if isinstance(symbol, str) and symbol else gene for gene, symbol in found)
