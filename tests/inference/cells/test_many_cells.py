"""Files of many cells, of which nothing is kept for each: the same cells, the same messages, and plans that go on.

`LARGE` is made small here; what differs between the two ways is what is held in memory.
"""

import hashlib
import warnings

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from atlases import AtlasRecipe, tree, write_zarr

from causcell.atlas import source_digests
from causcell.cells import by_rows, collection, matrices, row_begins, unique_names
from causcell.cells.by_rows import ByRows
from causcell.cells.collection import Cells, Collection
from causcell.cells.panel_cells import CellSource
from causcell.cells.row_begins import RowBegins
from causcell.errors import CellNameError, DataError, UnknownLabelError
from causcell.generator import Generator

pytestmark = [
    pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning"),
    pytest.mark.filterwarnings("ignore:Writing zarr v2 data"),
]

CELLS = 160


@pytest.fixture
def large(monkeypatch):
    """Every file has many cells, and is read in small pieces."""
    for module in (collection, matrices, source_digests):
        monkeypatch.setattr(module, "LARGE", 10)
    monkeypatch.setattr(unique_names, "_SLICE", 32)
    monkeypatch.setattr(by_rows, "_BLOCK", 32)
    monkeypatch.setattr(row_begins, "_PIECE", 24)


@pytest.fixture(params=["h5ad", "zarr"])
def path(cells, tmp_path, request):
    """A file of the shared cells."""
    place = tmp_path / f"cells.{request.param}"
    source = cells[:CELLS].copy()
    source.write_h5ad(place) if request.param == "h5ad" else write_zarr(source, place)
    return place


def bind(generator: Generator, source, **options):
    return CellSource(str(source), **options).open(generator.schema, generator.preprocessing)


@pytest.mark.parametrize("where", [None, "donor != 'd1'"])
def test_the_same_labels_names_and_values_are_read(generator, path, large, monkeypatch, where):
    cells = bind(generator, path, where=where)
    assert isinstance(cells.label_rows, ByRows)
    assert len(cells.label_rows) == len(cells)
    pieces = [cells.label_rows[slice(start, start + 50)] for start in range(0, len(cells), 50)]
    np.testing.assert_array_equal(np.concatenate(pieces), cells.labels)
    many = cells.read(slice(20, 90))
    for module in (collection, matrices):
        monkeypatch.setattr(module, "LARGE", 10_000)
    few = bind(generator, path, where=where)
    assert isinstance(few.label_rows, np.ndarray)
    np.testing.assert_array_equal(few.labels, cells.labels)
    again = few.read(slice(20, 90))
    assert (many.names == again.names).all()
    assert (many.expression == again.expression).all()


def test_labels_of_several_files_are_read_by_rows(generator, cells, tmp_path, large):
    cells[:100].write_h5ad(tmp_path / "a.h5ad")
    cells[100:CELLS].write_h5ad(tmp_path / "b.h5ad")
    files = (("a", str(tmp_path / "a.h5ad")), ("b", str(tmp_path / "b.h5ad")))
    both = CellSource(files).open(generator.schema, generator.preprocessing)
    assert isinstance(both.label_rows, ByRows)
    np.testing.assert_array_equal(both.label_rows[90:120], both.labels[90:120])


def test_an_atlas_of_many_cells_is_that_of_few(generator, path, tmp_path, monkeypatch, request):
    few = AtlasRecipe(generator, path)
    few.write(tmp_path / "few.zarr")
    request.getfixturevalue("large")
    recipe = AtlasRecipe(generator, path)
    recipe.write(tmp_path / "many.zarr")
    mine, other = tree(tmp_path / "many.zarr"), tree(tmp_path / "few.zarr")
    differing = {name for name in mine if mine[name] != other[name]}
    assert mine.keys() == other.keys()
    assert all(name.startswith("uns/") or name == "zarr.json" for name in differing)  # the plan's digest
    assert recipe.write(tmp_path / "few.zarr").made == 0  # an atlas of an earlier version goes on
    assert recipe.plan().source.names.startswith("texts:")
    begun = few.plan().source
    assert begun.labels == recipe.plan().source.labels
    assert begun.values == recipe.plan().source.values


def test_other_cells_are_not_those_of_an_atlas_of_an_earlier_version(generator, cells, path, tmp_path, request):
    """Names are digested as that version did, and differ."""
    AtlasRecipe(generator, path).write(tmp_path / "few.zarr")
    request.getfixturevalue("large")
    other = cells[:CELLS].copy()
    other.obs_names = [f"other {name}" for name in other.obs_names]
    other.write_h5ad(tmp_path / "other.h5ad")
    with pytest.raises(Exception, match="atlas of another plan: source names"):
        AtlasRecipe(generator, tmp_path / "other.h5ad").write(tmp_path / "few.zarr")


def test_a_name_that_occurs_twice_is_told(cells, tmp_path, large):
    source = cells[:CELLS].copy()
    names = source.obs_names.to_numpy(dtype=object, copy=True)
    names[[3, 150]] = "twin"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's own of the same
        source.obs_names = names
        source.write_h5ad(tmp_path / "cells.h5ad")
    with pytest.raises(CellNameError, match="1 cell names are duplicated: 'twin'; every random number"):
        Cells(tmp_path / "cells.h5ad")
    Cells(tmp_path / "cells.h5ad", checked=True).close()  # whose driver has looked


def test_a_label_of_no_training_cell_is_told_of_all_cells(generator, cells, tmp_path, large):
    source = cells[:CELLS].copy()
    stim = source.obs["stim"].astype(str).to_numpy(dtype=object)
    stim[[5, 140, 141]] = "unheard of"
    source.obs["stim"] = pd.Categorical(stim)
    source.write_h5ad(tmp_path / "cells.h5ad")
    with pytest.raises(UnknownLabelError, match="'unheard of' in 3 cells"):
        bind(generator, tmp_path / "cells.h5ad").label_rows[slice(0, 40)]


def test_texts_are_digested_as_they_stand():
    names = np.array(["a", "bc", "d\0e"], dtype=object)
    digest = unique_names.texts_digest(2, lambda rows: names[:2][rows])
    assert digest == hashlib.sha256(b"a\0bc\0").hexdigest()
    assert unique_names.check_texts(2, lambda rows: names[:2][rows]) == digest
    taken = [unique_names.texts_digest(2, lambda rows, each=each: np.array(each, dtype=object)[rows]) for each in (
        ["a\0b", "c"], ["a", "b\0c"]
    )]  # fmt: skip
    assert taken[0] != taken[1]


def test_a_digest_of_texts_is_that_of_a_files_names_in_any_slices(cells, tmp_path, monkeypatch):
    cells[:CELLS].write_h5ad(tmp_path / "cells.h5ad")
    found = []
    for size in (7, 64, 1000):
        monkeypatch.setattr(unique_names, "_SLICE", size)
        with Cells(tmp_path / "cells.h5ad") as opened:
            found.append(opened.texts_digest)
    assert len(set(found)) == 1


def test_names_that_hash_alike_and_differ_are_no_duplicates(monkeypatch):
    monkeypatch.setattr(unique_names, "_hashes", lambda names: np.zeros(len(names), dtype=np.uint64))
    names = np.array(["a", "b", "c"], dtype=object)
    unique_names.check_texts(3, lambda rows: names[rows])
    with pytest.raises(CellNameError, match="'a'"):
        unique_names.check_texts(3, lambda rows: np.array(["a", "b", "a"], dtype=object)[rows])


# -- where rows begin --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, 3, "it begins with 3, not with 0"),
        (100, 10**6, "it falls from 1000000 to"),
        (48, 0, "it falls from .* to 0 at 48"),
        (CELLS, 10**6, r"it points to .* to 1000000, and \d+ values are there"),
    ],
)
def test_rows_that_begin_elsewhere_are_told(cells, tmp_path, large, place, value, message):
    path = tmp_path / "cells.h5ad"
    cells[:CELLS].write_h5ad(path)
    with h5py.File(path, "r+") as file:
        file["X/indptr"][place] = value
    with Cells(path) as opened, pytest.raises(DataError, match=message):
        opened.values(slice(0, 5))


def test_a_worker_looks_at_the_rows_that_it_reads_alone(cells, tmp_path, large):
    path = tmp_path / "cells.h5ad"
    cells[:CELLS].write_h5ad(path)
    with h5py.File(path, "r+") as file:
        file["X/indptr"][100] = 10**6
    with Cells(path, checked=True) as opened:
        assert isinstance(opened._matrix.indptr, RowBegins)
        assert opened.values(slice(0, 5)).shape == (5, cells.n_vars)
        with pytest.raises(DataError, match="falls"):
            opened.values(slice(98, 102))


def test_a_collection_of_one_large_file_is_read_by_rows(tmp_path, large):
    anndata.AnnData(np.ones((20, 2), dtype=np.float32)).write_h5ad(tmp_path / "a.h5ad")
    with Collection({"a": tmp_path / "a.h5ad"}) as opened:
        assert opened.read_by_rows
