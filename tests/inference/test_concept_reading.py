"""Concepts of each kind from columns of obs."""

import numpy as np
import pandas as pd
import pytest

from causcell.concept_columns import schema_from_obs
from causcell.concept_reading import MOST_BINS, LabelFeatures, read_concept, read_label_features, split_kind
from causcell.errors import ConceptError, UnknownConceptError


def read(kind, values, **given):
    return read_concept(pd.DataFrame({"c": values}), "c", kind, **given)


def test_kind_stands_behind_the_name():
    schema = schema_from_obs(
        pd.DataFrame({"age": [1.5, 2.5, 9.0], "pert": ["A", "A+B", "ctrl"], "stim": ["y", "x", "y"]}),
        ["age:continuous", "pert:set", "stim"],
        [("age", "stim")],
        controls={"pert": "ctrl"},
    )
    assert [(each.name, each.kind) for each in schema.concepts] == [
        ("age", "continuous"),
        ("pert", "set"),
        ("stim", "categorical"),
    ]
    assert schema["pert"].labels == ("A", "A+B", "ctrl")
    with pytest.raises(ConceptError, match="'age:continous' names no kind; did you mean 'continuous'"):
        split_kind("age:continous")
    with pytest.raises(ConceptError, match="named twice"):
        schema_from_obs(pd.DataFrame({"age": [1, 2]}), ["age", "age:ordinal"])
    with pytest.raises(UnknownConceptError, match=r"control label .* for 'pert2'.*did you mean 'pert'"):
        schema_from_obs(pd.DataFrame({"pert": ["A", "B"]}), ["pert:set"], controls={"pert2": "A"})
    with pytest.raises(UnknownConceptError, match=r"label features .* for 'drug'"):
        schema_from_obs(pd.DataFrame({"pert": ["A", "B"]}), ["pert"], features={"drug": LabelFeatures((), {}, "f")})


def test_without_a_kind_labels_are_as_ever():
    ordered = pd.Categorical(["b", "a"], categories=["b", "a"], ordered=True)
    assert read(None, ordered).kind == "ordinal"
    assert read(None, ordered).value is None
    assert read("labels", ordered).kind == "categorical"
    assert read("labels", ordered).labels == ("b", "a")


@pytest.mark.parametrize("skew", [1, 3])
def test_bins_hold_about_as_many_cells_each(skew):
    numbers = 100 * np.random.default_rng(0).random(4000) ** skew
    owner = read("continuous", numbers)
    assert len(owner.labels) == MOST_BINS
    cells = np.bincount(np.searchsorted(owner.value.bounds, numbers, side="right"))
    assert cells.min() > 400
    assert owner.labels[0].startswith("[")
    assert owner.labels[0].endswith(")")
    assert owner.labels[-1].endswith("]")
    assert owner.value.low == numbers.min()
    assert owner.value.high == numbers.max()


@pytest.mark.parametrize(
    ("numbers", "labels"),
    [
        ([0, 1], ("[0, 1)", "[1, 1]")),
        ([0] * 99 + [5], ("[0, 5)", "[5, 5]")),
        ([5] * 99 + [0], ("[0, 5)", "[5, 5]")),
        ([20, 30, 60] * 5, ("[20, 30)", "[30, 60)", "[60, 60]")),
        ([1e-9, 2e-9, 3e-9], None),
        ([-1e12, 1e12, 3e12], None),
    ],
)
def test_bins_of_few_distinct_numbers_are_none_of_them_empty(numbers, labels):
    owner = read("continuous", np.array(numbers, dtype=float))
    codes = np.searchsorted(owner.value.bounds, numbers, side="right")
    assert set(codes) == set(range(len(owner.labels)))
    assert labels in (None, owner.labels)


@pytest.mark.parametrize("kind", ["continuous", "ordinal"])
@pytest.mark.parametrize(("column", "told"), [([3.0, 3.0], "one, 3"), ([np.nan, np.nan], "none")])
def test_one_distinct_number_is_too_few(kind, column, told):
    with pytest.raises(ConceptError, match=f"too few distinct numbers.*{told}"):
        read(kind, column)


def test_training_rows_say_what_numbers_and_sets_there_are():
    obs = pd.DataFrame({"age": [1.0, 2.0, 3.0, 50.0], "pert": ["A", "B", "ctrl", "A+B"], "dose": [1, 10, 1, 5]})
    rows = np.array([0, 1, 2])
    schema = schema_from_obs(obs, ["age:continuous", "pert:set", "dose:ordinal"], rows=rows, controls={"pert": "ctrl"})
    assert schema["age"].value.high == 3
    assert schema["age"].value.mean == (2.0,)
    assert schema["pert"].labels == ("A", "B", "ctrl")
    assert schema["dose"].labels == ("1", "10")
    assert schema.encode(obs)[3].tolist() == [len(schema["age"].labels) - 1, -1, -1]


def test_ordinal_labels_are_ranks_where_they_are_no_numbers():
    owner = read("ordinal", pd.Categorical(["s", "l"], categories=["s", "m", "l"], ordered=True))
    assert owner.value.ranks == ("s", "m", "l")
    assert owner.value.numbers == (0.0, 2.0)
    numbers = read("ordinal", pd.Categorical(["8", "2"], categories=["2", "8"], ordered=True))
    assert numbers.value.ranks == ()
    assert numbers.value.numbers == (2.0, 8.0)
    falling = read("ordinal", pd.Categorical(["8", "2"], categories=["8", "2"], ordered=True))
    assert falling.value.ranks == ("8", "2")


@pytest.mark.parametrize(
    ("kind", "column", "given", "told"),
    [
        ("ordinal", ["s", "m"], {}, "'m', 's', which are no numbers.*ordered categorical"),
        ("ordinal", ["1", "1.0", "2"], {}, "one number in two ways"),
        ("continuous", ["s", "m"], {}, "no numbers.*c:ordinal or c:labels"),
        ("set", ["A", "A+", "B"], {}, "'A\\+' .*members joined by"),
        ("set", ["A", "B"], {"control": "ctrl"}, "no cell to train on carries 'ctrl'"),
        ("set", ["A", "A"], {}, "at least two"),
        ("continuous", [1, 2], {"control": "1"}, "takes no control label"),
        (None, ["a", "b"], {"control": "a"}, "takes no control label"),
        ("continuous", [1, 2], {"features": LabelFeatures(("f",), {"1": (1.0,)}, "t")}, "takes no label features"),
        ("labels", ["a", "b"], {"features": LabelFeatures(("f",), {"a": (1.0,)}, "t")}, "no row of 'b'"),
        (
            "labels",
            ["a", "b"],
            {"features": LabelFeatures(("f",), {"a": (1.0,), "b": (1.0,)}, "t")},
            "the same numbers",
        ),
    ],
)
def test_column_of_another_kind_is_refused(kind, column, given, told):
    with pytest.raises(ConceptError, match=told):
        read(kind, column, **given)


def test_features_are_standardised_over_trained_labels():
    rows = {"b": (3.0, 7.0), "NEW": (100.0, 7.0), "a": (1.0, 7.0)}
    owner = read("labels", ["a", "b", "a"], features=LabelFeatures(("f", "constant"), rows, "t"))
    assert owner.value.known == ("a", "b", "NEW")
    np.testing.assert_array_equal(owner.values, [[-1, 0], [1, 0]])
    np.testing.assert_array_equal(owner.parse_value("NEW"), [98, 0])


def test_features_of_a_label_that_is_a_number_are_found_however_it_is_written():
    owner = read("labels", [1, 2], features=LabelFeatures(("f",), {"1.0": (1.0,), "2": (3.0,)}, "t"))
    assert owner.labels == ("1", "2")
    assert owner.value.known == ("1", "2")


def test_table_of_features_is_read(tmp_path):
    file = tmp_path / "drugs.csv"
    file.write_text("drug,size,charge\nx,1,0.5\n\ny,-2e3,4\n")
    table = read_label_features(file)
    assert table.names == ("size", "charge")
    assert table.rows == {"x": (1.0, 0.5), "y": (-2000.0, 4.0)}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no table"),
        ("drug\nx\n", "no table"),
        ("drug,size\n", "no table"),
        ("drug,size\nx,1,2\n", "row of 'x' has 2 numbers"),
        ("drug,size\nx,big\n", "'big' for 'size' of 'x'"),
        ("drug,size\nx,nan\n", "finite"),
        ("drug,size\nx,1\nx,2\n", "two rows of 'x'"),
        ("drug,size,size\nx,1,2\n", "names a feature twice"),
    ],
)
def test_table_that_is_none_is_refused(tmp_path, text, told):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ConceptError, match=told):
        read_label_features(tmp_path / "t.csv")


def test_missing_table_is_told(tmp_path):
    with pytest.raises(ConceptError, match="can't be read"):
        read_label_features(tmp_path / "none.csv")
