"""The one loop: it does what the table says, and asks for noise only where the table has a place for it."""

import numpy as np
import pytest

from causcell.diffusion.sampling import draw_spike_slab, sample
from causcell.diffusion.schedule import NoiseSchedule
from causcell.diffusion.solvers import Solver, ddim, ddpm, mean
from causcell.randomness import Purpose, cell_keys, uniforms

SCHEDULE = NoiseSchedule()
SHAPE = (4, 3)


class Noise:
    """Standard normals that remember what was asked for."""

    def __init__(self):
        self.initial_calls = 0
        self.steps = []

    def initial(self):
        self.initial_calls += 1
        return np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)

    def step(self, step):
        self.steps.append(step)
        return np.random.default_rng(step + 1).standard_normal(SHAPE).astype(np.float32)


def denoise(x, t):
    return (0.5 * x + t / 1000).astype(np.float32)


def run(solver, denoise=denoise):
    noise = Noise()
    return sample(denoise, solver, SHAPE, initial_noise=noise.initial, step_noise=noise.step), noise


def test_the_loop_is_the_table_with_the_previous_x0():
    """By hand, in float64; 1e-6 for float32 roundings of numbers of order 1."""
    table = np.array(
        [[900, 0.5, 0.25, 0.0, 0.0], [600, 0.1, 0.6, -0.3, 0.0], [300, 0.2, 0.7, 0.4, 0.5], [0, 0, 1, 0, 0]]
    )
    made, noise = run(Solver(table))
    x0 = x = Noise().initial().astype(float)
    previous = np.zeros(SHAPE)
    for step, (t, a, b, c, s) in enumerate(table):
        x0 = 0.5 * x + t / 1000
        x = a * x + b * x0 + c * previous + (s * Noise().step(step) if s else 0)
        previous = x0
    np.testing.assert_allclose(made, x, atol=1e-6)
    assert made.dtype == np.float32
    assert noise.steps == [2]


@pytest.mark.parametrize("solver", [ddim(SCHEDULE, 10), ddpm(SCHEDULE, 10, "uniform"), mean(SCHEDULE)])
def test_the_denoiser_sees_every_time_once_in_order(solver):
    seen = []

    def recording(x, t):
        assert x.dtype == np.float32
        assert x.shape == SHAPE
        seen.append(t)
        return denoise(x, t)

    run(solver, recording)
    assert seen == solver.table[:, 0].tolist()
    assert all(isinstance(t, int) for t in seen)


def test_the_mean_needs_no_noise():
    made, noise = run(mean(SCHEDULE))
    assert (noise.initial_calls, noise.steps) == (0, [])
    np.testing.assert_array_equal(made, denoise(np.zeros(SHAPE, dtype=np.float32), 999))


def test_a_deterministic_solver_needs_only_its_start():
    _, noise = run(ddim(SCHEDULE, 10))
    assert (noise.initial_calls, noise.steps) == (1, [])


@pytest.mark.parametrize("solver", [ddpm(SCHEDULE, 10), ddim(SCHEDULE, 10, eta=0.5)])
def test_the_last_step_needs_no_noise(solver):
    _, noise = run(solver)
    assert (noise.initial_calls, noise.steps) == (1, list(range(9)))


def test_noise_given_is_left_alone():
    """A caller may keep the noise for the counterfactual."""
    initial = np.ones(SHAPE, dtype=np.float32)
    fresh = np.ones(SHAPE, dtype=np.float32)
    sample(denoise, ddpm(SCHEDULE, 5), SHAPE, initial_noise=lambda: initial, step_noise=lambda step: fresh)
    assert (initial == 1).all()
    assert (fresh == 1).all()


def test_a_spike_slab_draw_is_zero_or_the_slabs_quantile():
    """An independent account of both sides of the probability; float32."""
    probability = np.array([[0.5, 0.5, 1.0, 0.0]], dtype=np.float32)
    mean, deviation = np.full((1, 4), 2.0, np.float32), np.full((1, 4), 0.5, np.float32)
    zero = np.full(4, -1.0, np.float32)
    drawn = draw_spike_slab(probability, mean, deviation, zero, np.array([[0.25, 0.5, 0.975, 1e-7]], np.float32))
    np.testing.assert_allclose(drawn, [[2.0, -1.0, 2.0 + 0.5 * 1.959964, -1.0]], rtol=1e-5)


def test_spike_slab_draws_have_the_mixtures_moments():
    """400,000 draws: four standard errors."""
    count, probability, mean, deviation, zero = 400_000, 0.3, 1.5, 0.7, -0.4
    u = uniforms(cell_keys(0, ["cell"]), count, Purpose.POSTERIOR)
    full = np.ones((1, count), np.float32)
    drawn = draw_spike_slab(probability * full, mean * full, deviation * full, np.float32(zero) * full[0], u)
    assert (drawn == np.float32(zero)).mean() == pytest.approx(0.7, abs=4 * np.sqrt(0.21 / count))
    slab = drawn[drawn != np.float32(zero)]
    assert slab.mean() == pytest.approx(mean, abs=4 * deviation / np.sqrt(len(slab)))
    assert slab.std() == pytest.approx(deviation, abs=4 * deviation / np.sqrt(2 * len(slab)))
