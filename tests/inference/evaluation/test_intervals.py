"""Standard errors of effect measures: intervals hold the truth as often as they say."""

import numpy as np
import pytest

from causcell.evaluation.intervals import standard_errors
from causcell.evaluation.metrics import mean_shift, shift_calibration, shift_size
from causcell.evaluation.table import DEVIATIONS

GENES = 200


def coverage(replicates: int | None, *, over: int | None, strength: float = 0.5) -> tuple[float, float]:
    """Share of 90 % intervals of size and calibration that hold 1, for a right prediction.

    Cells are of so many replicates, each with a response of its own; errors are taken over ``over`` of them, or cells.
    """
    rng = np.random.default_rng(0)
    true = strength * rng.standard_normal(GENES)
    held = np.zeros((150, 2))
    for each in held:
        donors = np.arange(60) % (replicates or 1)
        own = 0.6 * rng.standard_normal((replicates or 1, GENES)) if replicates else np.zeros((1, GENES))
        source, target = rng.standard_normal((60, GENES)), true + own[donors] + rng.standard_normal((60, GENES))
        real, variance = mean_shift(source, target, (donors, donors) if over else None)
        errors = standard_errors({"right": true}, source, target, rng, replicates=(donors, donors) if over else None)[
            "right"
        ]
        values = shift_size(true, real, variance), shift_calibration(true, real)
        each[:] = [
            abs(value - 1) < DEVIATIONS * errors[name]
            for value, name in zip(values, ("size", "calibration"), strict=True)
        ]
    size, calibration = held.mean(axis=0)
    return float(size), float(calibration)


@pytest.mark.parametrize("strength", [0.3, 0.5, 2.0])  # the noise is a third of the squared shift, a ninth, nothing
def test_intervals_over_cells_hold_the_truth(strength: float) -> None:
    """90 %, within three standard errors (.024) of 150 repetitions; those of the size may be too wide by noise."""
    size, calibration = coverage(None, over=None, strength=strength)
    assert 0.82 < size <= (0.98 if strength < 0.5 else 0.97)
    assert calibration == pytest.approx(0.9, abs=0.075)


def test_only_intervals_over_replicates_hold_the_truth_where_replicates_differ() -> None:
    over_cells, over_replicates = coverage(8, over=None), coverage(8, over=8)
    assert over_cells[0] < 0.1  # noise of eight replicates is taken for size
    assert over_cells[1] < 0.8
    assert over_replicates[0] > 0.85
    assert over_replicates[1] == pytest.approx(0.9, abs=0.1)  # eight replicates: a little short, as bootstraps are


def test_a_shift_of_cells_varies_with_them_and_a_fixed_one_does_not() -> None:
    rng = np.random.default_rng(1)
    source, target = rng.standard_normal((40, GENES)), 1 + rng.standard_normal((40, GENES))
    shifts = {"fixed": np.ones(GENES), "of cells": 1 + 3 * rng.standard_normal((40, 1)) * np.ones(GENES)}
    errors = standard_errors(shifts, source, target, rng)
    assert errors["of cells"]["size"] > 5 * errors["fixed"]["size"]


def test_measures_without_a_value_have_no_error() -> None:
    rng = np.random.default_rng(2)
    source, target = rng.standard_normal((2, 20, GENES))
    errors = standard_errors({"none": np.zeros(GENES)}, source, target, rng)["none"]
    assert "calibration" not in errors
    assert errors["pcc"] == 0
