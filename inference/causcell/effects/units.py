"""Independent units of a test: cells, or the replicates that they belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from causcell._internal.choices import suggest
from causcell.effects.settings import MIN_UNITS
from causcell.errors import ConceptError, DataError, UnknownConceptError, format_list

if TYPE_CHECKING:
    import pandas as pd


def number_units(obs: pd.DataFrame, replicate: str | None) -> np.ndarray | None:
    """Give each cell the number of its independent unit, int [n]; `None` where each cell is one.

    Parameters
    ----------
    obs
        A row a cell.
    replicate
        Column whose labels are the units; `None` for cells.

    Raises
    ------
    UnknownConceptError
        No such column.
    ConceptError
        A cell without a label there.
    DataError
        Fewer than two units.
    """
    if replicate is None:
        if len(obs) < MIN_UNITS:
            raise DataError(f"there is {len(obs)} cell; a standard error needs at least {MIN_UNITS}")
        return None
    if replicate not in obs:
        raise UnknownConceptError(
            f"obs has no column {replicate!r}; {suggest(replicate, obs.columns)}its columns are "
            f"{format_list(obs.columns, 40)}"
        )
    codes, names = obs[replicate].factorize()
    if (codes < 0).any():
        raise ConceptError(f"obs[{replicate!r}] is missing for {(codes < 0).sum()} cells; leave them out by where=")
    if len(names) < MIN_UNITS:
        raise DataError(
            f"obs[{replicate!r}] has {len(names)} label in these cells; a standard error over replicates needs "
            f"at least {MIN_UNITS}"
        )
    return np.asarray(codes)
