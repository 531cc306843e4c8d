"""Interventions as they are asked for: labels by concept, lists, grids, and what is refused."""

import numpy as np
import pytest

from causcell.concepts import Concept, ConceptSchema
from causcell.counterfactual.interventions import Intervention, parse_do, parse_intervention, plan_interventions
from causcell.errors import ConceptError, InterventionError, UnknownConceptError, UnknownLabelError

STIM, DONOR = range(2)


def names(interventions):
    return [each.name for each in interventions]


def test_no_plan_is_the_factual_cell(schema):
    assert plan_interventions(schema) == (Intervention((), "factual"),)


def test_a_mapping_is_one_joint_intervention(schema):
    (planned,) = plan_interventions(schema, {"donor": "d2", "stim": "IFN"})
    assert planned.name == "stim=IFN;donor=d2"  # in the order of the concepts
    assert planned.targets == ((STIM, schema["stim"].code("IFN")), (DONOR, schema["donor"].code("d2")))


def test_a_list_is_one_intervention_each(schema):
    planned = plan_interventions(schema, [{}, {"stim": "IFN"}, {"stim": "ctrl", "donor": "d1"}])
    assert names(planned) == ["factual", "stim=IFN", "stim=ctrl;donor=d1"]


def test_a_grid_multiplies(schema):
    assert names(plan_interventions(schema, grid=["stim"])) == ["stim=IFN", "stim=ctrl"]
    assert names(plan_interventions(schema, grid=["donor", "stim"])) == [
        f"stim={stim};donor={donor}" for donor in ("d1", "d2", "d3") for stim in ("IFN", "ctrl")
    ]


def test_a_grid_is_joined_to_every_do(schema):
    planned = plan_interventions(schema, [{"donor": "d1"}, {"donor": "d2"}], ["stim"])
    assert names(planned) == [
        "stim=IFN;donor=d1",
        "stim=ctrl;donor=d1",
        "stim=IFN;donor=d2",
        "stim=ctrl;donor=d2",
    ]


@pytest.mark.parametrize(
    ("do", "grid", "concept"), [({"stim": "IFN"}, ["stim"], "stim"), ({}, ["donor", "donor"], "donor")]
)
def test_a_concept_set_and_in_the_grid(schema, do, grid, concept):
    with pytest.raises(InterventionError, match=f"'{concept}'.* is named twice by do= and grid="):
        plan_interventions(schema, do, grid)


def test_an_intervention_given_twice(schema):
    with pytest.raises(InterventionError, match="given twice: 'stim=IFN;donor=d1'"):
        plan_interventions(schema, [{"stim": "IFN", "donor": "d1"}, {"donor": "d1", "stim": "IFN"}])


@pytest.mark.parametrize(("do", "grid"), [({"dose": "1"}, []), ({}, ["dose"])])
def test_unknown_concept(schema, do, grid):
    with pytest.raises(UnknownConceptError, match="no concept 'dose'; the concepts are 'stim', 'donor'"):
        plan_interventions(schema, do, grid)


def test_unknown_label(schema):
    with pytest.raises(
        UnknownLabelError, match=r"'stim' has no label 'ifn'; did you mean 'IFN'\? its labels are 'IFN'"
    ):
        plan_interventions(schema, {"stim": "ifn"})


def test_a_number_is_named_by_its_label():
    """The same intervention, and the same name of it, for every way to write the number."""
    ages = ConceptSchema((Concept("age", ("9", "35")),))
    for value in (35, 35.0, "35", "35.0", np.float64(35), np.float32(35)):
        assert plan_interventions(ages, {"age": value}) == (Intervention(((0, 1),), "age=35"),)
    assert plan_interventions(ages, parse_do(["age=35.0"])) == (Intervention(((0, 1),), "age=35"),)


def test_interventions_of_one_name_are_refused():
    """Results tell interventions apart by name; these labels would make two of one name."""
    schema = ConceptSchema((Concept("a", ("x", "x;b=y")), Concept("b", ("y", "z"))))
    with pytest.raises(InterventionError, match="two interventions have one name, 'a=x;b=y'"):
        plan_interventions(schema, [{"a": "x", "b": "y"}, {"a": "x;b=y"}])


def test_do_is_parsed():
    assert parse_do(["stim=IFN", "donor=d=1", "stim=IFN"]) == {"stim": "IFN", "donor": "d=1"}
    assert parse_do([]) == {}


def test_do_that_contradicts_itself():
    with pytest.raises(InterventionError, match=r"do= sets 'stim' to 'IFN' and to 'ctrl'.*grid="):
        parse_do(["stim=IFN", "stim=ctrl"])


def test_do_that_is_no_pair():
    with pytest.raises(ConceptError, match="'stim' is not of the form CONCEPT=LABEL"):
        parse_do(["stim"])


@pytest.mark.parametrize("do", [{}, {"stim": "a=b;c"}, {"stim": "a=b;c", "dose": "10"}, {"dose": "0", "stim": "a"}])
def test_the_name_of_an_intervention_says_what_it_is(do: dict[str, str]) -> None:
    """Also where labels hold what separates them."""
    schema = ConceptSchema((Concept("stim", ("a", "a=b;c", "b")), Concept("dose", ("0", "10"))))
    intervention = Intervention.of(schema, do)
    assert parse_intervention(schema, intervention.name) == intervention
