"""Cells are the same wherever they are read from, and in whatever order."""

import warnings

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from simulation import simulated_cells

from causcell.cells import csc as rowwise
from causcell.cells.collection import Cells, Collection, open_cells
from causcell.errors import CausCellError, CausCellWarning, CellNameError, ConfigurationError, DataError

pytestmark = [
    pytest.mark.filterwarnings("ignore:Writing zarr v2 data"),  # what most stores still are
    pytest.mark.filterwarnings("ignore:.*by columns:causcell.errors.CausCellWarning"),
]

CELLS = 40


@pytest.fixture(scope="module")
def adata():
    """Counts with a layer of doubled ones; treat as read-only."""
    cells = simulated_cells(CELLS)
    cells.layers["doubled"] = cells.X * 2
    cells.obs["score"] = np.arange(CELLS) / 10
    return cells


def write(cells, folder, form):
    """A copy on disk, or in memory."""
    path = folder / f"cells.{form}"
    if form == "h5ad":
        cells.write_h5ad(path)
    elif form == "zarr":
        cells.write_zarr(path)
    else:
        return cells.copy()
    return path


def dense(values):
    return values.toarray() if sparse.issparse(values) else np.asarray(values)


@pytest.mark.parametrize("form", ["h5ad", "zarr", "memory"])
@pytest.mark.parametrize("matrix", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
def test_every_source_gives_the_same_cells(adata, tmp_path, form, matrix):
    source = adata.copy()
    source.X = matrix(adata.X.toarray())
    cells = Cells(write(source, tmp_path, form))
    assert len(cells) == CELLS
    assert cells.names.tolist() == adata.obs_names.tolist()
    assert cells.genes == adata.var_names.tolist()
    pd.testing.assert_frame_equal(cells.obs[["stim", "donor"]], adata.obs[["stim", "donor"]], check_names=False)
    np.testing.assert_array_equal(dense(cells.values(slice(None))), adata.X.toarray())
    np.testing.assert_array_equal(dense(cells.values(slice(3, 7))), adata.X[3:7].toarray())
    np.testing.assert_array_equal(dense(cells.values(slice(9, 10))), adata.X[9:10].toarray())


@pytest.mark.parametrize("form", ["h5ad", "zarr", "memory"])
@pytest.mark.parametrize("matrix", [sparse.csr_matrix, np.asarray])
def test_rows_come_in_the_order_asked_for(adata, tmp_path, form, matrix):
    """Backed matrices are read in ascending order; the rows come back in the caller's."""
    source = adata.copy()
    source.X = matrix(adata.X.toarray())
    cells = Cells(write(source, tmp_path, form))
    order = np.random.default_rng(0).permutation(CELLS)[:17]
    np.testing.assert_array_equal(dense(cells.values(order)), adata.X.toarray()[order])


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_files_are_read_as_they_are_asked_for(adata, tmp_path, form, monkeypatch):
    """Neither X nor the layers nor annotations that nobody asks for are read when a file is opened."""
    path = write(adata, tmp_path, form)

    def refuse(*_, **__):
        raise AssertionError("read whole")

    monkeypatch.setattr(anndata, "read_h5ad", refuse)
    monkeypatch.setattr(anndata, "read_zarr", refuse)
    with Cells(path) as cells:
        np.testing.assert_array_equal(dense(cells.values(slice(5, 9))), adata.X[5:9].toarray())


def test_an_anndata_that_is_backed_already_stays_so(adata, tmp_path):
    backed = anndata.read_h5ad(write(adata, tmp_path, "h5ad"), backed="r")
    with Cells(backed) as cells:
        np.testing.assert_array_equal(dense(cells.values(slice(5, 9))), adata.X[5:9].toarray())
    assert backed.isbacked
    assert backed.file.is_open  # what was not opened here is not closed here


def test_rows_far_apart_are_read_one_by_one(adata, tmp_path):
    """As a query leaves them: two cells at the ends of the file are no reason to read all between."""
    for form in ("h5ad", "zarr"):
        with Cells(write(adata, tmp_path, form)) as cells:
            far = np.array([0, CELLS - 1])
            np.testing.assert_array_equal(dense(cells.values(far)), adata.X.toarray()[far])


@pytest.mark.filterwarnings("ignore:Element .* was written without encoding metadata")
def test_a_file_of_earlier_times(adata, tmp_path):
    """anndata 0.7 wrote labels in another form, which anndata still reads."""
    path = write(adata, tmp_path, "h5ad")
    with h5py.File(path, "r+") as file:
        group, categories = file["obs"], adata.obs["stim"].cat.categories
        codes = group["stim/codes"][:]
        del group["stim"]
        group["stim"] = codes
        labels = group.create_dataset("__categories/stim", data=[each.encode() for each in categories])
        labels.attrs["ordered"] = False
        group["stim"].attrs["categories"] = labels.ref
        group.attrs["encoding-version"] = "0.1.0"
    with Cells(path) as cells:
        assert cells.names.tolist() == adata.obs_names.tolist()
        assert cells.obs["stim"].astype(str).tolist() == adata.obs["stim"].astype(str).tolist()
        np.testing.assert_array_equal(dense(cells.values(slice(2, 4))), adata.X[2:4].toarray())


# -- by columns --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_a_matrix_by_columns_is_copied_by_rows_in_pieces(adata, tmp_path, form, monkeypatch):
    """However few nonzeros are held at once; the user is told how to save the copy; the copy goes with the cells."""
    monkeypatch.setattr(rowwise, "_ENTRIES", 50)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    source = adata.copy()
    source.X = sparse.csc_matrix(adata.X.toarray() * (np.arange(CELLS) != 7)[:, None])  # a row without a nonzero
    path = write(source, tmp_path, form)
    before = set(tmp_path.iterdir())
    with Cells(path) as cells:
        with pytest.warns(CausCellWarning, match=r"by columns \(CSC\).*tocsr"):
            np.testing.assert_array_equal(dense(cells.values(slice(None))), source.X.toarray())
        np.testing.assert_array_equal(dense(cells.values(np.array([30, 2, 7]))), source.X.toarray()[[30, 2, 7]])
        assert set(tmp_path.iterdir()) != before
    assert set(tmp_path.iterdir()) == before


def test_a_copy_by_rows_is_used_again(adata, tmp_path):
    source = adata.copy()
    source.X = sparse.csc_matrix(adata.X)
    path = write(source, tmp_path, "h5ad")
    scratch = tmp_path / "scratch"
    for _ in range(2):
        with warnings.catch_warnings(), Cells(path, scratch=scratch) as cells:
            warnings.simplefilter("ignore", CausCellWarning)
            np.testing.assert_array_equal(dense(cells.values(slice(None))), adata.X.toarray())
        made = {file: file.stat().st_mtime_ns for file in scratch.rglob("*")}
    assert made == {file: file.stat().st_mtime_ns for file in scratch.rglob("*")}
    assert len(made) > 1


@pytest.mark.parametrize("form", ["h5ad", "zarr", "memory"])
def test_layer_is_read_in_place_of_x(adata, tmp_path, form):
    cells = Cells(write(adata, tmp_path, form), layer="doubled")
    order = np.array([7, 2, 30])
    np.testing.assert_array_equal(dense(cells.values(order)), 2 * adata.X.toarray()[order])


def test_unknown_layer(adata):
    with pytest.raises(DataError, match="there is no layer 'raw'; the layers are 'doubled'"):
        Cells(adata, layer="raw")


# -- raw ---------------------------------------------------------------------------------------------------------------


def with_raw(adata, matrix=sparse.csr_matrix):
    """Normalised values of some genes in X, and the counts of all genes in raw: the commonest public layout."""
    some = adata[:, 10:30].copy()
    some.X = np.log1p(some.X.toarray() * 0.37)
    some.raw = anndata.AnnData(matrix(adata.X.toarray()), obs=adata.obs, var=adata.var)
    return some


@pytest.mark.parametrize("form", ["h5ad", "zarr", "memory", "backed"])
@pytest.mark.parametrize("matrix", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
def test_raw_has_genes_and_values_of_its_own(adata, tmp_path, form, matrix):
    source = with_raw(adata, matrix)
    if form == "backed":
        source = anndata.read_h5ad(write(source, tmp_path, "h5ad"), backed="r")
    with Cells(source if form == "backed" else write(source, tmp_path, form), raw=True, where="score > 1") as cells:
        rows = np.flatnonzero(adata.obs["score"] > 1)
        assert cells.genes == adata.var_names.tolist()
        assert cells.names.tolist() == adata.obs_names[rows].tolist()
        np.testing.assert_array_equal(dense(cells.values(slice(3, 9))), adata.X.toarray()[rows[3:9]])
        np.testing.assert_array_equal(dense(cells.values(np.array([8, 2]))), adata.X.toarray()[rows[[8, 2]]])


def test_raw_of_some_of_the_cells_in_memory(adata):
    cells = Cells(with_raw(adata)[5:20], raw=True)
    np.testing.assert_array_equal(dense(cells.values(slice(0, 4))), adata.X.toarray()[5:9])


def test_raw_of_several_files(adata, tmp_path):
    (tmp_path / "a").mkdir()
    files = {"a": write(with_raw(adata), tmp_path / "a", "h5ad"), "b": with_raw(adata)}
    with open_cells(files, raw=True) as cells:
        assert [part.genes for part in cells.parts] == [adata.var_names.tolist()] * 2


@pytest.mark.parametrize("form", ["h5ad", "zarr", "memory"])
def test_raw_that_is_not_there(adata, tmp_path, form):
    with pytest.raises(DataError, match=r"there is no adata\.raw; leave out raw=True, or name the layer"):
        Cells(write(adata, tmp_path, form), raw=True)


def test_a_layer_beside_raw(adata):
    with pytest.raises(ConfigurationError, match="layer='doubled' and raw=True exclude each other"):
        Cells(with_raw(adata), layer="doubled", raw=True)


def test_a_layer_named_raw_is_not_adata_raw(adata):
    with pytest.raises(DataError, match=r"no layer 'raw'.*adata\.raw is read by raw=True"):
        Cells(with_raw(adata), layer="raw")


def test_no_expression_in_x(adata):
    cells = Cells(anndata.AnnData(obs=adata.obs, var=adata.var))
    with pytest.raises(DataError, match="no expression in X; name a layer"):
        cells.values(slice(0, 2))


# -- where -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["h5ad", "zarr", "memory"])
def test_where_keeps_matching_cells_in_input_order(adata, tmp_path, form):
    cells = Cells(write(adata, tmp_path, form), where="cell_type == 'B' and score > 1")
    rows = np.flatnonzero((adata.obs["cell_type"] == "B") & (adata.obs["score"] > 1))
    assert 0 < len(rows) < CELLS
    assert len(cells) == len(rows)
    assert cells.names.tolist() == adata.obs_names[rows].tolist()
    assert cells.obs.index.tolist() == cells.names.tolist()
    np.testing.assert_array_equal(dense(cells.values(slice(0, 3))), adata.X.toarray()[rows[:3]])
    np.testing.assert_array_equal(dense(cells.values(np.array([2, 0]))), adata.X.toarray()[rows[[2, 0]]])


@pytest.mark.parametrize(
    "where", ["cell_type ==", "no_such_column == 1", "cell_type == 'B' and", "", "score + 1", "score = 3"]
)
def test_where_that_cannot_be_evaluated(adata, where):
    with pytest.raises(CausCellError, match=r"can't be evaluated.*'stim', 'donor', 'cell_type', 'state'"):
        Cells(adata, where=where)


@pytest.mark.parametrize("where", ["score", "1", "True", "1 == 1"])
def test_where_that_is_not_a_question(adata, where):
    with pytest.raises(CausCellError, match="does not say yes or no for each cell"):
        Cells(adata, where=where)


def test_where_does_not_change_the_cells_given(adata):
    before = adata.obs.copy()
    Cells(adata, where="score > 1")
    pd.testing.assert_frame_equal(adata.obs, before)


def test_where_that_leaves_no_cell(adata):
    with pytest.raises(DataError, match="there are no cells for which score > 1000"):
        Cells(adata, where="score > 1000")


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_no_cells(adata):
    with pytest.raises(DataError, match="there are no cells"):
        Cells(adata[:0])


def test_duplicated_names_are_refused(adata):
    double = adata.copy()
    double.obs_names = ["twice"] * 3 + ["again"] * 2 + list(adata.obs_names[5:])
    with pytest.raises(CellNameError, match=r"2 cell names are duplicated: 'twice', 'again'.*obs_names_make_unique"):
        Cells(double)


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"there is no file '.*nothing\.h5ad'"):
        Cells(tmp_path / "nothing.h5ad")


def test_wrong_suffix(tmp_path):
    path = tmp_path / "cells.csv"
    path.write_text("a,b\n")
    with pytest.raises(DataError, match=r"cells\.csv' is neither \.h5ad nor \.zarr"):
        Cells(path)


def text_file(path):
    path.write_text("no cells here")


def empty_folder(path):
    path.mkdir()


def truncated(path):
    simulated_cells(CELLS).write_h5ad(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def foreign_hdf5(path):
    with h5py.File(path, "w") as file:
        file["numbers"] = np.zeros(3)


def broken_metadata(path):
    simulated_cells(CELLS).write_zarr(path)
    for file in path.iterdir():
        if file.is_file():
            file.write_text("{")


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (text_file, "cells.h5ad"),
        (empty_folder, "cells.h5ad"),
        (truncated, "cells.h5ad"),
        (foreign_hdf5, "cells.h5ad"),
        (text_file, "cells.zarr"),
        (empty_folder, "cells.zarr"),
        (broken_metadata, "cells.zarr"),
    ],
)
def test_unreadable_files_are_refused(tmp_path, spoil, name):
    spoil(tmp_path / name)
    with pytest.raises(DataError, match=f"{name}' can't be read as AnnData"):
        Cells(tmp_path / name)


# -- several files -----------------------------------------------------------------------------------------------------


@pytest.fixture
def two(adata, tmp_path):
    """Two files of one collection: the second with fewer genes in another order, and one concept less."""
    second = adata[25:, ::-1][:, 5:].copy()
    del second.obs["donor"]
    write(adata[:25].copy(), tmp_path, "h5ad")
    second.write_zarr(tmp_path / "second.zarr")
    return {"a": tmp_path / "cells.h5ad", "b": tmp_path / "second.zarr"}


def test_a_collection_is_one_file_after_the_other(adata, two):
    with Collection(two) as cells:
        assert len(cells) == CELLS
        keyed = [f"a:{name}" for name in adata.obs_names[:25]] + [f"b:{name}" for name in adata.obs_names[25:]]
        assert cells.names.tolist() == keyed
        assert cells.read_names(slice(23, 28)).tolist() == keyed[23:28]
        assert cells.obs.index.tolist() == keyed
        assert cells.obs["stim"].astype(str).tolist() == adata.obs["stim"].astype(str).tolist()
        assert cells.obs["donor"].isna().tolist() == [False] * 25 + [True] * 15


def test_where_may_leave_nothing_of_a_file(adata, two):
    with Collection(two, where="score < 1") as cells:
        assert cells.names.tolist() == [f"a:cell_{i:04d}" for i in range(10)]
    with pytest.raises(DataError, match="no cells for which score > 1000"):
        Collection(two, where="score > 1000")


@pytest.mark.parametrize("key", ["", "a:b"])
def test_keys_that_would_make_names_ambiguous(two, key):
    with pytest.raises(ConfigurationError, match="can't be keys of files"):
        Collection({key: two["a"]})
    with pytest.raises(ConfigurationError, match="no files"):
        Collection({})


def test_an_error_tells_which_file(two, tmp_path):
    with pytest.raises(DataError, match="there is no file") as error:
        Collection(two | {"c": tmp_path / "nothing.h5ad"})
    assert error.value.__notes__ == ["in file 'c'"]


def test_one_path_has_no_key(two):
    with open_cells(two["a"]) as cells:
        assert cells.names[0] == "cell_0000"
    with open_cells({"a": two["a"]}) as cells:
        assert cells.names[0] == "a:cell_0000"
