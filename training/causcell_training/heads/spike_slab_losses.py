"""Losses of the spike-and-slab head with their gradient in closed form: a third of the passes that autograd makes.

Squared error and likelihood share most of their terms, and nine of ten values are zero, at which the slab's value has
no part in the likelihood. Symbols are those of `causcell_training.heads.spike_slab.spike_slab_posterior`: with V = abar
sigma^2 + 1 - abar, r = (x_t - sqrt(abar) m) / V, posterior log-odds l', mean mu' and variance s2 = sigma^2 (1 - abar) /
V, p = sigmoid(l'), e = 1 where x is expressed::

    reconstruction   R = (v0 + p (mu' - v0) - x)^2
    likelihood       L = (1 - abar) (softplus(l') + e ((x - mu')^2 / s2 / 2 + log(s2) / 2 - l'))

    d l'     = dR 2 (v0 + p (mu' - v0) - x) (mu' - v0) p (1 - p) + dL (1 - abar) (p - e)
    d mu'    = dR 2 (v0 + p (mu' - v0) - x) p - dL (1 - abar) e (x - mu') / s2
    d s2     = dL (1 - abar) e (1 / s2 - (x - mu')^2 / s2^2) / 2
    d l      = d l'
    d m      = d mu' (1 - abar) / V + d l' sqrt(abar) r
    d sigma2 = d mu' sqrt(abar) (1 - abar) r / V + d l' abar (r^2 - 1 / V) / 2 + d s2 (1 - abar)^2 / V^2
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_EXPRESSED = 1e-4
"""Distance above standardised zero at which a value is expressed."""


class SpikeSlabLosses(torch.autograd.Function):
    """Squared error of the posterior mean, and minus the log-likelihood of x0 times 1 - abar; float32 [B x G] each."""

    @staticmethod
    def forward(
        ctx: Any,
        logit: Tensor,
        mean: Tensor,
        log_deviation: Tensor,
        zero: Tensor,
        x_t: Tensor,
        alpha_bar: Tensor,
        x: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Compute both; arguments as for `spike_slab_posterior` but for the deviation's logarithm, and x [B x G]."""
        variance = (2 * log_deviation).exp()
        signal, noise = alpha_bar.sqrt(), 1 - alpha_bar
        marginal = (alpha_bar * variance).add_(noise)
        inverse = marginal.reciprocal()
        residual = (signal * mean).neg_().add_(x_t)
        scaled = residual * inverse
        odds = (signal * zero).neg_().add_(x_t).square_().mul_(0.5 / noise).add_(0.5 * noise.log()).add_(logit)
        odds.sub_(marginal.log_().addcmul_(residual, scaled), alpha=0.5)
        probability = torch.sigmoid(odds)
        beyond = residual.copy_(scaled).mul_(signal).mul_(variance).add_(mean).sub_(zero)
        row, gene = torch.nonzero(x > zero + _EXPRESSED, as_tuple=True)
        place = row * x.shape[1] + gene
        spread = noise.flatten().index_select(0, row).mul_(_take(inverse, place))
        slab = spread * variance.index_select(0, gene)
        distance = _take(x, place).sub_(zero.index_select(0, gene)).sub_(_take(beyond, place))
        value = 0.5 * (distance.square() / slab + slab.log()) - _take(odds, place)
        likely = marginal.copy_(probability).sub_(0.5).abs_().add_(0.5).log_()  # of the likelier case
        likelihood = odds.clamp_(min=0).sub_(likely)  # softplus(l')
        likelihood.view(-1).scatter_add_(0, place, value)
        error = likely.copy_(probability).mul_(beyond).add_(zero).sub_(x)
        ctx.save_for_backward(
            *(probability, error, beyond, scaled, inverse, variance, alpha_bar, gene, place, distance, slab, spread)
        )
        return error.square(), likelihood.mul_(noise)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_error: Tensor, of_likelihood: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients of log-odds, mean and log-deviation."""
        probability, error, beyond, scaled, inverse, variance, alpha_bar, *of_expressed = ctx.saved_tensors
        gene, place, distance, slab, spread = of_expressed
        signal, noise = alpha_bar.sqrt(), 1 - alpha_bar
        weight = of_likelihood * noise
        there = _take(weight, place)
        centre = (error * probability).mul_(of_error).mul_(2)
        odds = centre * beyond
        odds.addcmul_(odds, probability, value=-1).addcmul_(weight, probability)
        odds.view(-1).scatter_add_(0, place, -there)
        centre.view(-1).scatter_add_(0, place, -there * distance / slab)
        centre.mul_(inverse)
        mean = weight.copy_(odds).mul_(scaled)
        of_variance = (0.5 * alpha_bar).T @ (mean * scaled).addcmul_(odds, inverse, value=-1)
        of_variance += (signal * noise).T @ (scaled * centre)
        mean.mul_(signal).add_(centre.mul_(noise))
        of_slab = 0.5 * there * (1 - distance.square() / slab) / slab * spread.square()
        of_variance = of_variance.flatten().index_add(0, gene, of_slab)
        return odds, mean, 2 * variance * of_variance, None, None, None, None


def _take(matrix: Tensor, place: Tensor) -> Tensor:
    """Take the values at places of a matrix laid flat."""
    return matrix.view(-1).index_select(0, place)
