"""The simulator's truth: interventions cut and propagate, noise is kept, counts are over-dispersed and sparse."""

import numpy as np
import pytest

from causcell.evaluation.simulator import OPPOSITE, SCHEMA, Noise, World, effect_error

CELLS = 400


@pytest.fixture(scope="module")
def world() -> World:
    return World.make(genes=40, seed=0)


@pytest.fixture(scope="module")
def noise(world: World) -> Noise:
    return world.noise(CELLS, seed=1)


@pytest.mark.parametrize("name", SCHEMA.names)
def test_an_intervention_sets_its_concept_and_leaves_all_that_does_not_descend_from_it(
    world: World, noise: Noise, name: str
) -> None:
    i = SCHEMA.index(name)
    before, after = world.labels(noise), world.labels(noise, {name: SCHEMA[name].labels[-1]})
    assert (after[:, i] == len(SCHEMA[name].labels) - 1).all()
    below = SCHEMA.descendants({i})
    for other in set(range(len(SCHEMA.names))) - below - {i}:
        np.testing.assert_array_equal(after[:, other], before[:, other])
    for other in below:
        assert (after[:, other] != before[:, other]).any()


def test_a_cell_that_has_the_label_already_is_its_own_counterfactual(world: World, noise: Noise) -> None:
    """Consistency, in labels, counts and expectation."""
    same = world.labels(noise)[:, 0] == 1
    do = {"treatment": "treated"}
    np.testing.assert_array_equal(world.cells(noise, do).X[same].toarray(), world.cells(noise).X[same].toarray())
    # the sums over counts end at different counts, where a millionth of the probability is left
    np.testing.assert_allclose(world.effect(noise, do)[same], 0, atol=2e-5)


def test_treatment_activates_types_a_and_b_and_not_c(world: World, noise: Noise) -> None:
    """Monotone in the log-odds: with one Gumbel noise no cell is turned the other way. C has a true null effect."""
    before, after = world.labels(noise, {"treatment": "control"}), world.labels(noise, {"treatment": "treated"})
    active = SCHEMA["state"].code("active")
    c = before[:, 2] == SCHEMA["cell_type"].code("C")
    np.testing.assert_array_equal(after[c, 3], before[c, 3])
    assert (after[before[:, 3] == active, 3] == active).all()
    assert (after[~c, 3] == active).mean() > (before[~c, 3] == active).mean() + 0.3


def test_confounding_makes_the_difference_of_means_another_than_the_effect(world: World) -> None:
    """Donors differ in cell types and in expression of their own: cells of type C are not cells made C."""
    noise = world.noise(1000, seed=2)
    observed, labels = world.expected(noise), world.labels(noise)
    is_c = labels[:, 2] == SCHEMA["cell_type"].code("C")
    difference = observed[is_c].mean(axis=0) - observed[~is_c].mean(axis=0)
    effect = world.effect(noise, {"cell_type": "C"})[~is_c].mean(axis=0)
    assert effect_error(difference[None], effect[None]) > 0.1


def test_counts_are_sparse_over_dispersed_integers_around_their_expectation(world: World) -> None:
    noise = world.noise(3000, seed=3)
    counts = world.cells(noise).X.toarray()
    assert counts.dtype == np.int32
    assert 0.2 < (counts == 0).mean() < 0.9
    mean = world._mean(world.labels(noise), noise)
    # the mean of 3,000 standardised residuals of deviation 1 is within 5/sqrt(3000) = 0.09
    residual = (counts - mean) / np.sqrt(mean + world.dispersion * mean**2)
    np.testing.assert_allclose(residual.mean(axis=0), 0, atol=0.09)
    assert 0.8 < residual.var() < 1.2  # negative binomial, and a Poisson of the same mean would have less:
    assert ((counts - mean) ** 2).sum() > 1.5 * mean.sum()


def test_effect_error_is_one_for_no_change_and_zero_for_the_truth(world: World, noise: Noise) -> None:
    true = world.effect(noise, {"treatment": "treated"})
    assert effect_error(true, true) == 0
    assert effect_error(np.zeros_like(true), true) == 1


def test_the_same_seed_gives_the_same_world_and_cells() -> None:
    a, b = (World.make(genes=12, seed=5) for _ in range(2))
    first, second = (world.cells(world.noise(20, seed=6)) for world in (a, b))
    assert (first.X != second.X).nnz == 0
    assert first.obs.equals(second.obs)


def test_opposite_responses_activate_a_make_b_rest_and_leave_c_alone() -> None:
    world = World.make(genes=12, responses=OPPOSITE)
    noise = world.noise(CELLS, seed=1)
    before, after = world.labels(noise, {"treatment": "control"}), world.labels(noise, {"treatment": "treated"})
    active = SCHEMA["state"].code("active")
    shares = [[(x[x[:, 2] == code, 3] == active).mean() for code in range(3)] for x in (before, after)]
    assert shares[1][0] > shares[0][0] + 0.3 and shares[1][1] < shares[0][1] - 0.3 and shares[1][2] == shares[0][2]
    assert world.programmes[0].tolist() == World.make(genes=12).programmes[0].tolist()  # the same world but for that
