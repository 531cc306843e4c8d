"""The noise schedule: from nearly clean to nearly noise, without a step back."""

import numpy as np
import pytest

from causcell.diffusion.schedule import NoiseSchedule
from causcell.errors import ConfigurationError

SCHEDULES = [NoiseSchedule(kind, timesteps) for kind in ("linear", "cosine") for timesteps in (21, 100, 1000, 4000)]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_alpha_bar_falls_strictly_within_zero_and_one(schedule):
    alpha_bar = schedule.alpha_bar
    assert alpha_bar.dtype == np.float64
    assert alpha_bar.shape == (schedule.timesteps,)
    assert (np.diff(alpha_bar) < 0).all()
    assert (alpha_bar > 0).all()
    assert (alpha_bar < 1).all()


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_the_last_time_is_nearly_noise(schedule):
    """Sampling starts at a standard normal: 1e-4 of signal variance left shifts it by a hundredth of a deviation."""
    assert schedule.alpha_bar[-1] < 1e-4


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_the_first_time_is_nearly_clean(kind):
    assert NoiseSchedule(kind, 1000).alpha_bar[0] > 0.999


def test_linear_is_the_schedule_of_ho_et_al():
    betas = np.linspace(1e-4, 0.02, 1000)
    np.testing.assert_allclose(NoiseSchedule().alpha_bar, np.cumprod(1 - betas), rtol=1e-12)


def test_cosine_is_the_schedule_of_nichol_and_dhariwal():
    """Away from the last steps, where betas are held at 0.999 at most."""

    def curve(t):
        return np.cos((t / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2

    t = np.arange(1, 999)
    np.testing.assert_allclose(NoiseSchedule("cosine").alpha_bar[t - 1], curve(t) / curve(0), rtol=1e-9)


@pytest.mark.parametrize(("kind", "timesteps"), [("linear", 20), ("linear", 0), ("cosine", 1)])
def test_too_short(kind, timesteps):
    with pytest.raises(ConfigurationError, match=f"{timesteps} timesteps is too short; use more than 20"):
        NoiseSchedule(kind, timesteps)


def test_unknown_kind():
    with pytest.raises(ConfigurationError, match="'sigmoid' is not known; known are 'linear', 'cosine'"):
        NoiseSchedule("sigmoid")
