"""Values of concepts: what people write, its vector, the way back, and what is beyond the cells trained on."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causcell.concept_reading import LabelFeatures, read_concept
from causcell.concept_values import ConceptValue
from causcell.concepts import UNLABELLED, Concept, ConceptSchema
from causcell.errors import ConceptError, UnknownLabelError

AGES = [20.0, 20.0, 25.0, 30.0, 42.5, 60.0, 60.0, 61.0, np.nan]
TABLE = LabelFeatures(("size", "charge"), {"x": (1.0, 0.0), "y": (2.0, -1.0), "NEW": (1.5, 4.0)}, "drugs.csv")


def concept(kind, values, **given):
    return read_concept(pd.DataFrame({"concept": values}), "concept", kind, **given)


AGE = concept("continuous", AGES)
DOSE = concept("ordinal", [0, 1, 10, 10])
STAGE = concept("ordinal", pd.Categorical(["E9", "E11"], categories=["E9", "E10", "E11"], ordered=True))
PAIR = concept("set", ["ctrl", "A", "B+A", "C"], control="ctrl")
DRUG = concept("labels", ["x", "y", "x"], features=TABLE)
PLAIN = concept(None, ["u", "v", "w"])


@pytest.mark.parametrize(
    ("owner", "given", "text"),
    [
        (AGE, 30, "30"),
        (AGE, "12.5", "12.5"),
        (AGE, np.float32(0.1), "0.1"),
        (AGE, -3.25, "-3.25"),
        (AGE, "1e3", "1000"),
        (AGE, 0, "0"),
        (DOSE, 0, "0"),
        (DOSE, "1.0", "1"),
        (DOSE, 0.5, "0.5"),
        (STAGE, "E11", "E11"),
        (STAGE, "E10", "E10"),
        (STAGE, 1, "E10"),
        (STAGE, 0.5, "0.5"),
        (PAIR, "A+B", "A+B"),
        (PAIR, " C + A ", "A+C"),
        (PAIR, ["B", "A"], "A+B"),
        (PAIR, "A+A", "A"),
        (PAIR, "ctrl", "ctrl"),
        (PAIR, [], "ctrl"),
        (DRUG, "x", "x"),
        (DRUG, "NEW", "NEW"),
        (PLAIN, "v", "v"),
    ],
)
def test_value_has_one_canonical_text(owner, given, text):
    value = owner.parse_value(given)
    assert value.dtype == np.float32
    assert owner.describe_value(value) == text
    np.testing.assert_array_equal(owner.parse_value(text), value)


@settings(deadline=None, max_examples=200)
@given(st.floats(-1e6, 1e6, allow_subnormal=False))
def test_text_of_any_number_means_the_same_value(number):
    value = AGE.parse_value(float(np.float32(number)))
    np.testing.assert_array_equal(AGE.parse_value(AGE.describe_value(value)), value)


@pytest.mark.parametrize("owner", [AGE, DOSE, STAGE, PAIR, DRUG, PLAIN])
def test_every_label_has_the_value_that_it_is_parsed_to(owner):
    assert owner.values.dtype == np.float32
    for label, value in zip(owner.labels, owner.values, strict=True):
        np.testing.assert_array_equal(owner.parse_value(label), value)
        assert not owner.extrapolates(value)


@pytest.mark.parametrize(
    ("owner", "given", "beyond"),
    [
        (AGE, 20, False),
        (AGE, 61, False),
        (AGE, 33, False),
        (AGE, 61.1, True),
        (AGE, 19.9, True),
        (DOSE, 5, False),
        (DOSE, 11, True),
        (STAGE, "E10", False),
        (PAIR, "A+B", False),
        (PAIR, "B", True),
        (PAIR, "A+C", True),
        (DRUG, "y", False),
        (DRUG, "NEW", True),
        (PLAIN, "u", False),
    ],
)
def test_values_beyond_the_trained_cells_are_known(owner, given, beyond):
    assert owner.extrapolates(owner.parse_value(given)) is beyond


@pytest.mark.parametrize(
    ("owner", "given", "told"),
    [
        (AGE, "old", ["'concept' is continuous", "'old' is no number", "20 to 61"]),
        (AGE, float("inf"), ["'inf' is no number"]),
        (AGE, True, ["'True' is no number"]),
        (STAGE, "E12", ["ordinal", "'E9', 'E10', 'E11'"]),
        (PAIR, "A+D", ["no member 'D'", "'A', 'B', 'C'"]),
        (PAIR, "A+", ["is a set", "'A+'", "'ctrl' is the set without members"]),
        (PAIR, ["A", "ctrl+B"], ["is a set"]),
        (DRUG, "z", ["no label 'z'"]),
        (PLAIN, "z", ["no label 'z'"]),
    ],
)
def test_what_is_no_value_is_refused(owner, given, told):
    with pytest.raises(UnknownLabelError) as error:
        owner.parse_value(given)
    for part in told:
        assert part in str(error.value)


def test_set_without_declared_control_has_no_empty_value():
    owner = concept("set", ["A", "B", "A+B"])
    assert owner.value.members == ("A", "B")
    with pytest.raises(UnknownLabelError, match="is a set"):
        owner.parse_value([])


def test_values_are_standardised_and_in_units_again():
    numbers = np.array([value for value in AGES if not np.isnan(value)])
    standardised = AGE.value.standardise(numbers[:, None])
    assert abs(standardised.mean()) < 1e-6
    assert standardised.std() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(AGE.value.in_units(standardised)[:, 0], numbers, rtol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "set", "width": 2, "members": ("A",)},
        {"kind": "set", "width": 0},
        {"kind": "set", "width": 2, "members": ("A", "A")},
        {"kind": "continuous", "width": 1, "mean": (0.0,), "deviation": (0.0,), "low": 0.0, "high": 1.0},
        {"kind": "continuous", "width": 1, "mean": (0.0,), "deviation": (1.0,), "low": 1.0, "high": 1.0},
        {"kind": "continuous", "width": 1, "mean": (float("nan"),), "deviation": (1.0,), "low": 0.0, "high": 1.0},
        {"kind": "ordinal", "width": 2, "mean": (0.0, 0.0), "deviation": (1.0, 1.0), "low": 0.0, "high": 1.0},
        {"kind": "features", "width": 1, "mean": (0.0,), "deviation": (1.0,), "feature_names": ("f",), "known": ("a",)},
    ],
)
def test_description_that_contradicts_itself_is_refused(wrong):
    with pytest.raises(ConceptError):
        ConceptValue(**wrong)


def test_values_of_other_labels_are_refused():
    for owner in (AGE, DOSE, PAIR, DRUG):
        with pytest.raises(ConceptError):
            Concept("concept", (*owner.labels[:-1], "strange", "stranger"), owner.kind, owner.value)
    for kind in ("continuous", "set"):
        with pytest.raises(ConceptError, match="needs values of its kind"):
            Concept("concept", ("a", "b"), kind)
    with pytest.raises(ConceptError, match="needs values of its kind"):
        Concept("concept", DOSE.labels, "categorical", DOSE.value)


def test_columns_of_values_lie_side_by_side():
    named = [Concept(f"c{i}", each.labels, each.kind, each.value) for i, each in enumerate((AGE, PLAIN, PAIR, DRUG))]
    schema = ConceptSchema(tuple(named))
    assert schema.has_values
    assert [(each.start, each.stop) for each in schema.value_slices] == [(0, 1), (1, 4), (4, 7), (7, 9)]
    obs = pd.DataFrame({"c0": [30, np.nan], "c1": ["w", "u"], "c2": ["B", None], "c3": ["NEW", "y"]})
    codes, values = schema.encode_values(obs)
    assert codes.dtype == np.int32
    assert values.dtype == np.float32
    assert codes[:, 1:].tolist() == [[2, UNLABELLED, UNLABELLED], [0, UNLABELLED, 1]]
    np.testing.assert_array_equal(
        values[0], np.concatenate([AGE.parse_value(30), [0, 0, 1, 0, 1, 0], DRUG.parse_value("NEW")])
    )
    assert np.isnan(values[1]).tolist() == [True, False, False, False, True, True, True, False, False]
    np.testing.assert_array_equal(schema.encode(obs), codes)


def test_plain_schema_has_no_values_but_one_hot_ones():
    schema = ConceptSchema((PLAIN,))
    assert not schema.has_values
    codes, values = schema.encode_values(pd.DataFrame({"concept": ["v", None]}))
    assert codes.tolist() == [[1], [-1]]
    np.testing.assert_array_equal(values, [[0, 1, 0], [np.nan] * 3])
    assert schema.encode_values(pd.DataFrame({"other": [1]}))[0].tolist() == [[UNLABELLED]]
