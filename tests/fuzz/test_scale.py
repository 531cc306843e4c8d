"""Whatever depth, genes, totals and base cells come with: what is read is right, or something is said."""

import math
import warnings
from typing import Any

import anndata
import numpy as np
import pandas as pd
from fuzzing import inputs, tried
from hypothesis import example, given
from hypothesis import strategies as st
from scales import GENES, PANEL, draw_counts, normalised, trained_on
from scipy import sparse

from causcell.cells.collection import open_cells
from causcell.cells.panel_cells import PanelCells
from causcell.concepts import Concept, ConceptSchema
from causcell.errors import CausCellWarning

SCHEMA = ConceptSchema((Concept("stim", ("ctrl", "IFN")),), ())
MODEL = trained_on(draw_counts(400, seed=11))
TOLERANCE = 0.02
"""On the log scale: 1 % of the total, twice, as one may be off by it in the file and one in a column."""

UNTOLD = 0.1 + math.log(MODEL.panel_sums[-2] / MODEL.panel_sums[1])
"""How far values may be off without a word where genes of the total are missing: by what the panel's part of the total
varies between training cells, another total can't be told from another cell. The tenth is what sums may lie beyond."""


@st.composite
def situations(draw: st.DrawFn) -> dict[str, Any]:
    """Cells of a model's kind, brought to a file in one of the ways that people do."""
    genes = draw(st.sampled_from([len(GENES), len(GENES), 59, 50, 30, len(PANEL)]))
    return {
        "seed": draw(st.integers(0, 10**6)),
        "cells": draw(st.sampled_from([1, 2, 5, 20, 80])),
        "depth": draw(st.floats(1, 100)),
        "genes": genes,
        "form": draw(st.sampled_from(["counts", "nearly whole", "scaled", "log1p"])),
        "total": draw(st.one_of(st.none(), st.sampled_from([1e3, 1e4, 1e5, 1e6]), st.floats(50, 1e7))),
        "base": draw(st.sampled_from([math.e, math.e, 2.0, 10.0])),
        "cut_first": draw(st.booleans()),
        "totals": draw(st.sampled_from([None, "right", "low", "high", "of other cells"])),
        "round": draw(st.booleans()),
        "declared": draw(st.sampled_from(["counts", "log1p"])),
        "allowed": draw(st.sampled_from([0.0, 0.5, 0.99])),
    }


def make_file(case: dict[str, Any], counts: np.ndarray) -> anndata.AnnData:
    """The file that a user has."""
    kept = slice(0, case["genes"])
    if case["form"] == "log1p":
        if case["cut_first"]:
            counts = counts[:, kept] + 1e-9 * (counts[:, kept].sum(axis=1, keepdims=True) == 0)
        values = normalised(counts, case["total"], case["base"])[:, kept]
    else:
        times = {"counts": 1, "nearly whole": 1.0000001, "scaled": 0.93}[case["form"]]
        values = (counts[:, kept] * times).astype(np.float64)
    obs = pd.DataFrame({"stim": "ctrl"}, index=[f"cell{i}" for i in range(len(values))])
    return anndata.AnnData(sparse.csr_matrix(values), obs=obs, var=pd.DataFrame(index=list(GENES[kept])))


def untold(case: dict[str, Any]) -> float:
    """How far values may be off where nothing is said."""
    if case["declared"] == "counts" and case["round"] and case["form"] == "scaled":
        return 1.0  # whole numbers nearest to 0.93 times the counts
    if case["declared"] == "counts" and case["round"] and case["form"] == "log1p" and case["cells"] == 1:
        return math.inf  # a single cell's may be anything that is not whole
    if case["genes"] == len(GENES):
        return TOLERANCE
    if case["declared"] == "counts" and case["totals"] == "of other cells":
        return math.inf  # of a column that is as good as right in the middle, nothing tells
    return UNTOLD if case["declared"] == "log1p" or case["totals"] in ("low", "high") else TOLERANCE


@inputs(300)
@given(situations())
@example(
    {
        "seed": 0, "cells": 80, "depth": 10.0, "genes": 20, "form": "log1p", "total": 1e4, "base": math.e,
        "cut_first": True, "totals": None, "round": False, "declared": "log1p", "allowed": 0.0,
    }
)  # fmt: skip
def test_a_value_is_right_or_something_is_said(case: dict[str, Any]) -> None:
    counts = draw_counts(case["cells"], case["seed"], case["depth"])
    cells = make_file(case, counts)
    sums = counts.sum(axis=1)
    if case["totals"] is not None:
        factor = {"right": 1.0, "low": 0.5, "high": 3.0, "of other cells": 1.0}[case["totals"]]
        cells.obs["n_counts"] = (np.roll(sums, 1) if case["totals"] == "of other cells" else sums) * factor
    expected = normalised(counts)[:, : len(PANEL)]
    with tried("scale of cells"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CausCellWarning)
        bound = PanelCells(
            open_cells(cells),
            SCHEMA,
            MODEL,
            expression=case["declared"],
            allow_missing_genes=case["allowed"],
            totals=None if case["totals"] is None else "n_counts",
            round_counts=case["round"],
        )
        given = bound.read(slice(0, len(counts))).expression
        if any(issubclass(each.category, CausCellWarning) for each in caught):
            return
        off = np.abs(given - expected)[(given > 0) & (expected > 0)].max(initial=0)
        assert off <= untold(case), off
