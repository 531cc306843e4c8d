"""A head as another package would bring it: zero expression or a Laplace slab, told by the network itself."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from causcell.diffusion.solvers import SolverSettings
from causcell_training.heads import Head


class LaplaceHead(Head):
    """p(x0 | x_t) = zero with probability 1 - r, else Laplace(m, s): heavier tails than a Gaussian slab's.

    The hidden state knows x_t, so r and m are told as they are after x_t is seen; s is learned for each gene. The mean
    is ``v0 + r (m - v0)``; a posterior draw is the slab's quantile at u / r where u < r. Loops of many steps regress.
    """

    loss_names: ClassVar[tuple[str, ...]] = ("reconstruction", "likelihood")
    presets: ClassVar[Mapping[str, SolverSettings]] = {
        "draw": SolverSettings("draw"),
        "balanced": SolverSettings("dpmpp", steps=10),
        "accurate": SolverSettings("ddpm", steps=25),
        "mean": SolverSettings("mean"),
    }
    draws: ClassVar[bool] = True

    zero: Tensor

    def __init__(self, width: int, zero: Tensor) -> None:
        super().__init__(width, zero)
        self.register_buffer("zero", zero, persistent=False)
        self.logit = nn.Linear(width, len(zero))
        self.location = nn.Linear(width, len(zero))
        self.log_scale = nn.Parameter(torch.zeros(len(zero)))

    def slab(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logit of r, and m, float32 [B x G] each."""
        return self.logit(hidden).to(self.zero.dtype), self.location(hidden).to(self.zero.dtype)

    def x0(self, hidden: Tensor, x_t: Tensor, alpha_bar: Tensor) -> Tensor:
        """Return the posterior mean of x0, float32 [B x G]."""
        logit, location = self.slab(hidden)
        return self.zero + torch.sigmoid(logit) * (location - self.zero)

    def losses(self, hidden: Tensor, x_t: Tensor, alpha_bar: Tensor, x: Tensor) -> dict[str, Tensor]:
        """Return the squared error of the mean, and minus the log-likelihood of x0."""
        logit, location = self.slab(hidden)
        expressed = (x > self.zero + 1e-4).to(x.dtype)
        value = (x - location).abs() / self.log_scale.exp() + self.log_scale
        likelihood = F.binary_cross_entropy_with_logits(logit, expressed, reduction="none") + expressed * value
        return {"reconstruction": (self.x0(hidden, x_t, alpha_bar) - x) ** 2, "likelihood": likelihood}

    def draw_constants(self, deviation: Tensor) -> dict[str, Tensor]:
        """Return s on the log scale, float32 [G]."""
        return {"slab_scale": deviation * self.log_scale.exp()}

    def draw(self, hidden: Tensor, uniforms: Tensor, mean: Tensor, deviation: Tensor, **constants: Tensor) -> Tensor:
        """Return zero where u is at least r, else the Laplace quantile at p = u / r, float32 [B x G]."""
        logit, location = self.slab(hidden)
        probability = torch.sigmoid(logit)
        side = uniforms / probability - 0.5
        quantile = -torch.sign(side) * torch.log((1 - 2 * side.abs()).clamp(min=1e-7))
        value = location * deviation + mean + constants["slab_scale"] * quantile
        return torch.where(uniforms < probability, value.clamp(min=0), 0.0)
