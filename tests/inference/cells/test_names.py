"""Names of cells and genes are text and differ; anything else is told with its remedy, which works."""

import anndata
import numpy as np
import pandas as pd
import pytest

from causcell.cells.collection import Cells, Collection
from causcell.errors import CellNameError, ConfigurationError, DataError, GenePanelError

CELLS, GENES = 6, 4


@pytest.fixture
def adata():
    return anndata.AnnData(
        np.ones((CELLS, GENES), dtype=np.float32),
        obs=pd.DataFrame({"stim": ["a", "b"] * 3}, index=[f"c{i}" for i in range(CELLS)]),
        var=pd.DataFrame(index=[f"g{i}" for i in range(GENES)]),
    )


KINDS = {
    "whole numbers": (lambda n: range(n), r"are text, and 0 at row 0 is int.*\.astype\(str\)"),
    "numbers": (lambda n: np.arange(n) + 0.5, r"are text, and 0\.5 at row 0 is float.*\.astype\(str\)"),
    "a missing one": (lambda n: ["x", np.nan, *map(str, range(n - 2))], "are missing, first at row 1"),
    "None": (lambda n: ["x", None, *map(str, range(n - 2))], "are missing, first at row 1"),
    "NA": (lambda n: pd.array(["x", pd.NA, *map(str, range(n - 2))], dtype="string"), "are missing, first at row 1"),
    "bytes": (lambda n: [b"%d" % i for i in range(n)], r"b'0' at row 0 is bytes.*name\.decode\(\) for name"),
    "times": (lambda n: pd.date_range("2026-01-01", periods=n), r"is Timestamp.*\.astype\(str\)"),
    "one number": (lambda n: [*map(str, range(n - 1)), 7], r"are text, and 7 at row"),
    "levels": (lambda n: pd.MultiIndex.from_product([["s"], range(n)]), r"have 2 levels.*'_'\.join"),
}


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize(("axis", "error"), [("obs", CellNameError), ("var", GenePanelError)])
def test_names_that_are_no_text_are_refused(adata, kind, axis, error):
    make, message = KINDS[kind]
    getattr(adata, axis).index = make(CELLS if axis == "obs" else GENES)
    with pytest.raises(error, match=message) as caught:
        Cells(adata)
    assert f"adata.{axis}_names = " in str(caught.value)


@pytest.mark.parametrize("kind", ["whole numbers", "numbers", "bytes", "levels", "times"])
@pytest.mark.parametrize("axis", ["obs", "var"])
def test_the_remedy_of_a_message_works(adata, kind, axis):
    getattr(adata, axis).index = KINDS[kind][0](CELLS if axis == "obs" else GENES)
    with pytest.raises(DataError) as caught:
        Cells(adata)
    remedy = str(caught.value).partition(f"adata.{axis}_names = ")[2].removesuffix(")" if kind == "levels" else "")
    names = eval(remedy, {"adata": adata, "map": map, "str": str})
    getattr(adata, axis).index = pd.Index(names)
    with Cells(adata) as cells:
        assert all(isinstance(name, str) for name in [*cells.names, *cells.genes])


@pytest.mark.parametrize("dtype", ["object", "string", pd.StringDtype("python", na_value=np.nan), "category"])
def test_names_of_every_type_of_text_are_the_same(adata, dtype):
    expected = adata.obs_names.tolist()
    adata.obs.index = pd.Index(expected, dtype=dtype)
    adata.var.index = pd.Index(adata.var_names.tolist(), dtype=dtype)
    with Cells(adata) as cells:
        assert cells.names.tolist() == expected
        assert {type(name) for name in [*cells.names, *cells.genes]} == {str}


def test_columns_of_one_name_are_refused(adata):
    adata.obs = pd.DataFrame(np.zeros((CELLS, 3)), index=adata.obs_names, columns=["a", "b", "a"])
    with pytest.raises(DataError, match=r"more than one column named 'a'.*rename or drop one") as caught:
        Cells(adata)
    assert "adata.obs.loc[:, ~adata.obs.columns.duplicated()]" in str(caught.value)


def test_columns_whose_names_are_no_text_are_refused(adata):
    adata.obs = pd.DataFrame(np.zeros((CELLS, 2)), index=adata.obs_names)
    with pytest.raises(DataError, match=r"names of columns of obs are text, and 0 is int.*columns\.astype\(str\)"):
        Cells(adata)


# -- what is no AnnData ------------------------------------------------------------------------------------------------


def with_raw(adata):
    adata.raw = adata.copy()
    return adata.raw


class MuData:
    """As mudata's, by name."""


NO_CELLS = {
    "frame": (lambda adata: adata.to_df(), r"given as pandas\.DataFrame, and an AnnData.*anndata\.AnnData\(frame\)"),
    "array": (lambda adata: adata.X, r"given as numpy\.ndarray.*anndata\.AnnData\(array"),
    "list": (lambda adata: [adata, adata], r"given as list.*by key: \{'a': \.\.\., 'b': \.\.\.\}"),
    "nothing": (lambda adata: None, r"given as NoneType.*returns None"),
    "number": (lambda adata: 7, r"given as int, and an AnnData or a path to \.h5ad or \.zarr is wanted"),
    "mapping": (lambda adata: {"a": adata}, r"given as dict.*joined first \(anndata\.concat\)"),
    "modalities": (lambda adata: MuData(), r"MuData.*one modality, such as mdata\['rna'\]"),
    "raw": (with_raw, r"given as anndata\.Raw.*adata\.raw\.to_adata\(\)"),
}


@pytest.mark.parametrize("kind", sorted(NO_CELLS))
def test_what_is_no_anndata_is_named(adata, kind):
    make, message = NO_CELLS[kind]
    with pytest.raises(DataError, match=message):
        Cells(make(adata))
    with pytest.raises(DataError, match=message) as caught:
        Collection({"a": adata, "b": make(adata)})
    assert caught.value.__notes__ == ["in file 'b'"]


@pytest.mark.parametrize("key", [7, None, ("a", "b")])
def test_keys_of_files_are_text(adata, key):
    with pytest.raises(ConfigurationError, match="can't be keys of files"):
        Collection({key: adata})
