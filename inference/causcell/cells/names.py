"""Names of cells, genes and columns: text, and no two alike."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell.errors import CellNameError, DataError, GenePanelError, format_list

if TYPE_CHECKING:
    import pandas as pd

    from causcell.cells.table import CellTable

_SUBJECTS = {
    "obs_names": ("cells", "every random number of a cell hangs on its name", CellNameError),
    "var_names": ("genes", "genes are matched by name", GenePanelError),
}


def check_index(index: pd.Index, attribute: str) -> None:
    """Check that an index of AnnData is text.

    Parameters
    ----------
    index
        Names of cells or genes.
    attribute
        ``obs_names`` or ``var_names``.

    Raises
    ------
    CellNameError, GenePanelError
        It has several levels, or a name is missing or no text.
    """
    import pandas as pd

    things, why, error = _SUBJECTS[attribute]
    if isinstance(index, pd.MultiIndex):
        raise error(
            f"names of {things} have {index.nlevels} levels, such as {index[0] if len(index) else ()!r}; {why}: make "
            f"them one text each (adata.{attribute} = ['_'.join(map(str, name)) for name in adata.{attribute}])"
        )
    if not is_text(index):
        raise _not_text(index, attribute)


def check_names(names: np.ndarray, attribute: str) -> None:
    """Check that names read from a file are text; see `check_index`."""
    if not is_text(names):
        raise _not_text(names, attribute)


def is_text(names: Any) -> bool:
    """Return whether all names are text, none missing."""
    import pandas as pd

    plain = np.asarray(names, dtype=object)  # of pandas' strings it would be "string" with missing ones among them
    return len(plain) == 0 or pd.api.types.infer_dtype(plain, skipna=False) == "string"


def _not_text(names: Any, attribute: str) -> DataError:
    import pandas as pd

    things, why, error = _SUBJECTS[attribute]
    place, name = next((i, name) for i, name in enumerate(names) if not isinstance(name, str))
    if not isinstance(name, tuple) and pd.isna(name):
        return error(
            f"names of {things} are missing, first at row {place}; {why}: give each its own (adata.{attribute} = [...])"
        )
    remedy = f"adata.{attribute}.astype(str)"
    if isinstance(name, bytes):
        remedy = f"[name.decode() for name in adata.{attribute}]"
    elif isinstance(name, tuple):
        remedy = f"['_'.join(map(str, name)) for name in adata.{attribute}]"
    return error(
        f"names of {things} are text, and {name!r} at row {place} is {type(name).__name__}; {why}: "
        f"adata.{attribute} = {remedy}"
    )


def check_columns(columns: Iterable[object]) -> None:
    """Raise `DataError` unless the columns of ``obs`` have names that are text and differ."""
    names = list(columns)
    strange = [name for name in names if not isinstance(name, str)]
    if strange:
        raise DataError(
            f"names of columns of obs are text, and {strange[0]!r} is {type(strange[0]).__name__}: "
            "adata.obs.columns = adata.obs.columns.astype(str)"
        )
    twice = sorted({str(name) for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"obs has more than one column named {format_list(twice)}, and which is meant can't be told: rename or "
            "drop one (adata.obs = adata.obs.loc[:, ~adata.obs.columns.duplicated()] keeps the first)"
        )


def find_genes(places: Mapping[str, int], genes: Sequence[str]) -> np.ndarray:
    """Return the place of each gene, -1 where it has none, int64 [genes].

    Parameters
    ----------
    places
        Place of each gene that there is, by name; see `number_genes`.
    genes
        Names that are looked for.

    Examples
    --------
    >>> find_genes(number_genes(["CD3E", "GNLY"]), ["GNLY", "LYZ"]).tolist()
    [1, -1]
    """
    found = map(places.get, genes, itertools.repeat(-1))
    return np.fromiter(found, dtype=np.int64, count=len(genes))


def number_genes(names: Sequence[str]) -> dict[str, int]:
    """Return the place of each of unique names."""
    return dict(zip(names, range(len(names)), strict=True))


class NamesInMessages(Sequence[str]):
    """Names of some cells, of which one is read when the message of an error needs it.

    Parameters
    ----------
    cells
        The cells.
    rows
        Which of them.
    """

    def __init__(self, cells: CellTable, rows: Sequence[int] | np.ndarray) -> None:
        self._cells, self._rows = cells, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: Any) -> Any:
        row = int(self._rows[place])
        return self._cells.read_names(slice(row, row + 1))[0]
