"""Small files of cells in every layout, and what can be told of them: the base that damage is done to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from causcell.cells.annotations import Kept, select_annotations
from causcell.cells.collection import Cells

CELLS, GENES = 12, 7

LOST = (
    "stim",
    "score",
    "spatial",
    "symbol",
    *(f"column {name}" for name in ("stim", "score", "flag", "reads", "barcode")),
)
"""Parts in which values that were never written can't be told from zeros."""


def cells(matrix: str) -> anndata.AnnData:
    """Cells whose matrix is ``dense``, ``csr`` or ``csc``: no cell and no gene without a value."""
    rng = np.random.default_rng(5)
    values = rng.integers(0, 5, (CELLS, GENES)) * (rng.random((CELLS, GENES)) < 0.6)
    values[np.arange(CELLS), np.arange(CELLS) % GENES] = 3
    obs = pd.DataFrame(
        {
            "stim": pd.Categorical(np.tile(["ctrl", "IFN"], CELLS // 2)),
            "score": np.arange(CELLS) + 0.5,
            "flag": pd.array([True, None, False] * (CELLS // 3), dtype="boolean"),
            "reads": pd.array([None, 5, 7] * (CELLS // 3), dtype="Int16"),
            "barcode": [f"bc {i}" for i in range(CELLS)],
        },
        index=[f"cell_{i}" for i in range(CELLS)],
    )
    formats: dict[str, Any] = {"dense": np.asarray, "csr": sparse.csr_matrix, "csc": sparse.csc_matrix}
    x = formats[matrix](values.astype(np.float32))
    var = pd.DataFrame({"symbol": [f"S{i}" for i in range(GENES)]}, index=[f"g{i}" for i in range(GENES)])
    return anndata.AnnData(x, obs=obs, var=var, obsm={"spatial": np.arange(1.0, 2 * CELLS + 1).reshape(-1, 2)})


def read_all(path: Path) -> dict[str, Any]:
    """Everything that CausCell reads of a file."""
    with Cells(path) as opened:
        obs = opened.obs
        travelling = select_annotations(opened, opened.genes, Kept())
        pieces = [travelling.read(slice(start, start + 5)) for start in (0, 5)]
        columns = pd.concat([columns for columns, _ in pieces]).astype(object)
        spatial = [row for _, obsm in pieces for row in obsm["spatial"].tolist()] if travelling.obsm else None
        return {
            **{f"column {name}": columns[name].where(columns[name].notna(), "-").tolist() for name in columns},
            "spatial": spatial,
            "symbol": travelling.var["symbol"].tolist() if "symbol" in travelling.var else None,
            "names": obs.index.tolist(),
            "genes": opened.genes,
            "X": _dense(opened.values(slice(None))),
            "rows": _dense(opened.values(np.array([9, 1, 5]))),
            "stim": obs["stim"].astype(object).tolist(),
            "score": obs["score"].tolist(),
        }


def same(found: dict[str, Any], expected: dict[str, Any], *, but: tuple[str, ...] = ()) -> None:
    """Assert that a damaged file read as what it was before, but for some parts, and annotations that are left out."""
    for part, value in expected.items():
        if part not in but and (part not in LOST or found.get(part) is not None):
            assert np.array_equal(np.asarray(found[part]), np.asarray(value)), f"{part} reads as other data"


def _dense(values: Any) -> list[list[float]]:
    return np.asarray(values.toarray() if sparse.issparse(values) else values).tolist()
