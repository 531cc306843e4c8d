"""Elements of ``obsm`` and ``uns``: read alike from memory and files, and refused by name."""

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest

from causcell.cells.elements import read_elements, read_embeddings
from causcell.errors import DataError


@pytest.fixture
def adata() -> anndata.AnnData:
    made = anndata.AnnData(np.eye(3, dtype=np.float32), uns={"causcell": {"estimate": "mean"}})
    made.obsm["X_causcell_stim"] = np.arange(6.0).reshape(3, 2)
    return made


@pytest.mark.parametrize("suffix", ["", ".h5ad", ".zarr"])
@pytest.mark.filterwarnings("ignore")  # of zarr, as it writes
def test_elements_are_read_from_memory_and_files_alike(adata: anndata.AnnData, tmp_path: Path, suffix: str) -> None:
    source: Any = adata
    if suffix:
        source = tmp_path / f"cells{suffix}"
        with anndata.settings.override(zarr_write_format=3):
            (adata.write_h5ad if suffix == ".h5ad" else adata.write_zarr)(source)
    assert read_elements(source, ["uns/causcell", "uns/other"]) == {"uns/causcell": {"estimate": "mean"}}
    found = read_embeddings(source, ["X_causcell_stim", "X_causcell_donor"], 3)
    assert list(found) == ["X_causcell_stim"]
    np.testing.assert_array_equal(found["X_causcell_stim"], adata.obsm["X_causcell_stim"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.full((3, 2), np.nan), "obsm/X_causcell_stim: it holds NaN or infinite values"),
        (np.zeros(shape=(3, 2, 2)), "no table of numbers with a row for each of the 3 rows"),
        (np.array([["a", "b"]] * 3), "no table of numbers"),
    ],
)
def test_embeddings_that_are_no_numbers_are_refused(adata: anndata.AnnData, value: np.ndarray, message: str) -> None:
    adata.obsm["X_causcell_stim"] = value
    with pytest.raises(DataError, match=message):
        read_embeddings(adata, ["X_causcell_stim"], 3)
