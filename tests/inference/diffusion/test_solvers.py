"""Solvers as tables: exact identities, and Gaussian cells, for which the best denoiser is known in closed form."""

from itertools import pairwise

import numpy as np
import pytest

from causcell.diffusion.contract import gaussian_moments, gaussian_x0
from causcell.diffusion.sampling import draw_spike_slab, sample
from causcell.diffusion.schedule import NoiseSchedule
from causcell.diffusion.solvers import SPACINGS, SolverSettings, ddim, ddpm, dpmpp, draw, mean, timesteps
from causcell.errors import ConfigurationError

SCHEDULE = NoiseSchedule()
SCHEDULES = [SCHEDULE, NoiseSchedule("cosine"), NoiseSchedule("linear", 50)]
STEPS = (1, 2, 3, 7, 20, 49, 50)
EVERY_SOLVER = [
    settings
    for steps in (1, 2, 20, 50)
    for spacing in SPACINGS
    for settings in (
        SolverSettings("ddim", steps, spacing),
        SolverSettings("ddim", steps, spacing, eta=0.5),
        SolverSettings("ddim", steps, spacing, eta=1.0),
        SolverSettings("ddpm", steps, spacing),
        SolverSettings("dpmpp", steps, spacing),
    )
] + [SolverSettings("mean")]


# -- times -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("schedule", [NoiseSchedule("linear", 1000), NoiseSchedule("cosine", 37)], ids=str)
def test_times_fall_strictly_from_the_last_for_every_number_of_steps(schedule, spacing):
    for steps in range(1, schedule.timesteps + 1):
        times = timesteps(schedule, steps, spacing)
        assert times.dtype == np.int64
        assert len(times) == steps
        assert times[0] == schedule.timesteps - 1
        assert times[-1] >= 0
        assert (np.diff(times) < 0).all()


def test_uniform_times_end_at_zero():
    assert all(timesteps(SCHEDULE, steps, "uniform")[-1] == 0 for steps in range(2, 1001))


def test_log_snr_times_are_even_steps_of_lambda():
    """Within the rounding to whole times: half the change of lambda between neighbours there; ends are exact."""
    lambda_ = 0.5 * np.log(SCHEDULE.alpha_bar / (1 - SCHEDULE.alpha_bar))
    times = timesteps(SCHEDULE, 15, "log_snr")
    assert (times[0], times[-1]) == (999, 0)
    wanted = np.linspace(lambda_[999], lambda_[0], 15)
    resolution = np.abs(np.gradient(lambda_))[times]
    assert (np.abs(lambda_[times] - wanted) < 0.75 * resolution).all()


def test_trailing_times_leave_a_last_step_as_long_as_the_others():
    """Steps of T / steps, each end rounded, so that two lengths differ by 1 at most."""
    for steps in range(1, 1001):
        lengths = -np.diff([*timesteps(SCHEDULE, steps, "trailing"), -1])
        assert lengths.max() - lengths.min() <= 1


@pytest.mark.parametrize("spacing", SPACINGS)
def test_all_steps_are_all_times(spacing):
    np.testing.assert_array_equal(timesteps(SCHEDULE, 1000, spacing), np.arange(1000)[::-1])


# -- tables ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", EVERY_SOLVER, ids=str)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_every_table_ends_clean(settings, schedule):
    solver = settings.build(schedule)
    assert solver.table.shape == (settings.steps, 5)
    assert solver.table[-1, 1:].tolist() == [0, 1, 0, 0]
    assert np.isfinite(solver.table).all()
    assert solver.steps == settings.steps
    assert not solver.draw
    np.testing.assert_array_equal(solver.table[:, 0], timesteps(schedule, settings.steps, settings.spacing))


@pytest.mark.parametrize("settings", EVERY_SOLVER, ids=str)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_every_step_keeps_to_the_forward_process(settings, schedule):
    """Were x0 known, x_next would have mean sqrt(abar) x0 and variance 1 - abar at the next time (exact: 1e-12)."""
    t, a, b, c, s = settings.build(schedule).table[:-1].T
    here = schedule.alpha_bar[t.astype(int)]
    there = schedule.alpha_bar[settings.build(schedule).table[1:, 0].astype(int)]
    np.testing.assert_allclose(a * np.sqrt(here) + b + c, np.sqrt(there), atol=1e-12)
    np.testing.assert_allclose(a**2 * (1 - here) + s**2, 1 - there, atol=1e-12)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_ddim_at_eta_one_is_ancestral_sampling(schedule, steps, spacing):
    """Exact; 1e-12 for the digits that DDIM's difference 1 - abar - s^2 loses."""
    np.testing.assert_allclose(
        ddim(schedule, steps, spacing, eta=1).table, ddpm(schedule, steps, spacing).table, atol=1e-12
    )


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_dpm_solver_of_first_order_is_ddim(schedule, steps, spacing):
    np.testing.assert_allclose(
        dpmpp(schedule, steps, spacing, order=1).table, ddim(schedule, steps, spacing).table, atol=1e-12
    )


def test_dpm_solver_has_the_coefficients_of_lu_et_al():
    """Algorithm 2 with data prediction, written as they do: D from two predictions, steps h of lambda."""
    table = dpmpp(SCHEDULE, 8).table
    alpha, sigma = (np.sqrt(v[table[:, 0].astype(int)]) for v in (SCHEDULE.alpha_bar, 1 - SCHEDULE.alpha_bar))
    lambda_ = np.log(alpha / sigma)
    assert (table[[0, -1], 3] == 0).all()  # first order at both ends
    for i in range(1, 7):
        h, before = lambda_[i + 1] - lambda_[i], lambda_[i] - lambda_[i - 1]
        change = -alpha[i + 1] * np.expm1(-h)
        r = before / h
        expected = [sigma[i + 1] / sigma[i], change * (1 + 1 / (2 * r)), -change / (2 * r), 0]
        np.testing.assert_allclose(table[i, 1:], expected, rtol=1e-9)


def test_ancestral_sampling_has_the_posterior_of_ho_et_al():
    """Equations 6 and 7 over all times, with their betas and alphas."""
    beta = np.linspace(1e-4, 0.02, 1000)
    alpha_bar = np.cumprod(1 - beta)
    before = np.append(1.0, alpha_bar[:-1])
    t = np.arange(999, 0, -1)
    table = ddpm(SCHEDULE, 1000).table[:-1]
    np.testing.assert_allclose(table[:, 1], (np.sqrt(1 - beta) * (1 - before) / (1 - alpha_bar))[t], rtol=1e-9)
    np.testing.assert_allclose(table[:, 2], (np.sqrt(before) * beta / (1 - alpha_bar))[t], rtol=1e-9)
    np.testing.assert_allclose(table[:, 4], np.sqrt((1 - before) / (1 - alpha_bar) * beta)[t], rtol=1e-9)


@pytest.mark.parametrize("eta", [0.25, 0.5])
def test_eta_scales_the_noise(eta):
    np.testing.assert_allclose(
        ddim(SCHEDULE, 20, eta=eta).table[:, 4], eta * ddim(SCHEDULE, 20, eta=1).table[:, 4], rtol=1e-12
    )


def test_only_noisy_solvers_ask_for_fresh_noise():
    def noisy(solver):
        return bool((solver.table[:, 4] > 0).any())

    assert not noisy(ddim(SCHEDULE, 20))
    assert not noisy(dpmpp(SCHEDULE, 20))
    assert not noisy(mean(SCHEDULE))
    assert not noisy(ddpm(SCHEDULE, 1))  # one step returns x0
    assert noisy(ddim(SCHEDULE, 20, eta=0.5))
    assert noisy(ddpm(SCHEDULE, 20))


def test_deterministic_solvers_have_neither_noise_nor_draws():
    assert [each.deterministic for each in (ddim(SCHEDULE, 20), dpmpp(SCHEDULE, 20), mean(SCHEDULE))] == [True] * 3
    assert not any(each.deterministic for each in (ddim(SCHEDULE, 20, eta=0.5), ddpm(SCHEDULE, 20), draw(SCHEDULE)))


def test_only_the_mean_starts_without_noise():
    assert not mean(SCHEDULE).from_noise
    assert ddim(SCHEDULE, 1).from_noise
    assert mean(SCHEDULE).table[0, 0] == 999


def test_estimate_tells_a_mean_from_a_sample():
    assert {name: SolverSettings(name).estimate for name in ("mean", "draw", "ddim", "dpmpp", "ddpm")} == {
        "mean": "mean",
        "draw": "sample",
        "ddim": "sample",
        "dpmpp": "sample",
        "ddpm": "sample",
    }


# -- cells whose best denoiser is known --------------------------------------------------------------------------------


def run(denoise, solver, cells, seed=0):
    rng = np.random.default_rng(seed)

    def noise(step=None):
        return rng.standard_normal((cells, 1)).astype(np.float32)

    return sample(denoise, solver, (cells, 1), initial_noise=noise, step_noise=noise)


@pytest.mark.parametrize("settings", EVERY_SOLVER, ids=str)
def test_a_point_is_returned_exactly(settings):
    """Where all cells are one point, the best denoiser always answers that point."""
    x = run(lambda x, t: np.full_like(x, -1.25), settings.build(SCHEDULE), cells=100)
    assert (x == -1.25).all()


@pytest.mark.parametrize("deviation", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("schedule", [SCHEDULE, NoiseSchedule("cosine")], ids=str)
def test_ancestral_sampling_over_all_times_reproduces_a_gaussian(schedule, deviation):
    """2 %: the posterior's variance leaves out that of x0 given x_t, an error of order 1 / T (1.6 % at most here)."""
    centre, variance = gaussian_moments(schedule, ddpm(schedule, 1000), 3.0, deviation)
    assert centre == pytest.approx(3.0, abs=1e-3)
    assert variance == pytest.approx(deviation**2, rel=0.02)


@pytest.mark.parametrize(
    "settings",
    [SolverSettings("ddpm", 1000), SolverSettings("ddim", 50, eta=0.5), SolverSettings("dpmpp", 20)],
    ids=str,
)
def test_the_loop_has_the_moments_of_its_table(settings):
    """20,000 cells, within 4 standard errors: deviation / sqrt(n) of the mean, a share sqrt(2 / n) of the variance."""
    mu, deviation, cells = 3.0, 0.5, 20_000
    solver = settings.build(SCHEDULE)

    def denoise(x, t):
        return gaussian_x0(x, SCHEDULE.alpha_bar[t], mu, deviation).astype(np.float32)

    x = run(denoise, solver, cells).astype(float)
    centre, variance = gaussian_moments(SCHEDULE, solver, mu, deviation)
    assert abs(x.mean() - centre) < 4 * deviation / np.sqrt(cells)
    assert abs(x.var() / variance - 1) < 4 * np.sqrt(2 / cells)


@pytest.mark.parametrize("deviation", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("spacing", ["trailing", "uniform"])
@pytest.mark.parametrize("schedule", [SCHEDULE, NoiseSchedule("cosine")], ids=str)
def test_ddim_converges_at_first_order(schedule, spacing, deviation):
    """Twice the steps, half the error of the variance (between 1.8 and 2.2: higher orders are small by then)."""
    errors = [
        1 - gaussian_moments(schedule, ddim(schedule, steps, spacing), 0.0, deviation)[1] / deviation**2
        for steps in (25, 50, 100, 200)
    ]
    assert all(1.8 < coarse / fine < 2.2 for coarse, fine in pairwise(errors))
    assert 0 < errors[-1] < 0.04


@pytest.mark.parametrize("deviation", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_dpm_solver_converges_at_second_order(kind, deviation):
    """Twice the steps, a quarter of the error (between 3.4 and 5: other orders are small by then).

    Over even steps of lambda, of 20,000 times: so few are rounded, and the last step leaves nothing.
    """
    schedule = NoiseSchedule(kind, 20_000)
    errors = {
        solver: [
            abs(1 - gaussian_moments(schedule, solver(schedule, steps, "log_snr"), 0.0, deviation)[1] / deviation**2)
            for steps in (40, 80, 160)
        ]
        for solver in (dpmpp, ddim)
    }
    assert all(3.4 < coarse / fine < 5 for coarse, fine in pairwise(errors[dpmpp]))
    assert errors[dpmpp][-1] < errors[ddim][-1] / 20


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ddim", "ddpm", "dpmpp"])
@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_steps_out_of_range(name, steps):
    with pytest.raises(ConfigurationError, match=f"{steps} steps are not possible; take from 1 to 1000"):
        SolverSettings(name, steps).build(SCHEDULE)


@pytest.mark.parametrize("eta", [-0.1, 1.1, float("nan")])
def test_eta_out_of_range(eta):
    with pytest.raises(ConfigurationError, match=f"eta is {eta}; it goes from 0"):
        SolverSettings("ddim", 10, eta=eta).build(SCHEDULE)


@pytest.mark.parametrize("name", ["ddim", "ddpm", "dpmpp"])
def test_unknown_spacing(name):
    with pytest.raises(
        ConfigurationError, match="spacing 'leading' is not known; known are 'trailing', 'uniform', 'log_snr'"
    ):
        SolverSettings(name, 10, "leading").build(SCHEDULE)


def test_unknown_solver():
    with pytest.raises(ConfigurationError, match="solver 'euler' is not known; known are 'draw', 'ddim'"):
        SolverSettings("euler", 10)


@pytest.mark.parametrize("name", ["ddpm", "dpmpp", "mean"])
def test_eta_belongs_to_ddim(name):
    with pytest.raises(ConfigurationError, match=f"eta belongs to ddim; {name} has none"):
        SolverSettings(name, eta=0.5)


def test_the_mean_takes_no_steps():
    with pytest.raises(ConfigurationError, match="mean estimate is one evaluation; steps is 20"):
        SolverSettings("mean", 20)


# -- draws from a posterior --------------------------------------------------------------------------------------------


def test_a_draw_is_ancestral_sampling_of_draws():
    for steps in (1, 2, 50):
        solver = draw(SCHEDULE, steps)
        np.testing.assert_array_equal(solver.table, ddpm(SCHEDULE, steps).table)
        assert solver.draw
        assert solver.from_noise == (steps > 1)  # after one step nothing of the noise is left


@pytest.mark.parametrize("steps", [1, 3, 20])
def test_draws_from_the_true_posterior_have_the_true_distribution(steps):
    """Cells that are zero or Gaussian, whose posterior given x_t is known: exact in any number of steps.

    40,000 values: within five standard errors. Starting from a normal in place of x_T is off by sqrt(abar), 0.006.
    """
    count, weight, centre, spread, zero = 40_000, 0.3, 1.5, 0.7, -0.6
    rng = np.random.default_rng(steps)

    def denoise(x, t):
        abar = SCHEDULE.alpha_bar[t]
        slab, spike = abar * spread**2 + 1 - abar, 1 - abar
        odds = weight / (1 - weight) * np.sqrt(spike / slab)
        odds = odds * np.exp((x - np.sqrt(abar) * zero) ** 2 / 2 / spike - (x - np.sqrt(abar) * centre) ** 2 / 2 / slab)
        mean_ = centre + np.sqrt(abar) * spread**2 / slab * (x - np.sqrt(abar) * centre)
        deviation = np.full_like(x, np.sqrt(spread**2 * spike / slab))
        u = rng.random(x.shape, dtype=np.float32)
        return draw_spike_slab(odds / (1 + odds), mean_, deviation, np.float32(zero), u)

    drawn = sample(
        denoise,
        draw(SCHEDULE, steps),
        (1, count),
        initial_noise=lambda: rng.standard_normal((1, count), dtype=np.float32),
        step_noise=lambda step: rng.standard_normal((1, count), dtype=np.float32),
    )
    slab = drawn[drawn != np.float32(zero)]
    assert len(slab) / count == pytest.approx(weight, abs=5 * np.sqrt(weight * (1 - weight) / count) + 0.006)
    assert slab.mean() == pytest.approx(centre, abs=5 * spread / np.sqrt(len(slab)) + 0.006)
    assert slab.std() == pytest.approx(spread, abs=5 * spread / np.sqrt(2 * len(slab)) + 0.006)
