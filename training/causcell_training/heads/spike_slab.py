"""Spike and slab: the posterior of "zero expression or Gaussian" in closed form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from causcell.diffusion.sampling import POSTERIOR_OUTPUTS
from causcell.diffusion.slab import LARGEST_BELOW_ONE as LARGEST_BELOW_ONE
from causcell.diffusion.slab import QUANTILE_ABOVE, QUANTILE_BELOW
from causcell.diffusion.solvers import SolverSettings
from causcell_training.heads.base import Head
from causcell_training.heads.spike_slab_losses import SpikeSlabLosses


class Posterior(NamedTuple):
    """Posterior of x0 given x_t: zero expression or, with ``probability``, a Gaussian slab; float32 [B x G] each."""

    probability: Tensor
    mean: Tensor
    deviation: Tensor


class SpikeSlabHead(Head):
    """x0 is zero expression or, with a probability, Gaussian; its posterior given x_t follows in closed form.

    The network tells the slab's mean m and the logit l of its probability before x_t is seen; the slab's deviation
    sigma is learned for each gene. `spike_slab_posterior` has the equations.

    Parameters
    ----------
    width
        Hidden width d.
    zero
        Standardised zero expression, the spike, float32 [G].
    """

    loss_names: ClassVar[tuple[str, ...]] = ("reconstruction", "likelihood")
    presets: ClassVar[Mapping[str, SolverSettings]] = {
        "draw": SolverSettings("draw"),
        "balanced": SolverSettings("draw", steps=10),
        "accurate": SolverSettings("draw", steps=50),
        "mean": SolverSettings("mean"),
    }
    draws: ClassVar[bool] = True
    gaussian_slab: ClassVar[bool] = True
    denoiser_outputs: ClassVar[tuple[str, ...]] = ("x0", *POSTERIOR_OUTPUTS)

    zero: Tensor

    def __init__(self, width: int, zero: Tensor) -> None:
        super().__init__(width, zero)
        self.register_buffer("zero", zero, persistent=False)
        self.slab_mean = nn.Linear(width, len(zero))
        self.slab_logit = nn.Linear(width, len(zero))
        self.log_deviation = nn.Parameter(torch.zeros(len(zero)))

    def prior(self, hidden: Tensor) -> Posterior:
        """Return spike and slab given the concepts alone, which is the posterior at pure noise."""
        logit, mean = self.slab(hidden)
        return Posterior(torch.sigmoid(logit), mean, self.log_deviation.exp().expand_as(mean))

    def slab(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return the slab's log-odds l and mean m before x_t is seen, float32 [B x G] each."""
        return self.slab_logit(hidden).to(self.zero.dtype), self.slab_mean(hidden).to(self.zero.dtype)

    def posterior(self, hidden: Tensor, x_t: Tensor, alpha_bar: Tensor) -> Posterior:
        """Return spike and slab given x_t."""
        deviation = self.log_deviation.exp()
        logit, mean, variance = spike_slab_posterior(*self.slab(hidden), deviation, self.zero, x_t, alpha_bar)
        return Posterior(torch.sigmoid(logit), mean, variance.sqrt())

    def x0(self, hidden: Tensor, x_t: Tensor, alpha_bar: Tensor) -> Tensor:
        """Return the posterior mean of x0, float32 [B x G]."""
        return self.mean(self.posterior(hidden, x_t, alpha_bar))

    def mean(self, posterior: Posterior) -> Tensor:
        """Return the mean of a posterior, v0 + r (mu - v0), float32 [B x G]."""
        return self.zero + posterior.probability * (posterior.mean - self.zero)

    def losses(self, hidden: Tensor, x_t: Tensor, alpha_bar: Tensor, x: Tensor) -> dict[str, Tensor]:
        """Return the squared error of the mean, and minus the log-likelihood of x0, float32 [B x G] each.

        The likelihood is Bernoulli (zero or not) and Gaussian (the value), less its constant, weighted by 1 - abar:
        where x_t tells x0 there is nothing to learn.
        """
        slab = self.slab(hidden)
        losses = SpikeSlabLosses.apply(*slab, self.log_deviation, self.zero, x_t, alpha_bar, x)  # type: ignore[no-untyped-call]
        return dict(zip(self.loss_names, losses, strict=True))

    def denoise(self, hidden: Tensor, x_t: Tensor, alpha_bar: Tensor) -> tuple[Tensor, ...]:
        """Return the posterior mean of x0, and the slab's probability, mean and deviation, float32 [B x G] each."""
        posterior = self.posterior(hidden, x_t, alpha_bar)
        return self.mean(posterior), *posterior

    def draw_constants(self, deviation: Tensor) -> dict[str, Tensor]:
        """Return the slab's deviation on the log scale, float32 [G]."""
        return {"slab_deviation": deviation * self.log_deviation.exp()}

    def draw(self, hidden: Tensor, uniforms: Tensor, mean: Tensor, deviation: Tensor, **constants: Tensor) -> Tensor:
        """Return zero where u is at least the slab's probability r, else the slab's quantile at u / r, float32 [B x G].

        Most values are zero: the slab's quantile, half the time of a draw, is taken where there is a value alone. ONNX
        Runtime finds those faster among floats than among truths, and fetches them faster by element than by row.
        """
        prior = self.prior(hidden)
        below = (uniforms / prior.probability).flatten()
        expressed = torch.nonzero((1 - below).clamp(min=0)).flatten()
        gene = expressed % uniforms.shape[1]
        quantile = normal_quantile(below.gather(0, expressed).clamp(max=LARGEST_BELOW_ONE))
        centre = prior.mean.flatten().gather(0, expressed) * deviation.gather(0, gene) + mean.gather(0, gene)
        value = centre + constants["slab_deviation"].gather(0, gene) * quantile
        return torch.zeros_like(below).scatter(0, expressed, value.clamp(min=0)).view_as(uniforms)


def spike_slab_posterior(
    logit: Tensor, mean: Tensor, deviation: Tensor, zero: Tensor, x_t: Tensor, alpha_bar: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the posterior of x0 given x_t = sqrt(abar) x0 + sqrt(1 - abar) noise, for x0 "zero or Gaussian".

    With the slab N(m, sigma^2) of log-odds l, the spike v0 and ``vs = abar sigma^2 + 1 - abar``, Bayes' rule gives::

        l' = l + log N(x_t; sqrt(abar) m, vs) - log N(x_t; sqrt(abar) v0, 1 - abar)
        mu' = m + sqrt(abar) sigma^2 / vs (x_t - sqrt(abar) m)
        sigma'^2 = sigma^2 (1 - abar) / vs

    Parameters
    ----------
    logit, mean, deviation
        The slab before x_t is seen: log-odds l and mean m, float32 [B x G], deviation sigma, float32 [G].
    zero
        The spike v0, float32 [G].
    x_t
        Noised cells, float32 [B x G].
    alpha_bar
        abar of each cell's time, float32 [B x 1].

    Returns
    -------
    Log-odds l', mean mu' and variance sigma'^2 of the slab after x_t is seen, float32 [B x G] each.
    """
    signal, noise = alpha_bar.sqrt(), 1 - alpha_bar
    marginal = alpha_bar * deviation**2 + noise
    log_slab = -0.5 * ((x_t - signal * mean) ** 2 / marginal + marginal.log())
    log_spike = -0.5 * ((x_t - signal * zero) ** 2 / noise + noise.log())
    gain = signal * deviation**2 / marginal
    posterior_mean = mean + gain * (x_t - signal * mean)
    return logit + log_slab - log_spike, posterior_mean, deviation**2 * noise / marginal


def normal_quantile(u: Tensor) -> Tensor:
    """Compute `causcell.diffusion.slab.normal_quantile` in ONNX's operators, branch-free."""
    v = torch.log(4 * u * (1 - u))
    above = _polynomial(v, QUANTILE_ABOVE)
    below = _polynomial(v, QUANTILE_BELOW)
    return (2 * u - 1) * above / below


def _polynomial(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    *others, second, first = coefficients
    value = first * x + second
    for coefficient in reversed(others):
        value = value * x + coefficient
    return value
