"""Cells of several files read as one of the genes that all have: what `anndata.concat` gives."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from simulation import simulated_cells

from causcell.cells.collection import Cells
from causcell.cells.joined import JoinedCells, open_joined
from causcell.errors import CausCellWarning, CellNameError, ConfigurationError, GenePanelError


@pytest.fixture(scope="module")
def parts() -> dict[str, anndata.AnnData]:
    """Two tables: genes in another order, one gene and one column less in the second."""
    whole = simulated_cells(40)
    second = whole[25:, whole.var_names[::-1][1:]].copy()
    del second.obs["donor"]
    return {"a": whole[:25].copy(), "b": second}


@pytest.fixture(scope="module")
def concatenated(parts: dict[str, anndata.AnnData]) -> anndata.AnnData:
    whole = anndata.concat(parts, join="outer", merge="same")
    common = [gene for gene in parts["a"].var_names if gene in parts["b"].var_names]
    return whole[:, common].copy()


@pytest.fixture
def joined(parts: dict[str, anndata.AnnData]) -> JoinedCells:
    with pytest.warns(CausCellWarning, match=r"59 that all of them have are read; .* are '1 of a'"):
        return JoinedCells(parts)


@pytest.mark.parametrize("rows", [slice(0, 40), slice(20, 30), np.array([39, 0, 26, 3, 25]), np.array([1, 2])])
def test_values_are_those_of_the_concatenated_table(
    joined: JoinedCells, concatenated: anndata.AnnData, rows: slice | np.ndarray
) -> None:
    assert joined.genes == concatenated.var_names.tolist()
    np.testing.assert_array_equal(joined.values(rows).toarray(), concatenated.X[rows].toarray())


def test_names_carry_the_key_and_a_column_that_a_file_lacks_is_missing_there(
    joined: JoinedCells, parts: dict[str, anndata.AnnData]
) -> None:
    assert joined.names[[0, 25]].tolist() == [f"a:{parts['a'].obs_names[0]}", f"b:{parts['b'].obs_names[0]}"]
    assert set(joined.columns) == set(parts["a"].obs.columns)
    table = joined.read_obs(["stim", "donor"])
    assert table["donor"].isna().tolist() == [False] * 25 + [True] * 15
    assert table["stim"].tolist() == [*parts["a"].obs["stim"], *parts["b"].obs["stim"]]
    assert joined.column("stim").tolist() == table["stim"].tolist()


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
def test_dense_and_sparse_files_of_any_form_are_joined(parts: dict[str, anndata.AnnData], tmp_path: Path) -> None:
    dense = parts["a"].copy()
    dense.X = dense.X.toarray()
    dense.write_h5ad(tmp_path / "dense.h5ad")
    by_columns = parts["b"].copy()
    by_columns.X = sparse.csc_matrix(by_columns.X)
    by_columns.write_zarr(tmp_path / "columns.zarr")
    files = {"a": tmp_path / "dense.h5ad", "b": tmp_path / "columns.zarr"}
    with JoinedCells(files, announce=False) as there, JoinedCells(parts, announce=False) as here:
        np.testing.assert_array_equal(there.values(slice(0, 40)).toarray(), here.values(slice(0, 40)).toarray())
        assert there.names.tolist() == here.names.tolist()
    with JoinedCells({"a": dense, "b": dense}) as both:
        assert isinstance(both.values(slice(20, 30)), np.ndarray)


def test_marks_of_genes_have_to_agree(parts: dict[str, anndata.AnnData]) -> None:
    marked = {key: part.copy() for key, part in parts.items()}
    for part in marked.values():
        part.var["highly_variable"] = part.var_names.isin(["GENE3", "GENE5"])
    with JoinedCells(marked, announce=False) as cells:
        marks = cells.gene_column("highly_variable")
        assert marks is not None
        assert np.array(cells.genes)[marks].tolist() == ["GENE3", "GENE5"]
        assert cells.gene_column("other") is None
    marked["b"].var.loc["GENE7", "highly_variable"] = True
    with (
        JoinedCells(marked, announce=False) as cells,
        pytest.raises(GenePanelError, match=r"of gene 'GENE7' it is not the same in 'a' and 'b'; give a list"),
    ):
        cells.gene_column("highly_variable")


def test_files_that_can_not_be_joined_are_told(parts: dict[str, anndata.AnnData]) -> None:
    other = parts["b"].copy()
    other.var_names = [f"gene_{i}" for i in range(other.n_vars)]
    with pytest.raises(GenePanelError, match=r"2 files have no gene in common \('a' begins with 'GENE0'.*name them"):
        JoinedCells({"a": parts["a"], "b": other})
    twice = parts["a"].copy()
    twice.var_names = ["GENE0", "GENE0", *twice.var_names[2:]]
    with pytest.raises(GenePanelError, match="duplicated") as caught:
        JoinedCells({"a": parts["a"], "b": twice})
    assert "in file 'b'" in str(caught.value.__notes__)
    again = parts["a"].copy()
    again.obs_names = pd.Index(["x", "x", *again.obs_names[2:]])
    with pytest.raises(CellNameError):
        JoinedCells({"a": again})
    with pytest.raises(ConfigurationError, match="no files"):
        open_joined({})


def test_one_source_is_opened_as_it_is(parts: dict[str, anndata.AnnData]) -> None:
    with open_joined(parts["a"]) as cells:
        assert isinstance(cells, Cells)
        assert cells.names[0] == parts["a"].obs_names[0]
