"""Columns of obs as codes and values, by kind."""

import numpy as np
import pandas as pd
import pytest

from causcell.concept_encoding import encode_column, number_column, set_column
from causcell.concept_reading import read_concept
from causcell.errors import ConceptError, UnknownLabelError


def encode(owner, values):
    return encode_column(pd.DataFrame({owner.name: values}), owner.name, owner.labels, owner.value)


def read(kind, values, **given):
    return read_concept(pd.DataFrame({"c": values}), "c", kind, **given)


@pytest.mark.parametrize(
    "column",
    [
        [1, 2, 3],
        [1.0, 2.0, 3.0],
        ["1", "2.0", "3"],
        pd.Categorical(["1", "2", "3"]),
        pd.Categorical([1, 2, 3]),
        pd.array([1, 2, 3], dtype="Int64"),
        pd.Series([1, "2", 3.0], dtype=object),
        np.array([1, 2, 3], dtype=np.float32),
    ],
    ids=["int", "float", "text", "categorical text", "categorical", "nullable", "objects", "float32"],
)
def test_numbers_read_the_same_however_they_are_stored(column):
    np.testing.assert_array_equal(number_column(pd.DataFrame({"c": column}), "c", "continuous"), [1, 2, 3])


@pytest.mark.parametrize(
    "column",
    [
        [1, np.nan],
        ["1", None],
        pd.Categorical(["1", None]),
        pd.array([1, None], dtype="Int64"),
        pd.array([1.0, None], dtype="Float64"),
    ],
)
def test_missing_numbers_are_nan(column):
    np.testing.assert_array_equal(number_column(pd.DataFrame({"c": column}), "c", "continuous"), [1, np.nan])


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (["1", "old"], ["'old'", "no numbers", "pandas.to_numeric", "c:labels"]),
        ([1.0, np.inf], ["infinite numbers (inf in 1 cells)", "NaN"]),
        ([True, False], ["'False', 'True'", "no numbers"]),
        (pd.to_datetime(["2020-01-01", "2020-01-02"]), ["no numbers"]),
    ],
)
def test_what_is_no_number_is_told(column, told):
    with pytest.raises(ConceptError) as error:
        number_column(pd.DataFrame({"c": column}), "c", "continuous")
    for part in told:
        assert part in str(error.value)


def test_number_beyond_all_bins_has_the_nearest_bins_code_and_its_own_value():
    owner = read("continuous", np.arange(16.0))
    codes, values = encode(owner, [-5, 0, 15, 99, np.nan])
    assert codes.tolist() == [0, 0, 7, 7, -1]
    np.testing.assert_allclose(owner.value.in_units(values)[:4, 0], [-5, 0, 15, 99], atol=1e-5)
    assert np.isnan(values[4, 0])


def test_ordinal_number_between_labels_has_a_value_and_no_label():
    codes, values = encode(read("ordinal", [10, 1, 100]), [1, 50, 100.0, np.nan])
    assert codes.tolist() == [0, -1, 2, -1]
    assert np.isnan(values).ravel().tolist() == [False, False, False, True]


def test_rank_without_cells_has_a_value_and_no_label():
    kind = pd.CategoricalDtype(["early", "mid", "late"], ordered=True)
    owner = read("ordinal", pd.Series(["early", "late"], dtype=kind))
    assert owner.labels == ("early", "late")
    codes, values = encode(owner, pd.Series(["mid", "late", None], dtype=kind))
    assert codes.tolist() == [-1, 1, -1]
    np.testing.assert_allclose(owner.value.in_units(values)[:, 0], [1, 2, np.nan], atol=1e-6)
    with pytest.raises(UnknownLabelError, match="'later' is no number"):
        encode(owner, ["later"])


def test_sets_are_the_same_in_any_order_and_as_lists():
    texts = set_column(pd.DataFrame({"c": ["B+A", "A + B", "ctrl", None]}), "c", "ctrl")
    assert texts.tolist() == ["A+B", "A+B", "ctrl", None]
    lists = pd.Series([["B", "A"], ("A", "B"), [], None, "A+B"], dtype=object)
    assert set_column(pd.DataFrame({"c": lists}), "c", "ctrl").tolist() == ["A+B", "A+B", "ctrl", None, "A+B"]


def test_set_never_seen_has_a_value_and_no_label():
    owner = read("set", ["A", "B", "ctrl"], control="ctrl")
    codes, values = encode(owner, ["B+A", "ctrl", None, "B"])
    assert codes.tolist() == [-1, 2, -1, 1]
    np.testing.assert_array_equal(values, [[1, 1], [0, 0], [np.nan] * 2, [0, 1]])
    with pytest.raises(UnknownLabelError, match="no member 'D'"):
        encode(owner, ["A+D"])
