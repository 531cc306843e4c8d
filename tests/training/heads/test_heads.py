"""Heads: the spike-and-slab posterior against brute force, its likelihood, its draws, and what the others regress."""

import numpy as np
import pytest
import torch
from scipy import stats

from causcell.diffusion.sampling import draw_spike_slab
from causcell_training.heads import (
    LARGEST_BELOW_ONE,
    PlainHead,
    SkipHead,
    SpikeSlabHead,
    normal_quantile,
    spike_slab_posterior,
)

ZERO = torch.tensor([-0.3, -1.0, -0.1])
WIDTH, CELLS = 8, 6


def cells(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states and noised cells."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(CELLS, WIDTH, generator=generator), torch.randn(CELLS, len(ZERO), generator=generator)


def head_of(kind: type) -> PlainHead | SpikeSlabHead:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        head = kind(WIDTH, ZERO)
        if isinstance(head, SpikeSlabHead):
            torch.nn.init.normal_(head.log_deviation, std=0.3)
        return head


@pytest.mark.parametrize("alpha_bar", [0.01, 0.3, 0.9])
def test_posterior_is_bayes_rule(alpha_bar: float) -> None:
    """Integrated over x0 on a fine grid in float64; the formula to 1e-6."""
    logit, mean, deviation, zero, x_t = 0.4, 1.2, 0.6, -0.5, 0.7
    grid = np.linspace(-10, 10, 400_001)
    slab = stats.norm.pdf(grid, mean, deviation) * stats.norm.pdf(
        x_t, np.sqrt(alpha_bar) * grid, np.sqrt(1 - alpha_bar)
    )
    weight = 1 / (1 + np.exp(-logit))
    evidence = np.trapezoid(slab, grid)
    spike = stats.norm.pdf(x_t, np.sqrt(alpha_bar) * zero, np.sqrt(1 - alpha_bar))
    expected_mean = np.trapezoid(grid * slab, grid) / evidence
    expected_variance = np.trapezoid((grid - expected_mean) ** 2 * slab, grid) / evidence
    expected_odds = weight * evidence / ((1 - weight) * spike)
    given = [torch.tensor(value, dtype=torch.float64) for value in (logit, mean, deviation, zero, x_t, alpha_bar)]
    found = spike_slab_posterior(*given)
    np.testing.assert_allclose(
        [each.item() for each in found], [np.log(expected_odds), expected_mean, expected_variance], rtol=1e-6
    )


@torch.no_grad()
def test_at_pure_noise_the_posterior_is_the_prior() -> None:
    head = head_of(SpikeSlabHead)
    hidden, x_t = cells()
    for found, expected in zip(head.posterior(hidden, x_t, torch.zeros(CELLS, 1)), head.prior(hidden), strict=True):
        torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_mean_is_that_of_the_posteriors_draws() -> None:
    """Over 200,000 evenly spread uniform numbers; 1e-3 is their spacing in the tails."""
    head = head_of(SpikeSlabHead)
    hidden, x_t = cells()
    alpha_bar = torch.full((CELLS, 1), 0.2)
    posterior = [each[:1, :1].numpy() for each in head.posterior(hidden, x_t, alpha_bar)]
    u = ((np.arange(200_000, dtype=np.float64) + 0.5) / 200_000)[None]
    drawn = draw_spike_slab(*(np.broadcast_to(each, u.shape) for each in posterior), ZERO[:1].numpy(), u)
    assert drawn.mean() == pytest.approx(head.x0(hidden, x_t, alpha_bar)[0, 0].item(), abs=1e-3)


@torch.no_grad()
def test_likelihood_is_bernoulli_and_gaussian() -> None:
    """By scipy, up to the Gaussian's constant, weighted by 1 - abar; float32."""
    head = head_of(SpikeSlabHead)
    hidden, x_t = cells()
    alpha_bar = torch.linspace(0.05, 0.9, CELLS)[:, None]
    x = torch.where(torch.arange(CELLS)[:, None] % 2 == 0, ZERO, ZERO + 1.5)
    probability, mean, deviation = (each.double().numpy() for each in head.posterior(hidden, x_t, alpha_bar))
    value = -stats.norm.logpdf(x.numpy(), mean, deviation) - 0.5 * np.log(2 * np.pi)
    expressed = (x > ZERO).numpy()
    expected = (1 - alpha_bar.numpy()) * np.where(expressed, value - np.log(probability), -np.log1p(-probability))
    losses = head.losses(hidden, x_t, alpha_bar, x)
    np.testing.assert_allclose(losses["likelihood"].numpy(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses["reconstruction"], (head.x0(hidden, x_t, alpha_bar) - x) ** 2)


@torch.no_grad()
def test_regression_heads() -> None:
    hidden, x_t = cells()
    alpha_bar = torch.full((CELLS, 1), 0.25)
    plain, skip = head_of(PlainHead), head_of(SkipHead)
    torch.testing.assert_close(plain.x0(hidden, x_t, alpha_bar), plain.output(hidden))
    torch.testing.assert_close(skip.x0(hidden, x_t, alpha_bar), 0.5 * x_t + 0.75**0.5 * skip.output(hidden))
    assert set(plain.losses(hidden, x_t, alpha_bar, x_t)) == {"reconstruction"}


def test_normal_quantile_is_the_standard_normals() -> None:
    """From 1e-8 to the largest float32 below one, against scipy in float64: 3e-6 of 1 + |quantile|, float32's own."""
    u = torch.cat([torch.linspace(1e-4, 0.9999, 50_001), 10.0 ** torch.linspace(-8, -4, 501)])
    u = torch.cat([u, torch.tensor([LARGEST_BELOW_ONE])])
    expected = stats.norm.ppf(u.double().numpy())
    difference = np.abs(normal_quantile(u).numpy() - expected) / (1 + np.abs(expected))
    assert difference.max() < 3e-6
