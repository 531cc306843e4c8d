"""The simulator of values: doses, hours and sets are what they say, and counterfactuals keep a cell's noise."""

import numpy as np
import pytest

from causcell.concepts import Concept, ConceptSchema, Edge
from causcell.errors import InterventionError
from causcell.evaluation.simulator import effect_error
from causcell.evaluation.value_simulator import EDGES, HOURS, KINDS, THRESHOLD, Value, ValueNoise, ValueWorld

CELLS = 600
SCHEMA = ConceptSchema(tuple(Concept(name, ("0", "1")) for name in KINDS), tuple(Edge(*edge) for edge in EDGES))
OTHER: dict[str, Value] = {
    "donor": "d3", "cell_type": "C", "dose": 9.5, "hours": 24, "perturbation": "P2+P3", "state": "active"
}  # fmt: skip


@pytest.fixture(scope="module")
def world() -> ValueWorld:
    return ValueWorld.make(genes=40, seed=0)


@pytest.fixture(scope="module")
def noise(world: ValueWorld) -> ValueNoise:
    return world.noise(CELLS, seed=1)


def test_cells_carry_numbers_labels_and_sets(world: ValueWorld, noise: ValueNoise) -> None:
    cells = world.cells(noise)
    assert list(cells.obs) == list(KINDS)
    assert cells.X.dtype == np.int32 and 0.2 < 1 - cells.X.nnz / np.prod(cells.shape) < 0.9
    assert cells.obs["dose"].dtype == cells.obs["hours"].dtype == np.float64
    dose = cells.obs["dose"]
    assert (dose == 0).any() and dose.nunique() > 100 and dose.between(0, 10).all()
    assert set(cells.obs["hours"]) == set(HOURS)
    assert set(cells.obs["perturbation"]) == {"control", "P1", "P2", "P3", "P1+P2", "P1+P3", "P2+P3"}


@pytest.mark.parametrize("name", list(KINDS))
def test_an_intervention_sets_its_concept_and_leaves_all_that_does_not_descend_from_it(
    world: ValueWorld, noise: ValueNoise, name: str
) -> None:
    before, after = world.values(noise), world.values(noise, {name: OTHER[name]})
    assert (after[name] == OTHER[name]).all()
    below = {SCHEMA.names[i] for i in SCHEMA.descendants({SCHEMA.index(name)})}
    for other in set(KINDS) - {name}:
        assert (after[other] != before[other]).any() == (other in below)


@pytest.mark.parametrize("name", list(KINDS))
def test_a_cell_that_has_the_value_already_is_its_own_counterfactual(
    world: ValueWorld, noise: ValueNoise, name: str
) -> None:
    value = world.values(noise)[name][0]
    same = world.values(noise)[name] == value
    acted, cells = world.cells(noise, {name: value}), world.cells(noise)
    np.testing.assert_array_equal(acted.X[same].toarray(), cells.X[same].toarray())


def test_the_state_turns_at_a_threshold_of_the_dose_and_in_some_types_alone(
    world: ValueWorld, noise: ValueNoise
) -> None:
    shares = {}
    for dose in (0.0, 0.6 * THRESHOLD, 1.4 * THRESHOLD, 10.0):
        values = world.values(noise, {"dose": dose})
        shares[dose] = [(values["state"][values["cell_type"] == name] == "active").mean() for name in "ABC"]
    low, below, above, high = shares.values()
    np.testing.assert_allclose(below[:2], low[:2], atol=0.1)
    np.testing.assert_allclose(above[:2], high[:2], atol=0.1)
    assert above[0] - below[0] > 0.6 and above[1] - below[1] > 0.6
    assert low[2] == below[2] == above[2] == high[2]


def test_courses_are_smooth_saturate_and_are_no_lines(world: ValueWorld, noise: ValueNoise) -> None:
    """The course over the dose of cells whose state is held: their noise is the same at every dose."""
    doses = np.arange(0, 10.5, 0.5)
    held = np.stack([world.expected(noise, {"dose": dose, "state": "resting"}) for dose in doses])
    average = held.mean(axis=1)
    steps = np.abs(np.diff(average, axis=0)).max(axis=1)
    assert steps.max() < 0.5 and steps[-1] < steps[: len(steps) // 2].max() / 2
    line = np.linspace(0, 1, len(doses))[:, None] * (average[-1] - average[0]) + average[0]
    assert ((average - line) ** 2).sum() > 0.05 * ((average - average[0]) ** 2).sum()
    response = world.response(noise, "dose", [0, 5.0])
    np.testing.assert_array_equal(response[1], world.expected(noise, {"dose": 5.0}))


def test_two_perturbations_together_are_not_their_sum(world: ValueWorld, noise: ValueNoise) -> None:
    single = [world.expected(noise, {"perturbation": name}) for name in ("control", "P1", "P2", "P1+P2")]
    added = (single[1] - single[0] + single[2] - single[0]).mean(axis=0)
    assert effect_error(added[None], (single[3] - single[0]).mean(axis=0)[None]) > 0.05
    np.testing.assert_array_equal(world.expected(noise, {"perturbation": "P2+P1"}), single[3])


@pytest.mark.parametrize(
    ("do", "message"),
    [
        ({"age": 3}, "'age' is no concept"),
        ({"dose": -1}, "dose=-1: give a number of 0 or more"),
        ({"hours": "late"}, "hours='late': give a number"),
        ({"perturbation": "P1+P9"}, "has 'P9'; give 'control', or of 'P1'"),
        ({"state": "asleep"}, "state='asleep' is no label"),
    ],
)
def test_other_values_are_refused(world: ValueWorld, noise: ValueNoise, do: dict[str, Value], message: str) -> None:
    with pytest.raises(InterventionError, match=message):
        world.cells(noise, do)


def test_the_same_seed_gives_the_same_cells_and_another_others() -> None:
    first, second, other = (ValueWorld.make(genes=12, seed=seed) for seed in (5, 5, 6))
    cells = [world.cells(world.noise(30, seed=7)) for world in (first, second, other)]
    assert (cells[0].X != cells[1].X).nnz == 0 and cells[0].obs.equals(cells[1].obs)
    assert (cells[0].X != cells[2].X).nnz > 0
