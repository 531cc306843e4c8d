"""Priors p(z_i | value of concept i): a diagonal Gaussian whose mean and variance a network gives."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from causcell.concepts import Concept

_WIDTH = 64


class LabelPrior(nn.Module):
    """A Gaussian for each label: what models of plain labels have, as a table that one-hot values multiply.

    Parameters
    ----------
    embedding
        Numbers of an embedding, k.
    concept
        The concept.
    """

    def __init__(self, embedding: int, concept: Concept) -> None:
        super().__init__()
        self.mean = nn.Parameter(0.1 * torch.randn(len(concept.labels), embedding))
        self.logvar = nn.Parameter(torch.zeros(len(concept.labels), embedding))

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance, [B x k] each, of one-hot values [B x labels]."""
        return values @ self.mean, values @ self.logvar


class ValuePrior(nn.Module):
    """A linear map of the value beside a network of one hidden layer, which begins at zero.

    For a set the linear map adds up its members' embeddings, and the network what they do together; for a number it
    is a line, and the network what bends it.

    Parameters
    ----------
    embedding
        Numbers of an embedding, k.
    concept
        The concept, whose values are not one-hot.
    """

    def __init__(self, embedding: int, concept: Concept) -> None:
        super().__init__()
        width = concept.values.shape[1]
        self.linear = nn.Linear(width, embedding)
        self.hidden = nn.Linear(width, _WIDTH)
        self.output = nn.Linear(_WIDTH, 2 * embedding)
        with torch.no_grad():
            self.linear.weight.copy_(0.1 * torch.randn_like(self.linear.weight))
            self.linear.bias.zero_()
            self.output.weight.zero_()
            self.output.bias.zero_()

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance (within -8 and 4), [B x k] each, of values [B x width]."""
        mean, logvar = self.output(nn.functional.silu(self.hidden(values))).chunk(2, dim=1)
        return self.linear(values) + mean, logvar.clamp(-8, 4)


Prior = LabelPrior | ValuePrior


def make_prior(embedding: int, concept: Concept) -> Prior:
    """Make the prior of a concept: a table for plain labels, a network for all others."""
    return LabelPrior(embedding, concept) if concept.value is None else ValuePrior(embedding, concept)
