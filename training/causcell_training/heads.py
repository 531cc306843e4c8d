"""Heads: what the denoiser's last layer means, how it is trained, and what x0 it predicts."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn


class Head(Protocol):
    """A head of the denoiser. Everything is on the standardised scale."""

    def x0(self, hidden: Tensor, x_t: Tensor, alpha_bar: Tensor) -> Tensor:
        """Mean of x0 given x_t, [B x G], from hidden [B x d]; alpha_bar [B x 1] is abar of each cell's time."""
        ...

    def loss(self, hidden: Tensor, x_t: Tensor, alpha_bar: Tensor, x: Tensor) -> Tensor:
        """What training minimises, for each cell and gene, [B x G], given the clean x [B x G]."""
        ...


class PlainHead(nn.Module):
    """x0 by regression: a linear map of the hidden state (the paper's objective)."""

    def __init__(self, width: int, genes: int) -> None:
        super().__init__()
        self.output = nn.Linear(width, genes)

    def x0(self, hidden: Tensor, x_t: Tensor, alpha_bar: Tensor) -> Tensor:
        """See `Head`."""
        return self.output(hidden)

    def loss(self, hidden: Tensor, x_t: Tensor, alpha_bar: Tensor, x: Tensor) -> Tensor:
        """Squared error."""
        return (self.x0(hidden, x_t, alpha_bar) - x) ** 2


HEADS: dict[str, type[PlainHead]] = {"plain": PlainHead}
