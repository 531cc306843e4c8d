"""Interventions: a plan says what was asked for, by names that are unique, or a message says why not."""

from typing import Any

import numpy as np
from fuzzing import inputs, tried
from hypothesis import example, given
from hypothesis import strategies as st

from causcell.concepts import Concept, ConceptSchema
from causcell.counterfactual.interventions import parse_do, plan_interventions

SCHEMA = ConceptSchema(
    (
        Concept("stim", ("IFN", "ctrl", "x;dose=1")),
        Concept("dose", ("0.1", "1", "35")),
        Concept("flag", ("False", "True")),
        Concept("odd", ("35", "35.0", "01")),
    )
)
CONCEPTS = st.sampled_from(["stim", "dose", "flag", "odd", "Stim", "", "x"])
LABELS = (
    st.sampled_from(["IFN", "ctrl", "x;dose=1", "0.1", "1", "35", "35.0", "1.0", "True", "ifn", "", "01"])
    | st.sampled_from([35, 35.0, 0.1, np.float32(0.1), np.int8(1), True, np.True_, None, float("nan"), float("inf")])
    | st.floats()
    | st.integers()
    | st.text(max_size=3)
)
GOOD = st.sampled_from(
    [f"{concept.name}={label}" for concept in SCHEMA.concepts for label in (*concept.labels, "35.00", "1.0", "1e0")]
)
TEXTS = (
    GOOD
    | st.tuples(CONCEPTS, st.sampled_from(["=", "", "==", ":"]), LABELS.map(str)).map("".join)
    | st.text(max_size=8)
)


@inputs(1000)
@given(st.lists(TEXTS, max_size=4))
@example(["dose=35.0"])
@example(["odd=35.00"])
@example(["stim=x;dose=1", "dose=1"])
def test_texts_are_an_intervention_or_told(texts: list[str]) -> None:
    with tried("do"):
        labels = parse_do(texts)
        (planned,) = plan_interventions(SCHEMA, labels)
        assert len(planned.targets) == len(labels)
        for concept, text in labels.items():
            code = dict(planned.targets)[SCHEMA.index(concept)]
            label = SCHEMA[concept].labels[code]
            assert label == text or float(label) == float(text)


@inputs(1000)
@given(
    st.none() | st.dictionaries(CONCEPTS, LABELS, max_size=3)
    | st.lists(st.lists(GOOD, max_size=2).map(lambda texts: dict(text.split("=", 1) for text in texts)), max_size=3)
    | st.lists(st.dictionaries(CONCEPTS, LABELS, max_size=2) | st.just("stim"), max_size=3) | st.just("stim=IFN"),
    st.lists(CONCEPTS, max_size=2) | st.just("stim"),
)  # fmt: skip
@example([{"stim": "x;dose=1"}, {"stim": "ctrl", "dose": 1}], [])
def test_a_plan_has_one_name_an_intervention(do: Any, grid: Any) -> None:
    with tried("plan of interventions"):
        planned = plan_interventions(SCHEMA, do, grid)
        assert planned
        assert len({each.name for each in planned}) == len({each.targets for each in planned}) == len(planned)
