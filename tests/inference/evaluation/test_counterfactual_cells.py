"""Counterfactual cells against real target cells, and genes that go up or down."""

from typing import Any

import numpy as np
import pytest
from moved_cells import GENES, Mover, data_of

from causcell.evaluation.cases import find_seen_cases
from causcell.evaluation.counterfactual_cells import measure_counterfactual_cells
from causcell.evaluation.halves import HALF
from causcell.evaluation.metrics import direction_recall, energy_ratio, mmd_ratio


def test_recall_counts_genes_that_go_the_right_way() -> None:
    truth = np.array([1, 1, -1, -1, 0, 0])
    right = np.array([2.0, 1.0, -2.0, -1.0, 0.5, -0.5])
    for shift, up, down in ((right, 1, 1), (-right, 0, 0), (abs(right), 0.5, 0), (0 * right, 0, 0)):
        assert direction_recall(shift, truth == 1) == up
        assert direction_recall(-shift, truth == -1) == down
    assert direction_recall(right, truth == 2) is None


def test_a_small_gene_that_is_right_goes_after_a_large_one_that_is_wrong() -> None:
    assert direction_recall(np.array([0.1, 3.0, 0.0]), np.array([True, False, False])) == 0


@pytest.mark.parametrize("ratio", [mmd_ratio, energy_ratio])
def test_a_copy_of_what_was_seen_has_the_ratio_one_and_real_cells_about_none(ratio: Any) -> None:
    rng = np.random.default_rng(0)
    target, more, nearest = rng.normal(0, 1, (200, 9)), rng.normal(0, 1, (200, 9)), rng.normal(1, 1, (200, 9))
    assert ratio(nearest, target, nearest, 4.0) == pytest.approx(1)
    assert abs(ratio(more, target, nearest, 4.0)) < 0.05
    assert ratio(rng.normal(2, 1, (200, 9)), target, nearest, 4.0) > 2
    assert ratio(more, target, target, 4.0) is None


@pytest.mark.parametrize("seen", [True, False])
def test_counterfactual_cells_that_are_right_are_as_near_as_real_ones(seen: bool) -> None:
    data = data_of(Mover(1.0), seen=seen)
    (case,) = (each for each in find_seen_cases(data) if each.concept == 1 and each.stratum == ((0, 1),))
    shifts = {"no change": np.zeros(GENES), "the right one": np.ones(GENES)}
    found = measure_counterfactual_cells(data, case, shifts)
    assert list(found) == ["model, do", *shifts, HALF]
    for name in ("mmd_ratio", "energy_ratio"):
        assert found["model, do"][name] == pytest.approx(found["the right one"][name])
        assert abs(found["model, do"][name]) < 0.1
        assert abs(found[HALF][name]) < 0.1
        # the nearest cells trained on are T cells without IFN, which the source cells are like
        assert found["no change"][name] == pytest.approx(1, abs=0.1)


def test_noise_that_averages_out_is_seen_in_single_cells() -> None:
    exact, noisy = (
        measure_counterfactual_cells(data, case, {})["model, do"]["energy_ratio"]
        for data in (data_of(Mover(1.0, noise), seen=True) for noise in (0.0, 1.0))
        for case in find_seen_cases(data)
        if case.concept == 1 and case.stratum == ((0, 1),)
    )
    assert noisy > exact + 0.1


def test_too_few_cells_are_not_measured() -> None:
    data = data_of(Mover(1.0), seen=True)
    case = find_seen_cases(data)[0]
    few = type(case)(case.concept, case.source, case.target, case.stratum, case.source_rows[:15], case.target_rows)
    assert measure_counterfactual_cells(data, few, {}) == {}
