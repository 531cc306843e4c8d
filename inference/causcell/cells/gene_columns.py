"""Columns of ``var`` for the genes of a panel, from one or several files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell.cells.collection import Cells
from causcell.cells.columns import Form, Uncarried, find_form, join_forms
from causcell.cells.names import find_genes, number_genes

if TYPE_CHECKING:
    import pandas as pd

OWN = "filled"
"""Column of ``var`` that results have of their own."""


def read_gene_table(parts: Sequence[Cells], genes: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Read the columns of ``var`` for the genes of a panel.

    A gene's value is that of the files that have it, which have to agree; it is missing where no file has one.

    Returns
    -------
    Columns [G x columns] with the genes as index; and sentences that name the columns left out.
    """
    import pandas as pd

    files = [(part, part.file.gene_columns()) for part in parts]
    places = [find_genes(number_genes(part.file.genes), genes) if columns else np.empty(0) for part, columns in files]
    found: dict[str, Any] = {}
    left_out = []
    for name in dict.fromkeys(name for _, columns in files for name in columns):
        pieces = [
            (str(part.key), columns[name], place)
            for (part, columns), place in zip(files, places, strict=True)
            if name in columns
        ]
        column = Uncarried("is a column of the result's own") if name == OWN else _join(pieces)
        if isinstance(column, Uncarried):
            left_out.append(f"var[{name!r}] {column.reason}")
        else:
            found[name] = column
    return pd.DataFrame(found, index=pd.Index(genes, dtype=object)), left_out


def _join(pieces: list[tuple[str, pd.Series, np.ndarray]]) -> Any:
    """Join a column of several files, each with its key and the places of the panel's genes."""
    import pandas as pd

    forms = {}
    for key, values, _ in pieces:
        form = find_form(values)
        if isinstance(form, Uncarried):
            return form
        forms[key] = form
    joined = join_forms(forms)
    if isinstance(joined, Uncarried):
        return joined
    kept = np.full(len(pieces[0][2]), None, dtype=object)
    missing = np.ones(len(kept), dtype=bool)
    for _, values, places in pieces:
        mine = np.array([*values.astype(object), None], dtype=object)[places]
        absent = np.asarray(pd.isna(mine), dtype=bool)
        differs = [i for i in np.flatnonzero(~absent & ~missing) if mine[i] != kept[i]]
        if differs:
            return Uncarried(f"differs between the files for {len(differs)} of the panel's genes")
        fresh = ~absent & missing
        kept[fresh], missing = mine[fresh], missing & absent
    return _in_form(kept, missing, joined)


def _in_form(values: np.ndarray, missing: np.ndarray, form: Form) -> Any:
    """Return values in a form, or in the like form that has missing values."""
    import pandas as pd

    if isinstance(form, pd.CategoricalDtype):
        return pd.Categorical(values, dtype=form)
    if not missing.any() and isinstance(form, np.dtype):
        return values.astype(form)
    if isinstance(form, np.dtype) and form.kind == "f":
        return np.where(missing, np.nan, values).astype(form)
    with_missing = join_forms({"": form, "absent": None}) if isinstance(form, np.dtype) else form
    values[missing] = pd.NA
    return pd.array(values, dtype=with_missing)
