"""Cells of several files read as one file of the genes that all of them have, as `anndata.concat` joins them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from causcell._internal.telling import warn
from causcell.cells.collection import AnySource, Cells, Collection
from causcell.cells.columns import join_tables
from causcell.cells.panel import check_gene_names
from causcell.errors import GenePanelError, format_list
from causcell.preprocessing import Matrix

if TYPE_CHECKING:
    import pandas as pd


class JoinedCells(Collection):
    """Cells of several files, each named ``key:name``, with the values of the genes that all files have.

    Parameters
    ----------
    sources
        What `causcell.cells.collection.Cells` takes, by key.
    options
        As for `causcell.cells.collection.Collection`.

    Attributes
    ----------
    genes
        Names of these genes, in the order of the first file.

    Raises
    ------
    GenePanelError
        The files have no gene in common, or one of them has a gene twice.
    CausCellError
        As for `Collection`.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> genes = [pd.DataFrame(index=list(names)) for names in ("ABC", "CB")]
    >>> files = {key: anndata.AnnData(np.eye(1, len(var), dtype=np.float32), var=var) for key, var in zip("xy", genes)}
    >>> with JoinedCells(files, announce=False) as cells:
    ...     cells.genes, cells.names.tolist(), cells.values(slice(0, 2)).tolist()
    (['B', 'C'], ['x:0', 'y:0'], [[0.0, 0.0], [0.0, 1.0]])
    """

    def __init__(self, sources: Mapping[str, Any], *, announce: bool = True, **options: Any) -> None:
        super().__init__(sources, announce=announce, **options)
        try:
            self.genes, self._columns = self._join_genes(announce)
        except BaseException:
            self.close()
            raise

    def _join_genes(self, announce: bool) -> tuple[list[str], list[np.ndarray | None]]:
        """Find the common genes, and the columns of each file that hold them; `None` where these are all, in order."""
        for part in self.parts:
            try:
                check_gene_names(part.genes)
            except GenePanelError as error:
                error.add_note(f"in file {part.key!r}")
                raise
        common = set(self.parts[0].genes).intersection(*(part.genes for part in self.parts[1:]))
        genes = [gene for gene in self.parts[0].genes if gene in common]
        if not genes:
            raise GenePanelError(
                f"the {len(self.parts)} files have no gene in common ({self.parts[0].key!r} begins with "
                f"{format_list(self.parts[0].genes, 3)}, {self.parts[-1].key!r} with "
                f"{format_list(self.parts[-1].genes, 3)}); genes are matched by name: name them alike"
            )
        lacking = {part.key: len(part.genes) - len(genes) for part in self.parts if len(part.genes) > len(genes)}
        if announce and lacking:
            warn(
                f"the files differ in their genes, and the {len(genes)} that all of them have are read; left out, also "
                f"of cells' totals, are {format_list(f'{count} of {key}' for key, count in lacking.items())}"
            )
        columns: list[np.ndarray | None] = []
        for part in self.parts:
            place = {gene: i for i, gene in enumerate(part.genes)}
            columns.append(None if part.genes == genes else np.array([place[gene] for gene in genes]))
        return genes, columns

    def gene_column(self, name: str) -> np.ndarray | None:
        """Return a column of ``var`` of the common genes; `None` if a file has none.

        Raises
        ------
        GenePanelError
            The files have other values.
        """
        found = [part.gene_column(name) for part in self.parts]
        if any(each is None for each in found):
            return None
        taken = [
            np.asarray(each) if columns is None else np.asarray(each)[columns]
            for each, columns in zip(found, self._columns, strict=True)
        ]
        for part, each in zip(self.parts, taken, strict=True):
            if not np.array_equal(taken[0], each):
                gene = self.genes[int(np.flatnonzero(taken[0] != each)[0])]
                raise GenePanelError(
                    f"the files differ in var[{name!r}]: of gene {gene!r} it is not the same in "
                    f"{self.parts[0].key!r} and {part.key!r}; give a list of genes, or a number"
                )
        return taken[0]

    @cached_property
    def columns(self) -> list[str]:
        """Names of the columns of ``obs`` that any file has."""
        return join_columns(self.parts)

    def read_obs(self, columns: Sequence[str]) -> pd.DataFrame:
        """Return some columns of ``obs``, without the cells' names; one that a file lacks is missing there."""
        return join_obs(self.parts, columns)

    def column(self, name: str) -> pd.Series:
        """Return a column of ``obs`` that any file has, [n]."""
        return self.read_obs([name])[name]

    def values(self, rows: slice | np.ndarray) -> Matrix:
        """Return the values of some cells, in the order asked for, [rows x genes]; CSR, unless all files are dense."""
        wanted = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else np.asarray(rows)
        place = np.searchsorted(self._starts, wanted, side="right") - 1
        files = np.unique(place)
        pieces = [self._values_of(i, wanted[place == i] - self._starts[i]) for i in files.tolist()]
        if len(pieces) == 1:
            return pieces[0]
        order = np.argsort(np.concatenate([np.flatnonzero(place == i) for i in files.tolist()]))
        if not any(map(sparse.issparse, pieces)):
            return np.concatenate(pieces)[order]
        return sparse.vstack([sparse.csr_matrix(piece) for piece in pieces], format="csr")[order]

    def _values_of(self, place: int, rows: np.ndarray) -> Matrix:
        """Return the values of some cells of one file."""
        values, columns = self.parts[place].values(rows), self._columns[place]
        return values if columns is None else values[:, columns]


def join_columns(parts: Sequence[Cells]) -> list[str]:
    """List the columns of ``obs`` that any file has."""
    return list(dict.fromkeys(name for part in parts for name in part.columns))


def join_obs(parts: Sequence[Cells], columns: Sequence[str]) -> pd.DataFrame:
    """Read columns of ``obs`` of several files, without the cells' names; one that a file lacks is missing there."""
    tables = [part.read_obs([name for name in columns if name in part.columns]) for part in parts]
    return tables[0] if len(tables) == 1 else join_tables(tables).reindex(columns=list(columns))


def open_joined(
    source: AnySource, *, layer: str | None = None, raw: bool = False, announce: bool = True
) -> Cells | JoinedCells:
    """Open the cells of one source, or those of several, by key, as one table of the genes that all of them have.

    Parameters
    ----------
    source
        An AnnData, a path to one, or a mapping from keys to either.
    layer, raw, announce
        As for `causcell.cells.collection.Cells`.
    """
    if isinstance(source, Mapping):
        return JoinedCells(source, layer=layer, raw=raw, announce=announce)
    return Cells(source, layer=layer, raw=raw, announce=announce)
