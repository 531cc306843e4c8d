"""Draws of a spike and slab: what is left out is zero, and the rest is what the dense formula gives."""

import numpy as np
import pytest
from scipy import stats

from causcell.diffusion.slab import LARGEST_BELOW_ONE, SlabScale, find_expressed, normal_quantile

CELLS, GENES = 5, 7
RNG = np.random.default_rng(0)
PROBABILITY = RNG.uniform(0.05, 0.95, (CELLS, GENES)).astype(np.float32)
SLAB_MEAN = RNG.normal(0.5, 1, (CELLS, GENES)).astype(np.float32)
UNIFORMS = RNG.uniform(0.001, 0.999, (CELLS, GENES)).astype(np.float32)
SCALE = SlabScale(*(RNG.uniform(0.2, 0.6, GENES).astype(np.float32) for _ in range(3)))


def draw_all():
    """The same draw, computed for every value."""
    quantile = stats.norm.ppf(np.minimum(UNIFORMS / PROBABILITY, LARGEST_BELOW_ONE).astype(np.float64))
    value = SLAB_MEAN * SCALE.deviation + SCALE.mean + SCALE.slab_deviation * quantile
    return np.where(UNIFORMS < PROBABILITY, np.maximum(value, 0), 0)


def test_the_quantile_is_the_standard_normals():
    """As of the graph's own: 3e-6 of 1 + |quantile|."""
    u = np.concatenate([np.linspace(1e-4, 0.9999, 50_001), 10.0 ** np.linspace(-8, -4, 501), [LARGEST_BELOW_ONE]])
    u = u.astype(np.float32)
    expected = stats.norm.ppf(u.astype(np.float64))
    assert (np.abs(normal_quantile(u) - expected) / (1 + np.abs(expected))).max() < 3e-6


def test_a_draw_is_the_dense_formula_without_its_zeros():
    drawn = SCALE.draw(PROBABILITY, SLAB_MEAN, UNIFORMS)
    np.testing.assert_allclose(drawn.toarray(), draw_all(), atol=1e-5)
    assert drawn.dtype == np.float32
    assert drawn.has_canonical_format
    assert (drawn.data > 0).all()
    assert drawn.nnz < (UNIFORMS < PROBABILITY).sum(), "a slab's value below zero is among these"


def test_cells_without_a_value_and_batches_of_zeros_alone():
    nothing = SCALE.draw(np.zeros_like(PROBABILITY), SLAB_MEAN, UNIFORMS)
    assert nothing.shape == (CELLS, GENES)
    assert nothing.nnz == 0
    some = np.where(np.arange(CELLS)[:, None] % 2, PROBABILITY, np.float32(0))
    lengths = np.diff(SCALE.draw(some, SLAB_MEAN + 10, UNIFORMS).indptr)
    assert (lengths[::2] == 0).all()
    assert lengths[1::2].all()


def test_u_just_below_the_probability_has_a_finite_quantile():
    r = np.full((1, 1), 0.3, dtype=np.float32)
    places, quantile = find_expressed(r, np.nextafter(r, np.float32(0)))
    assert places.tolist() == [0]
    assert np.isfinite(quantile).all()
    assert find_expressed(r, r)[0].size == 0


def test_a_slab_that_is_no_number_is_kept_for_whoever_checks():
    spoilt = SLAB_MEAN.copy()
    spoilt[2, 3] = np.nan
    drawn = SCALE.draw(np.ones_like(PROBABILITY), spoilt, UNIFORMS)
    assert np.isnan(drawn.data).sum() == 1


def test_the_mean_is_that_of_many_draws():
    rng, count = np.random.default_rng(1), 20_000
    one = [np.repeat(each[:1], count, axis=0) for each in (PROBABILITY, SLAB_MEAN + 9)]
    draws = SCALE.draw(*one, rng.uniform(1e-6, 1 - 1e-6, (count, GENES)).astype(np.float32)).toarray()
    mean = SCALE.mean_expression(*(each[:1].copy() for each in one))[0]
    assert mean == pytest.approx(draws.mean(axis=0), abs=5 * float(draws.std()) / count**0.5)
