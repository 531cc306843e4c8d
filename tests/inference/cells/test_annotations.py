"""Annotations of cells that travel: every kind of column, from memory and files, in slices, of one file or several."""

import anndata
import numpy as np
import pandas as pd
import pytest
from atlases import write_zarr

from causcell.cells.annotations import Kept, select_annotations
from causcell.cells.collection import open_cells
from causcell.cells.columns import Uncarried, find_form, join_forms
from causcell.errors import CausCellWarning, ConfigurationError, DataError

CELLS, GENES = 40, 6
DEFAULT = Kept()
OWN = {"own": ("draw",), "concepts": ("stim",), "places": ("X_causcell",)}


def all_kinds(count=CELLS, start=0):
    """A column of every kind that a file has a form for, with missing values where it has them."""
    row = np.arange(start, start + count)
    missing = row % 5 == 1
    return pd.DataFrame(
        {
            "sample": pd.Categorical(np.where(missing, None, "s" + pd.Series(row % 3).astype(str))),
            "stage": pd.Categorical(np.array(["late", "early"])[row % 2], ["early", "late"], ordered=True),
            "day": pd.Categorical(row % 4),
            "barcode": [f"é-{i}" for i in row],
            "note": pd.array(np.where(missing, None, "n" + pd.Series(row).astype(str)), dtype="string"),
            "count": pd.array(np.where(missing, None, row), dtype="Int32"),
            "doublet": pd.array(np.where(missing, None, row % 2 == 0), dtype="boolean"),
            "reads": row.astype(np.uint16),
            "score": np.where(missing, np.nan, row / 3).astype(np.float32),
            "kept": row % 2 == 0,
        },
        index=[f"cell{i}" for i in row],
    )


def adata_of(obs, **parts):
    return anndata.AnnData(np.ones((len(obs), GENES), dtype=np.float32), obs=obs, **parts)


def stored(adata, path):
    """A file of cells, text as text; a path of .h5ad or .zarr."""
    with anndata.settings.override(allow_write_nullable_strings=True):
        if path.suffix == ".zarr":
            write_zarr(adata, path)
        else:
            adata.write_h5ad(path, convert_strings_to_categoricals=False)
    return path


def select(source, genes=(), kept=DEFAULT, where=None, **options):
    with open_cells(source, where=where) as cells:
        return select_annotations(cells, genes, kept, **{**OWN, **options})


def read(source, rows=None, **options):
    """Columns of ``obs``, read two and three cells at a time."""
    where = options.pop("where", None)
    with open_cells(source, where=where) as cells:
        found = select_annotations(cells, [], options.pop("kept", Kept()), **{**OWN, **options})
        edges = range(0, len(cells), 3)
        pieces = [found.read(slice(start, min(start + 3, len(cells)))) for start in edges]
    obs = pd.concat([obs for obs, _ in pieces], ignore_index=True)
    return obs, {name: np.concatenate([obsm[name] for _, obsm in pieces]) for name in pieces[0][1]}


def assert_same(found, expected):
    """Values, types, labels and their order; text is text, whatever pandas calls it."""
    assert list(found) == list(expected)
    for name in expected:
        mine, its = found[name], expected[name].reset_index(drop=True)
        if isinstance(its.dtype, pd.StringDtype) or its.dtype == object:
            assert isinstance(mine.dtype, pd.StringDtype) == bool(its.isna().any())
            mine, its = mine.astype("string"), its.astype("string")
        pd.testing.assert_series_equal(mine, its, check_names=False, check_index_type=False, check_categorical=True)


@pytest.mark.parametrize("form", ["memory", "h5ad", "zarr", "lazy"])
@pytest.mark.parametrize("where", [None, "kept"])
@pytest.mark.filterwarnings("ignore::Warning:xarray", "ignore::FutureWarning:anndata")
def test_every_kind_of_column_arrives_as_it_is(tmp_path, form, where):
    adata = adata_of(all_kinds(), obsm={"spatial": np.arange(2 * CELLS, dtype=np.float64).reshape(-1, 2)})
    source = adata
    if form in ("h5ad", "zarr"):
        source = stored(adata, tmp_path / f"cells.{form}")
    elif form == "lazy":
        source = anndata.experimental.read_lazy(stored(adata, tmp_path / "cells.h5ad"))
    obs, obsm = read(source, where=where)
    obs = obs[list(adata.obs)] if form == "lazy" else obs  # which has columns in an order of its own
    wanted = slice(None) if where is None else adata.obs["kept"].to_numpy()
    assert_same(obs, adata.obs[wanted])
    np.testing.assert_array_equal(obsm["spatial"], adata.obsm["spatial"][wanted])


def test_few_cells_far_apart_are_read_window_by_window(monkeypatch, tmp_path):
    """Whole windows are read of more than a few cells, so that no library has to seek cell by cell."""
    monkeypatch.setattr("causcell.cells.annotations._FEW", 2)
    monkeypatch.setattr("causcell.cells.annotations._PIECE", 7)
    adata = adata_of(all_kinds(), obsm={"spatial": np.random.default_rng(0).random((CELLS, 3))})
    obs, obsm = read(stored(adata, tmp_path / "cells.h5ad"), where="kept")
    assert_same(obs, adata.obs[adata.obs["kept"].to_numpy()])
    np.testing.assert_array_equal(obsm["spatial"], adata.obsm["spatial"][::2])


# -- several files -----------------------------------------------------------------------------------------------------


def test_columns_of_several_files_are_their_union(tmp_path):
    """Labels in the order of the files; what a file lacks is missing, and whole numbers stay whole."""
    first, second = all_kinds(8), all_kinds(8, start=20)
    first["only"], first["batch"] = np.arange(8), pd.Categorical(["b2", "b1"] * 4, ["b2", "b1"])
    second["batch"] = pd.Categorical(["b3", "b1"] * 4, ["b3", "b1"])
    second["score"] = second["score"].astype(np.float64)
    first["flag"], second = first["kept"], second.drop(columns="barcode")
    files = {"a": stored(adata_of(first), tmp_path / "a.h5ad"), "b": stored(adata_of(second), tmp_path / "b.zarr")}
    obs, _ = read(files)
    assert obs["batch"].cat.categories.tolist() == ["b2", "b1", "b3"]
    assert obs["batch"].tolist() == [*first["batch"], *second["batch"]]
    assert obs["only"].dtype == pd.Int64Dtype()
    assert obs["only"].isna().tolist() == [False] * 8 + [True] * 8
    assert obs["flag"].dtype == pd.BooleanDtype()
    assert obs["score"].dtype == np.float64
    assert obs["barcode"].isna().sum() == 8
    assert obs["stage"].cat.ordered
    with open_cells(files) as cells:
        whole, _ = select_annotations(cells, [], Kept(), **OWN).read(slice(0, 16))
    pd.testing.assert_frame_equal(whole, obs)


def test_coordinates_that_a_file_lacks_are_missing():
    first, second = adata_of(all_kinds(4)), adata_of(all_kinds(4))
    first.obsm["spatial"] = np.arange(8).reshape(4, 2)
    _, obsm = read({"a": first, "b": second})
    assert obsm["spatial"].dtype == np.float64
    assert np.isnan(obsm["spatial"]).all(axis=1).tolist() == [False] * 4 + [True] * 4


def test_what_files_disagree_on_is_left_out_and_told():
    first, second = all_kinds(4), all_kinds(4)
    second["reads"] = "many"
    second["stage"] = pd.Categorical(second["stage"].astype(str), ["late", "early"], ordered=True)
    found = select({"a": adata_of(first), "b": adata_of(second)})
    assert "reads" not in found.obs
    assert not found.obs["stage"].ordered
    assert found.left_out == (
        "the order of the labels of obs['stage'], which differs between the files",
        "obs['reads'] holds numbers in 'a' and text in 'b'",
    )


@pytest.mark.parametrize(
    ("forms", "expected"),
    [
        (["int8", "float32"], "float32"),
        (["uint8", None], "UInt8"),
        (["float32", None], "float32"),
        (["bool", "boolean"], "boolean"),
        (["Int16", "float64"], "float64"),
    ],
)
def test_types_of_numbers_are_joined(forms, expected):
    types = [None if form is None else pd.api.types.pandas_dtype(form) for form in forms]
    assert join_forms(dict(zip("ab", types, strict=True))) == pd.api.types.pandas_dtype(expected)


def test_labels_and_text_become_text():
    labels = find_form(pd.Series(pd.Categorical(["x"])))
    assert join_forms({"a": labels, "b": np.dtype(object)}) == pd.StringDtype("python")
    assert isinstance(join_forms({"a": labels, "b": pd.CategoricalDtype([1, 2])}), Uncarried)
    empty = find_form(pd.Series(pd.Categorical([None])))
    assert join_forms({"a": labels, "b": empty}).categories.tolist() == ["x"]


# -- what does not travel ----------------------------------------------------------------------------------------------

STRANGE = {
    "dates": pd.date_range("2026", periods=CELLS),
    "mixed": [1, "one"] * (CELLS // 2),
    "lists": [[1]] * CELLS,
    "complex": np.arange(CELLS) * 1j,
    "bins": pd.cut(np.arange(CELLS), 3),
    "draw": np.arange(CELLS),
    "a/b": np.arange(CELLS),
    "__c": np.arange(CELLS),
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_column_that_cant_travel_is_left_out_by_name_and_refused_if_it_is_chosen(name):
    obs = all_kinds().assign(**{name: STRANGE[name]})
    found = select(adata_of(obs))
    (told,) = found.left_out
    assert told.startswith(f"obs[{name!r}] ")
    assert list(found.obs) == list(all_kinds())
    with pytest.warns(CausCellWarning, match="the result does not have all annotations of the cells"):
        found.warn_of_left_out()
    with pytest.raises(ConfigurationError, match="leave it out or rename it"):
        select(adata_of(obs), kept=Kept(obs=[name]))


@pytest.mark.parametrize(
    "value", [np.ones(CELLS), np.full((CELLS, 2), "a"), pd.DataFrame({"x": ["a"] * CELLS}, index=all_kinds().index)]
)
def test_coordinates_that_are_no_table_of_numbers_are_left_out(value):
    adata = adata_of(all_kinds())
    adata.obsm["spatial"] = value if value.ndim == 2 else value[:, None].astype(complex)
    found = select(adata)
    assert not found.obsm
    assert found.left_out == ("obsm['spatial'] is no table of numbers with a row for each cell",)
    with pytest.raises(ConfigurationError, match="is no table of numbers"):
        select(adata, kept=Kept(obsm="spatial"))


def test_concepts_travel_under_the_results_names_alone():
    obs = all_kinds().assign(stim="ctrl")
    assert "stim" not in select(adata_of(obs)).obs
    assert list(select(adata_of(obs), kept=Kept(obs=["stim", "reads"])).obs) == ["reads"]


def test_what_is_chosen_travels_alone():
    adata = adata_of(all_kinds(), obsm={"spatial": np.ones((CELLS, 2)), "X_umap": np.ones((CELLS, 2))})
    assert list(select(adata, kept=Kept("reads")).obs) == ["reads"]
    assert list(select(adata, kept=Kept(["score", "reads", "score"])).obs) == ["score", "reads"]
    assert not select(adata, kept=Kept("none")).obs
    assert not select(adata, kept=Kept(["none"], ["none"])).obsm
    assert list(select(adata).obsm) == ["spatial"]
    assert list(select(adata, kept=Kept(obsm=["X_umap"])).obsm) == ["X_umap"]
    named = adata_of(all_kinds().assign(none=1))
    assert list(select(named, kept=Kept(["none"])).obs) == ["none"]


def test_a_name_that_is_not_there_is_refused_by_the_nearest():
    adata = adata_of(all_kinds(), obsm={"X_umap": np.ones((CELLS, 2))})
    with pytest.raises(ConfigurationError, match=r"keep_obs= names 'Sample'.*did you mean 'sample'"):
        select(adata, kept=Kept(obs=["Sample"]))
    with pytest.raises(ConfigurationError, match="keep_obsm= names 'spatial', which is not there"):
        select(adata, kept=Kept(obsm=["spatial"]))
    adata.obsm["X_causcell"] = np.ones((CELLS, 2))
    with pytest.raises(ConfigurationError, match="element of the result's own"):
        select(adata, kept=Kept(obsm=["X_causcell"]))


def test_a_damaged_column_is_refused_by_name(tmp_path):
    import h5py

    path = stored(adata_of(all_kinds()), tmp_path / "cells.h5ad")
    with h5py.File(path, "r+") as file:
        del file["obs/reads"]
        file["obs/reads"] = np.arange(CELLS - 1)
        file["obs/reads"].attrs["encoding-type"] = "array"
    with pytest.raises(DataError, match="obs/reads"):
        select(path)


# -- genes -------------------------------------------------------------------------------------------------------------


def genes_of(names, **columns):
    return pd.DataFrame(columns, index=names)


def test_columns_of_var_are_those_of_the_panels_genes(tmp_path):
    names = [f"g{i}" for i in range(GENES)]
    columns = {"symbol": [f"S{i}" for i in range(GENES)], "length": np.arange(GENES), "hvg": np.arange(GENES) > 2}
    adata = adata_of(all_kinds(), var=genes_of(names, **columns, kind=pd.Categorical(["a", "b"] * 3), filled=1))
    for source in (adata, stored(adata, tmp_path / "cells.h5ad"), stored(adata, tmp_path / "cells.zarr")):
        found = select(source, ["g4", "g1"])
        assert found.var.index.tolist() == ["g4", "g1"]
        assert found.var["symbol"].tolist() == ["S4", "S1"]
        assert found.var.dtypes.astype(str).tolist() == ["object", "int64", "bool", "category"]
        assert found.left_out == ("var['filled'] is a column of the result's own",)
        some = select(source, ["g4", "absent"]).var
        assert some.dtypes.astype(str).tolist() == ["string", "Int64", "boolean", "category"]
        assert some.loc["absent"].isna().all()


def test_files_have_to_agree_on_genes():
    first = adata_of(all_kinds(4), var=genes_of([f"g{i}" for i in range(GENES)], symbol="s", means=np.arange(GENES)))
    second = adata_of(all_kinds(4), var=genes_of([f"g{i + 1}" for i in range(GENES)], symbol="s", means=1.5))
    found = select({"a": first, "b": second}, ["g0", "g3", "g6"])
    assert found.var["symbol"].tolist() == ["s"] * 3
    assert "means" not in found.var
    assert found.left_out[-1] == "var['means'] differs between the files for 1 of the panel's genes"
