"""What interventions give as values: numbers, sets, ranges, and what is refused."""

import numpy as np
import pytest
from valued_model import SCHEMA

from causcell.concepts import EXTRAPOLATED, Concept, ConceptSchema
from causcell.counterfactual.interventions import Intervention, parse_do, parse_intervention, plan_interventions
from causcell.counterfactual.label_columns import label_columns, shortest_numbers
from causcell.counterfactual.targets import UNSEEN, describe_concept, find_code
from causcell.errors import ConceptError, InterventionError, UnknownLabelError

AGE, PERTURBATION, STAGE = 1, 2, 3


def names(grid, do=None, **options):
    return [each.name for each in plan_interventions(SCHEMA, do, grid, **options)]


@pytest.mark.parametrize("given", [30, 30.0, "30", "30.0", np.float32(30), np.int64(30)])
def test_a_number_is_one_value_however_it_is_written(given):
    assert Intervention.of(SCHEMA, {"age": given}) == Intervention(((AGE, 1),), "age=30", ((AGE, "30"),))


def test_a_number_on_a_bound_is_in_the_upper_bin():
    assert [find_code(SCHEMA["age"], age) for age in (5, 29.999, 30, 40, 99)] == [0, 0, 1, 2, 2]


def test_a_bin_is_a_label():
    assert Intervention.of(SCHEMA, parse_do(["age=[20, 30)"])) == Intervention(((AGE, 0),), "age=[20, 30)")


@pytest.mark.parametrize("given", ["A+B", "B+A", " B + A", ["B", "A"], ("A", "B")])
def test_a_set_is_one_value_whatever_the_order(given):
    assert Intervention.of(SCHEMA, {"perturbation": given}) == Intervention(((PERTURBATION, 1),), "perturbation=A+B")


@pytest.mark.parametrize("given", ["ctrl", []])
def test_the_empty_set_is_the_control(given):
    assert Intervention.of(SCHEMA, {"perturbation": given}).name == "perturbation=ctrl"


def test_a_set_never_seen_is_a_value():
    found = Intervention.of(SCHEMA, {"perturbation": "C+B"})
    assert found == Intervention(((PERTURBATION, UNSEEN),), "perturbation=B+C", ((PERTURBATION, "B+C"),))
    assert found.extrapolates(SCHEMA)


def test_an_ordinal_number_between_labels_is_a_value_and_a_label_is_a_label():
    assert Intervention.of(SCHEMA, {"stage": 1.5}).targets == ((STAGE, UNSEEN),)
    assert Intervention.of(SCHEMA, {"stage": 2.0}) == Intervention(((STAGE, 1),), "stage=2")


@pytest.mark.parametrize("name", ["age=35.5", "perturbation=A+C", "stage=1;age=33", "age=[40, 60];perturbation=A+B"])
def test_the_name_of_an_intervention_says_what_it_is(name):
    found = parse_intervention(SCHEMA, name)
    assert parse_intervention(SCHEMA, found.name) == found
    assert Intervention.of(SCHEMA, found.texts(SCHEMA)) == found


def test_the_prior_may_be_asked_for():
    planned = plan_interventions(SCHEMA, {"perturbation": "A", "stim": "IFN"}, target="prior")
    assert planned[0].values == ((0, "IFN"), (PERTURBATION, "A"))
    assert not planned[0].extrapolates(SCHEMA)


# -- ranges ------------------------------------------------------------------------------------------------------------


def test_a_range_has_its_stop_where_it_falls_on_the_grid():
    assert names(["age=20:60:20"]) == ["age=20", "age=40", "age=60"]
    assert names(["age=20:50:20"]) == ["age=20", "age=40"]
    assert names(["age=0.1:0.3:0.1"]) == ["age=0.1", "age=0.2", "age=0.3"]


def test_a_range_is_from_the_prior_at_labels_too():
    """Or a course would have a step where a label is."""
    assert [each.values for each in plan_interventions(SCHEMA, grid=["stage=0:2:1"])] == [
        ((STAGE, "0"),),
        ((STAGE, "1"),),
        ((STAGE, "2"),),
    ]
    assert [each.values for each in plan_interventions(SCHEMA, grid=["stage"])] == [()] * 3


def test_a_grid_of_a_continuous_concept_takes_medians_of_bins():
    assert names(["age"]) == ["age=20", "age=30", "age=50"]


def test_ranges_multiply():
    assert names(["age=20:30:10", "stim"]) == [f"stim={stim};age={age}" for age in (20, 30) for stim in ("IFN", "ctrl")]


@pytest.mark.parametrize(
    "text", ["age=1:2", "age=1:2:0", "age=1:2:-1", "age=a:b:c", "age=", "age=0:nan:1", "age=0:1:1e-9", "age=0:inf:1"]
)
def test_a_range_that_is_none(text):
    with pytest.raises(InterventionError, match=r"grid='age=.*' is no range: give NAME=START:STOP:STEP"):
        plan_interventions(SCHEMA, grid=[text])


@pytest.mark.parametrize("concept", ["stim", "perturbation"])
def test_a_range_of_labels(concept):
    with pytest.raises(InterventionError, match=rf"{concept!r} has labels without numbers.*\(grid={concept!r}\)"):
        plan_interventions(SCHEMA, grid=[f"{concept}=0:1:1"])


def test_a_range_and_a_value_of_one_concept():
    with pytest.raises(InterventionError, match="'age' is named twice by do= and grid="):
        plan_interventions(SCHEMA, {"age": 3}, ["age=0:1:1"])


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("do", "told"),
    [
        ({"age": "old"}, "'age' is continuous, and 'old' is no number"),
        ({"age": None}, "'None' is no number"),
        ({"age": float("inf")}, "'inf' is no number"),
        ({"perturbation": "A+X"}, "'perturbation' has no member 'X'.*members are 'A', 'B', 'C'"),
        ({"perturbation": "A+"}, "is a set, and 'A\\+' is none"),
        ({"stage": "late"}, "'late' is no number"),
    ],
)
def test_what_is_no_value(do, told):
    with pytest.raises(UnknownLabelError, match=told):
        plan_interventions(SCHEMA, do)


def test_two_writings_of_one_value_are_one_intervention():
    with pytest.raises(InterventionError, match="given twice: 'age=30'"):
        plan_interventions(SCHEMA, [{"age": 30}, {"age": "30.0"}])


def test_do_that_contradicts_itself():
    with pytest.raises(ConceptError, match="do= sets 'age' to '30' and to '31'"):
        parse_do(["age=30", "age=31"])


# -- columns and texts -------------------------------------------------------------------------------------------------


def test_numbers_come_back_as_they_were():
    value = SCHEMA["age"].value
    numbers = np.array([12.3, 0.1, 30, -7.25, 1e-3, 123456, np.nan, 1 / 3])
    back = shortest_numbers(value.standardise(numbers[:, None])[:, 0], value)
    np.testing.assert_array_equal(back[:7], numbers[:7])
    assert back[7] == pytest.approx(1 / 3, rel=1e-5)


@pytest.mark.parametrize("concept", range(4))
def test_columns_are_read_back(concept):
    """As an atlas of embeddings is, to make expression of it."""
    interventions = plan_interventions(SCHEMA, [{"perturbation": "B+C"}, {"age": 33}, {"stage": 1}])
    column = label_columns(SCHEMA, interventions)[concept]
    codes = np.array([0, 1, -1], dtype=np.int32)
    numbers = np.float32([[0.1, 0.2], [0.3, 1.0], [np.nan, np.nan]])
    if column.holds_numbers:
        codes = None
    else:
        written = column.values(codes, numbers)
    if codes is None:
        written = column.values(np.zeros(3, np.int32), numbers)
        _, back = column.read(written)
        np.testing.assert_array_equal(back, numbers[:, column.place])
    else:
        found, back = column.read(written.codes)
        assert back is None
        np.testing.assert_array_equal(found, codes)


def test_concepts_are_described_by_their_kind():
    assert [describe_concept(each) for each in SCHEMA.concepts] == [
        "IFN, ctrl",
        "continuous, from 20 to 60: bins [20, 30), [30, 40), [40, 60]",
        "set of 3 members, control ctrl: A, A+B, C, ctrl",
        "ordinal, from 0 to 4: 0, 2, 4",
    ]


def test_a_concept_is_not_named_as_what_marks_values_is():
    marked = Concept(EXTRAPOLATED, ("no", "yes"))
    assert ConceptSchema((marked,)).names == (EXTRAPOLATED,)  # a model of plain labels has no such column
    with pytest.raises(ConceptError, match=r"^concept 'extrapolated' has the name of the column"):
        ConceptSchema((marked, SCHEMA["age"]))
