"""Pairs of results: the factual and the counterfactual rows of the same cells, read in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from causcell._internal.batching import batches
from causcell._internal.choices import suggest
from causcell.cells.matrices import CompressedRows, as_matrix, as_values, take_rows
from causcell.effects.units import number_units
from causcell.errors import ConfigurationError, DataError, format_list

if TYPE_CHECKING:
    import anndata
    import pandas as pd

_READ = 2**26
"""Bytes of expression, as float64, that are held of cells read at once."""

_FACTUAL = "factual"


@dataclass(frozen=True)
class Expression:
    """Log expression of results, read by rows wherever it is: in memory, on disk or lazy.

    Attributes
    ----------
    matrix
        See `causcell.cells.matrices.as_matrix`.
    name
        What messages call it.
    genes
        Number of columns.
    """

    matrix: Any
    name: str
    genes: int

    @classmethod
    def of(cls, results: anndata.AnnData, layer: str | None) -> Expression:
        """Take ``X``, or a layer; raises `ConfigurationError` for what tests of log expression can't take."""
        if layer is not None and layer not in results.layers:
            raise ConfigurationError(
                f"layer={layer!r} is not in the results; {suggest(layer, results.layers)}their layers are "
                f"{format_list(list(results.layers))}"
            )
        name = "X" if layer is None else f"layers[{layer!r}]"
        value = results.X if layer is None else results.layers[layer]
        if value is None:
            raise ConfigurationError("the results hold no expression; generate or materialize it first")
        if not results.n_vars:
            raise DataError("the results have no genes to test")
        if layer is None and results.uns.get("causcell", {}).get("store") == "effects":
            raise ConfigurationError(
                "X holds effects (store='effects'), whose factual cells are not kept; generate expression with the "
                "factual cells beside it (do=[{}, {...}])"
            )
        if np.dtype(value.dtype).kind in "iub":
            raise ConfigurationError(
                f"{name} holds whole numbers ({value.dtype}), and these tests are of log expression: take log1p "
                "of counts per 10,000 first (by obs['library_size'], or scanpy.pp.normalize_total), "
                "or sum counts by replicate for tools of counts, as docs/effects.md shows"
            )
        matrix = as_matrix(value, results.shape, "the results", name)
        if isinstance(matrix, CompressedRows) and matrix.format == "csc":
            raise ConfigurationError(f"{name} is stored by columns (CSC) on disk; read it first (results.to_memory())")
        return cls(matrix, name, results.n_vars)

    def read(self, rows: np.ndarray, genes: slice) -> Any:
        """Read rows of some genes, [r x g], dense or CSR; raises `DataError` for values that are not finite."""
        if isinstance(self.matrix, np.ndarray):
            values: Any = self.matrix[rows, genes]
            values = as_values(values, len(rows), values.shape[1], "the results", self.name)
        else:
            taken = take_rows(self.matrix, rows)
            values = as_values(taken, len(rows), self.genes, "the results", self.name)[:, genes]
        if not np.isfinite(values.data if sparse.issparse(values) else values).all():
            raise DataError(f"{self.name} holds values that are not finite; generate the results again")
        return values


@dataclass(frozen=True)
class Pairs:
    """Rows of an intervention and the factual rows of the same cells.

    Attributes
    ----------
    rows
        Places of the rows, a cell's together, int [r].
    cell
        Number of each row's cell, ascending from 0, int [r].
    counterfactual
        Which rows are the intervention's, bool [r].
    replicate
        Number of each cell's replicate, int [cells]; `None` where each cell is a unit of its own.
    """

    rows: np.ndarray
    cell: np.ndarray
    counterfactual: np.ndarray
    replicate: np.ndarray | None

    @property
    def cells(self) -> int:
        """Number of cells."""
        return int(self.cell[-1]) + 1

    @property
    def units(self) -> int:
        """Number of independent units: replicates, or cells."""
        return self.cells if self.replicate is None else int(self.replicate.max()) + 1

    def read_cells(self, expression: Expression, genes: slice) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """Read cell by cell, the mean over draws: places of cells, factual and counterfactual, float64 [b x g]."""
        width = len(range(*genes.indices(expression.genes)))
        size = max(1, int(_READ * self.cells / (8 * max(width, 1) * len(self.rows))))
        for block in batches(self.cells, size):
            first, last = np.searchsorted(self.cell, [block.start, block.stop])
            count = block.stop - block.start
            arm = self.cell[first:last] - block.start + count * self.counterfactual[first:last]
            values = expression.read(self.rows[first:last], genes)
            weight = 1 / np.bincount(arm, minlength=2 * count)[arm]
            mean = sparse.csr_matrix((weight, (arm, np.arange(last - first))), shape=(2 * count, last - first)) @ values
            dense = mean.toarray() if sparse.issparse(mean) else np.asarray(mean)
            yield block, dense[:count], dense[count:]

    def read_units(self, expression: Expression, genes: slice) -> tuple[np.ndarray, np.ndarray]:
        """Read all units: factual and counterfactual expression, the mean over a unit's cells, float64 [units x g]."""
        width = len(range(*genes.indices(expression.genes)))
        factual, counterfactual = np.zeros((2, self.units, width))
        for block, own, other in self.read_cells(expression, genes):
            if self.replicate is None:
                factual[block], counterfactual[block] = own, other
            else:
                np.add.at(factual, self.replicate[block], own)
                np.add.at(counterfactual, self.replicate[block], other)
        if self.replicate is not None:
            cells = np.bincount(self.replicate)[:, None]
            return factual / cells, counterfactual / cells
        return factual, counterfactual


def find_pairs(obs: pd.DataFrame, intervention: str, replicate: str | None) -> Pairs:
    """Find the rows of an intervention and the factual rows of the same cells.

    Raises
    ------
    ConfigurationError
        A cell of the intervention has no factual row.
    UnknownConceptError, ConceptError, DataError
        See `causcell.effects.units.number_units`.
    """
    kind = obs["intervention"].astype(str).to_numpy()
    counterfactual, factual = kind == intervention, kind == _FACTUAL
    number, names = obs["source_cell"].factorize()
    wanted, there = (np.bincount(number[rows], minlength=len(names)) > 0 for rows in (counterfactual, factual))
    if (alone := wanted & ~there).any():
        raise ConfigurationError(
            f"{alone.sum()} of {wanted.sum()} cells under {intervention} have no factual row to be paired with, such "
            f"as {format_list(names[alone], 3)}; generate the factual cells beside them (do=[{{}}, {{...}}]) and keep "
            "all rows of a cell"
        )
    rows = np.flatnonzero((factual | counterfactual) & wanted[number])
    rows = rows[np.argsort(number[rows], kind="stable")]
    cell = np.unique(number[rows], return_inverse=True)[1]
    own = rows[factual[rows]]
    first = own[np.unique(number[own], return_index=True)[1]]  # a cell's first factual row, in the order of its number
    return Pairs(rows, cell, counterfactual[rows], number_units(obs.iloc[first], replicate))


def list_interventions(obs: pd.DataFrame) -> list[str]:
    """Return the interventions of results in their order, without the factual cells.

    Raises
    ------
    ConfigurationError
        They lack a column that tells rows apart, factual rows, or any intervention.
    """
    for column in ("source_cell", "intervention"):
        if column not in obs:
            raise ConfigurationError(
                f"obs has no column {column!r}; give results of Generator.counterfactual, or an atlas"
            )
    there = obs["intervention"]
    listed = there.cat.categories if hasattr(there, "cat") else there.unique()
    present = set(there.unique())
    named = [str(name) for name in listed if name in present]
    if _FACTUAL not in named or len(named) == 1:
        raise ConfigurationError(
            f"the results hold {format_list(named)}; pairs take the factual cells and an intervention, generated "
            "together (do=[{}, {...}])"
        )
    return [name for name in named if name != _FACTUAL]
