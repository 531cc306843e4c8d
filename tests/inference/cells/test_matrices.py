"""Expression is the same numbers whatever holds it; what holds none, or contradicts itself, is named."""

import anndata
import dask.array as da
import h5py
import numpy as np
import pandas as pd
import pytest
from damage import cells as small_cells
from scipy import sparse
from simulation import simulated_cells

from causcell.cells.collection import Cells
from causcell.errors import CausCellError, DataError

pytestmark = [
    pytest.mark.filterwarnings("ignore:Writing zarr v2 data"),
    pytest.mark.filterwarnings("ignore:.*by columns:causcell.errors.CausCellWarning"),
]

CELLS = 40


@pytest.fixture(scope="module")
def adata():
    """Counts; treat as read-only."""
    return simulated_cells(CELLS)


def dense(values):
    return values.toarray() if sparse.issparse(values) else np.asarray(values)


def assert_reads_as(cells, expected):
    order = np.random.default_rng(0).permutation(CELLS)[:11]
    for rows in (slice(None), slice(3, 9), order, np.array([0, CELLS - 1])):
        found = cells.values(rows)
        assert isinstance(found, np.ndarray | sparse.csr_matrix)
        np.testing.assert_array_equal(dense(found), expected[rows])


FORMS = {
    "matrix": np.asmatrix,
    "masked, nothing missing": lambda x: np.ma.masked_array(x, mask=False),
    "csr array": sparse.csr_array,
    "csc array": sparse.csc_array,
    "csc matrix": sparse.csc_matrix,
    "Fortran order": np.asfortranarray,
    "dask of dense": lambda x: da.from_array(x, chunks=(7, 5)),
    "dask of csr": lambda x: da.from_array(x, chunks=(7, x.shape[1])).map_blocks(sparse.csr_matrix),
    "dask of csr arrays": lambda x: da.from_array(x, chunks=(7, x.shape[1])).map_blocks(sparse.csr_array),
    "dask of csc": lambda x: da.from_array(x, chunks=(7, x.shape[1])).map_blocks(sparse.csc_matrix),
}


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*should not be a np.matrix")
@pytest.mark.parametrize("form", sorted(FORMS))
def test_values_are_the_same_in_every_container(adata, form):
    expected = adata.X.toarray()
    source = adata.copy()
    source.layers["given"] = FORMS[form](expected)
    assert_reads_as(Cells(source, layer="given"), expected)
    source = anndata.AnnData(FORMS[form](expected), obs=adata.obs, var=adata.var)
    assert_reads_as(Cells(source), expected)


NUMBERS = ["?", "i1", "u2", "i8", "u8", "f2", "f4", "f8", "g", ">f4", ">i2"]


def smaller(adata, dtype):
    return np.minimum(adata.X.toarray(), 1 if dtype == "?" else 100)


@pytest.mark.parametrize("dtype", NUMBERS)
def test_values_in_memory_are_the_same_in_every_type_of_number(adata, dtype):
    expected = smaller(adata, dtype)
    source = anndata.AnnData(obs=adata.obs, var=adata.var)
    source.layers["dense"] = expected.astype(dtype)
    assert_reads_as(Cells(source, layer="dense"), expected)
    if dtype not in ("f2", ">f4", ">i2"):  # of which scipy has no matrices
        source.layers["sparse"] = sparse.csr_matrix(expected.astype(dtype))
        assert_reads_as(Cells(source, layer="sparse"), expected)


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_values_in_a_file_are_the_same_in_every_type_of_number(adata, tmp_path, dtype, container):
    expected = smaller(adata, dtype)
    anndata.AnnData(container(expected), obs=adata.obs, var=adata.var).write_h5ad(tmp_path / "cells.h5ad")
    place = "X" if container is np.asarray else "X/data"
    with h5py.File(tmp_path / "cells.h5ad", "r+") as file:
        kept, values = dict(file[place].attrs), file[place][()]
        del file[place]
        file[place] = values.astype(dtype)
        file[place].attrs.update(kept)
    with Cells(tmp_path / "cells.h5ad") as cells:
        assert_reads_as(cells, expected)


@pytest.mark.parametrize("dtype", ["c8", "O", "U3", "M8[s]"])
def test_values_that_are_no_real_numbers_are_named(adata, dtype):
    source = anndata.AnnData(obs=adata.obs, var=adata.var)
    source.layers["odd"] = adata.X.toarray().astype("i8").astype(dtype)
    with pytest.raises(DataError, match=r"layers\['odd'\] of the AnnData given is of type .*real numbers"):
        Cells(source, layer="odd").values(slice(0, 2))


def test_masked_values_are_missing_values(adata):
    source = anndata.AnnData(obs=adata.obs, var=adata.var)
    source.layers["masked"] = np.ma.masked_equal(adata.X.toarray(), 0)
    with pytest.raises(DataError, match=r"masked values.*impute or remove"):
        Cells(source, layer="masked").values(slice(0, 2))


def test_an_array_of_an_unknown_kind_is_named():
    from causcell.cells.matrices import as_matrix

    class Tensor:
        shape = (3, 4)

    with pytest.raises(DataError, match=r"X of the AnnData given is a .*Tensor, which can't be read.*give a numpy"):
        as_matrix(Tensor(), (3, 4), "the AnnData given", "X")


# -- lazy --------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::Warning:xarray", "ignore::FutureWarning:anndata")
@pytest.mark.parametrize("form", ["h5ad", "zarr"])
@pytest.mark.parametrize("matrix", [sparse.csr_matrix, np.asarray])
def test_a_lazy_anndata_is_read_slice_by_slice(adata, tmp_path, form, matrix):
    source = adata.copy()
    source.X = matrix(adata.X.toarray())
    path = tmp_path / f"cells.{form}"
    getattr(source, f"write_{form}")(path)
    lazy = anndata.experimental.read_lazy(path)
    with Cells(lazy) as cells:
        assert cells.names.tolist() == adata.obs_names.tolist()
        assert cells.obs["stim"].astype(str).tolist() == adata.obs["stim"].astype(str).tolist()
        assert_reads_as(cells, adata.X.toarray())
    few = np.array([1, 5, 30])
    with Cells(lazy[few]) as cells:
        np.testing.assert_array_equal(dense(cells.values(slice(None))), adata.X.toarray()[few])


def test_a_computation_that_fails_is_told_of(adata):
    def fail(block):
        raise RuntimeError("no more of it")

    x = da.from_array(adata.X.toarray(), chunks=(7, -1)).map_blocks(fail, dtype="f4", meta=np.empty((0, 0), "f4"))
    source = anndata.AnnData(x, obs=adata.obs, var=adata.var)
    with pytest.raises(DataError, match="the AnnData given can't be read as AnnData: X: RuntimeError: no more of it"):
        Cells(source).values(slice(0, 2))


# -- parts of sparse matrices that contradict each other ---------------------------------------------------------------


def shorten(x):
    x.indptr = x.indptr[:-1]


def fall(x):
    x.indptr[1], x.indptr[2] = x.indptr[2], x.indptr[1]


def beyond(x):
    x.indices[3] = 10**6


def below(x):
    x.indices[3] = -1


@pytest.mark.parametrize("container", [sparse.csr_matrix, sparse.csc_matrix])
@pytest.mark.parametrize(("spoil", "part"), [(fall, "indptr"), (beyond, "indices"), (below, "indices"), (shorten, "")])
def test_a_sparse_matrix_in_memory_that_contradicts_itself_is_refused(container, spoil, part):
    source = small_cells("csr")
    source.X = container(source.X)
    spoil(source.X)
    with pytest.raises(CausCellError, match=f"the AnnData given can't be read as AnnData: X/{part}"):
        Cells(source).values(slice(None))


@pytest.mark.parametrize("form", ["csr", "csc"])
def test_an_error_of_a_file_names_file_element_and_what_is_wrong(tmp_path, form):
    path = tmp_path / "cells.h5ad"
    small_cells(form).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        file["X/indices"][2] = 99
    with (
        Cells(path) as cells,
        pytest.raises(DataError, match=r"cells\.h5ad' can't .*X/indices: it holds 99, and places"),
    ):
        cells.values(slice(None))
    with h5py.File(path, "r+") as file:
        file["X/indptr"][3] = 0
    with Cells(path) as cells, pytest.raises(DataError, match=r"cells\.h5ad' can't .*X/indptr: it falls from \d+ to 0"):
        cells.values(slice(0, 1))


@pytest.mark.parametrize("rows", [11, 13])
def test_a_dense_matrix_with_other_rows_than_obs_is_refused(tmp_path, rows):
    path = tmp_path / "cells.h5ad"
    small_cells("dense").write_h5ad(path)
    with h5py.File(path, "r+") as file:
        kept, values = dict(file["X"].attrs), file["X"][()]
        del file["X"]
        file["X"] = np.resize(values, (rows, values.shape[1]))
        file["X"].attrs.update(kept)
    with Cells(path) as cells, pytest.raises(DataError, match=f"X: it is {rows} x 7, where obs has 12 cells"):
        cells.values(slice(0, 2))


def test_an_entry_that_stands_twice_is_summed_in_memory_as_scipy_does():
    x = sparse.csr_matrix((np.ones(3), [0, 0, 1], [0, 2, 3]), shape=(2, 2))
    source = anndata.AnnData(x, obs=pd.DataFrame(index=["a", "b"]), var=pd.DataFrame(index=["g", "h"]))
    np.testing.assert_array_equal(Cells(source).values(slice(None)).toarray(), [[2, 0], [0, 1]])
