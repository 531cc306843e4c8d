"""Gates of a concept graph's edges: which of the allowed edges a model keeps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_TEMPERATURE, _LOW, _HIGH = 2 / 3, -0.1, 1.1
"""Temperature and limits of the hard concrete distribution, as Louizos et al. chose them."""

_PACE = 10.0
"""Log-odds of a parameter of 1. Adam steps by the learning rate, and within the few hundred steps of a short training
a gate has to go from open to shut, about 5."""

_FIRST = 2.0
"""Log-odds at the beginning: every edge is open, as in a graph that is given."""


class EdgeGates(nn.Module):
    """Gates in [0, 1], one an edge, each with a probability of being open that training moves.

    The hard concrete distribution of Louizos, Welling and Kingma ("Learning sparse neural networks through L0
    regularization", ICLR 2018): while training each cell draws its own gates, so that an edge that is sometimes shut
    can't make up for it by larger weights; the expected number of open ones, a sum of probabilities, has a gradient.
    Outside of a draw a gate is its typical value, and exactly 0 where it is rather shut than open.

    Parameters
    ----------
    edges
        Number of edges.

    Examples
    --------
    >>> gates = EdgeGates(2)
    >>> with torch.no_grad():
    ...     gates.parameter.copy_(torch.tensor([0.5, -0.5]))
    Parameter containing:
    tensor([ 0.5000, -0.5000], requires_grad=True)
    >>> gates.values().tolist()
    [1.0, 0.0]
    """

    def __init__(self, edges: int) -> None:
        super().__init__()
        self.parameter = nn.Parameter(torch.full((edges,), _FIRST / _PACE))
        self._drawn: Tensor | None = None

    def forward(self, place: int) -> Tensor:
        """Return the gate of the edge at a place, a scalar; in a draw that of each cell, [B x 1]."""
        return self.values()[place] if self._drawn is None else self._drawn[:, place, None]

    def values(self) -> Tensor:
        """Return the typical value of every gate, [edges]."""
        typical = (torch.sigmoid(_PACE * self.parameter) * (_HIGH - _LOW) + _LOW).clamp(0, 1)
        return typical * (self.probabilities() > 0.5)

    def probabilities(self) -> Tensor:
        """Return the probability that each edge is open, [edges]."""
        return torch.sigmoid(_PACE * self.parameter - _TEMPERATURE * math.log(-_LOW / _HIGH))

    @contextmanager
    def draw(self, cells: int) -> Iterator[None]:
        """Draw gates for a number of cells, which hold until the end: the same for a mechanism and its inverse."""
        uniform = torch.rand(cells, len(self.parameter), device=self.parameter.device).clamp(1e-6, 1 - 1e-6)
        concrete = torch.sigmoid((torch.logit(uniform) + _PACE * self.parameter) / _TEMPERATURE)
        self._drawn = (concrete * (_HIGH - _LOW) + _LOW).clamp(0, 1)
        try:
            yield
        finally:
            self._drawn = None
