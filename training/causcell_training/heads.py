"""Heads: what the denoiser's last layer means, how it is trained, and what x0 it predicts.

Everything is on the standardised scale; alpha_bar is abar of each cell's time, [B x 1].
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LARGEST_BELOW_ONE = 1 - 2**-24
"""The largest float32 below 1: a quantile at 1 would be infinite."""


class Posterior(NamedTuple):
    """x0 given x_t, for each cell and gene, [B x G]: zero expression, or with ``probability`` a Gaussian slab."""

    probability: Tensor
    mean: Tensor
    deviation: Tensor


class PlainHead(nn.Module):
    """x0 by regression: a linear map of the hidden state (the paper's objective).

    Parameters
    ----------
    zero
        Standardised zero expression, [G]; what `SpikeSlabHead` needs of the panel.
    """

    def __init__(self, width: int, zero: Tensor) -> None:
        super().__init__()
        self.output = nn.Linear(width, len(zero))

    def x0(self, hidden: Tensor, x_t: Tensor, alpha_bar: Tensor) -> Tensor:
        """Mean of x0 given x_t, [B x G], from hidden [B x d]."""
        return self.output(hidden).to(x_t.dtype)

    def losses(self, hidden: Tensor, x_t: Tensor, alpha_bar: Tensor, x: Tensor) -> dict[str, Tensor]:
        """What training minimises, by name, for each cell and gene, [B x G], given the clean x."""
        return {"reconstruction": (self.x0(hidden, x_t, alpha_bar) - x) ** 2}


class SkipHead(PlainHead):
    """x0 = sqrt(abar) x_t + sqrt(1 - abar) F: regression of what x_t does not say already."""

    def x0(self, hidden: Tensor, x_t: Tensor, alpha_bar: Tensor) -> Tensor:
        """Mean of x0 given x_t, [B x G]."""
        return alpha_bar.sqrt() * x_t + (1 - alpha_bar).sqrt() * self.output(hidden).to(x_t.dtype)


class SpikeSlabHead(nn.Module):
    """x0 is zero expression or Gaussian: the posterior given x_t in closed form.

    The network says the slab's mean and the logit of its probability before x_t is seen; the slab's deviation is
    learned for each gene.
    """

    zero: Tensor

    def __init__(self, width: int, zero: Tensor) -> None:
        super().__init__()
        self.register_buffer("zero", zero, persistent=False)
        self.slab_mean = nn.Linear(width, len(zero))
        self.slab_logit = nn.Linear(width, len(zero))
        self.log_deviation = nn.Parameter(torch.zeros(len(zero)))

    def prior(self, hidden: Tensor) -> Posterior:
        """Spike and slab given the concepts alone, which is the posterior at pure noise."""
        logit, mean = self.slab(hidden)
        return Posterior(torch.sigmoid(logit), mean, self.log_deviation.exp().expand_as(mean))

    def slab(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """What the network says: the slab's log-odds and mean before x_t is seen, [B x G]."""
        return self.slab_logit(hidden).to(self.zero.dtype), self.slab_mean(hidden).to(self.zero.dtype)

    def posterior(self, hidden: Tensor, x_t: Tensor, alpha_bar: Tensor) -> Posterior:
        """Spike and slab given x_t: `spike_slab_posterior` of what the network says."""
        deviation = self.log_deviation.exp()
        logit, mean, variance = spike_slab_posterior(*self.slab(hidden), deviation, self.zero, x_t, alpha_bar)
        return Posterior(torch.sigmoid(logit), mean, variance.sqrt())

    def x0(self, hidden: Tensor, x_t: Tensor, alpha_bar: Tensor) -> Tensor:
        """Mean of x0 given x_t, [B x G]."""
        return self.mean(self.posterior(hidden, x_t, alpha_bar))

    def mean(self, posterior: Posterior) -> Tensor:
        """Mean of a posterior, [B x G]."""
        return self.zero + posterior.probability * (posterior.mean - self.zero)

    def losses(self, hidden: Tensor, x_t: Tensor, alpha_bar: Tensor, x: Tensor) -> dict[str, Tensor]:
        """Squared error of the mean; and minus the log-likelihood of x0 (zero or not: Bernoulli; its value: Gaussian).

        The likelihood is weighted by 1 - abar: where x_t tells x0 there is nothing to learn.
        """
        deviation = self.log_deviation.exp()
        logit, mean, variance = spike_slab_posterior(*self.slab(hidden), deviation, self.zero, x_t, alpha_bar)
        expressed = (x > self.zero + 1e-4).to(x.dtype)
        value = 0.5 * ((x - mean) ** 2 / variance + variance.log())
        likelihood = F.binary_cross_entropy_with_logits(logit, expressed, reduction="none") + expressed * value
        x0 = self.zero + torch.sigmoid(logit) * (mean - self.zero)
        return {"reconstruction": (x0 - x) ** 2, "likelihood": (1 - alpha_bar) * likelihood}


def spike_slab_posterior(
    logit: Tensor, mean: Tensor, deviation: Tensor, zero: Tensor, x_t: Tensor, alpha_bar: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Posterior of x0 given x_t = sqrt(abar) x0 + sqrt(1 - abar) noise, for x0 "zero or Gaussian".

    Parameters
    ----------
    logit, mean, deviation
        Of the slab before x_t is seen: its log-odds and mean [B x G], its deviation [G].
    zero
        The spike, [G].

    Returns
    -------
    Log-odds, mean and variance of the slab after x_t is seen, [B x G].
    """
    signal, noise = alpha_bar.sqrt(), 1 - alpha_bar
    marginal = alpha_bar * deviation**2 + noise
    log_slab = -0.5 * ((x_t - signal * mean) ** 2 / marginal + marginal.log())
    log_spike = -0.5 * ((x_t - signal * zero) ** 2 / noise + noise.log())
    gain = signal * deviation**2 / marginal
    posterior_mean = mean + gain * (x_t - signal * mean)
    return logit + log_slab - log_spike, posterior_mean, deviation**2 * noise / marginal


def normal_quantile(u: Tensor) -> Tensor:
    """Quantile of the standard normal for u from 1e-8 to `LARGEST_BELOW_ONE`, in arithmetic ONNX has, without branches.

    (2u - 1) P(v) / Q(v), with v = log(4u(1 - u)): the quotient of the quantile and 2u - 1 is even about 1/2, and smooth
    in v down to the tails. P and Q are a least-squares fit, reweighted towards the largest relative error: 1e-6 in
    float32.
    """
    v = torch.log(4 * u * (1 - u))
    above = _polynomial(v, (1.2533147, -0.52178413, 0.11035535, -0.015189446, 1.3312763e-3, -1.113459e-5))
    below = _polynomial(v, (1.0, -0.15453541, 0.034517743, -3.765802e-3, 1.3596929e-4))
    return (2 * u - 1) * above / below


def _polynomial(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    *others, second, first = coefficients
    value = first * x + second
    for coefficient in reversed(others):
        value = value * x + coefficient
    return value


HEADS: dict[str, type[PlainHead] | type[SpikeSlabHead]] = {
    "plain": PlainHead,
    "skip": SkipHead,
    "spike_slab": SpikeSlabHead,
}
