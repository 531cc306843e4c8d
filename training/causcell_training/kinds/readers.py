"""Readers of a concept's value from its embedding, one for each kind of concept.

Each has ``label_logits``, which every kind has, and says what its own loss is (`causcell_training.objective`, (3)):

========== =========================================================================================
kind       loss of a labelled cell
========== =========================================================================================
labels     cross-entropy of the label
ordinal    minus the Gaussian log-likelihood of the standardised number, one learned variance
continuous the same
set        binary cross-entropy of each member, summed
========== =========================================================================================
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from causcell.concepts import UNLABELLED, Concept
from causcell_training.kinds.priors import LabelPrior, Prior

_FAR = np.float32(1e6)
"""Standardised bound of the first and of the last bin, beyond all numbers."""


class LabelReader(nn.Linear):
    """Linear classifier of a concept's labels.

    Parameters
    ----------
    embedding
        Numbers of an embedding, k.
    concept
        The concept; its values are one-hot, or features of its labels.
    """

    def __init__(self, embedding: int, concept: Concept) -> None:
        super().__init__(embedding, len(concept.labels))
        if concept.value is not None:
            self.register_buffer("label_values", torch.from_numpy(concept.values), persistent=False)

    def label_logits(self, endogenous: Tensor) -> Tensor:
        """Return logits of the labels, [B x labels], of embeddings [B x k]."""
        logits: Tensor = self(endogenous)
        return logits

    def expected_mean(self, prior: Prior, endogenous: Tensor) -> Tensor:
        """Return the mean of the concept's prior, [B x k], averaged over what embeddings [B x k] tell of its value."""
        read = self(endogenous).softmax(dim=1).detach()  # a reader learns to read values, not to help decoding
        mean: Tensor = prior.mean if isinstance(prior, LabelPrior) else prior(self.get_buffer("label_values"))[0]
        expected: Tensor = read @ mean
        return expected

    def loss(self, endogenous: Tensor, codes: Tensor, values: Tensor) -> Tensor:
        """Return the loss of each cell, [B]; zero where ``codes`` [B] has no label."""
        return F.cross_entropy(self(endogenous), codes, ignore_index=UNLABELLED, reduction="none")


class NumberReader(nn.Module):
    """Linear regression of a concept's standardised number.

    Parameters
    ----------
    embedding
        Numbers of an embedding, k.
    concept
        The concept, ``ordinal`` or ``continuous``.
    """

    low: Tensor
    high: Tensor

    def __init__(self, embedding: int, concept: Concept) -> None:
        super().__init__()
        self.mean = nn.Linear(embedding, 1)
        self.logvar = nn.Parameter(torch.zeros(1))
        low, high = _intervals(concept)
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("high", high, persistent=False)

    def number(self, endogenous: Tensor) -> Tensor:
        """Return the standardised number, [B x 1], of embeddings [B x k]."""
        number: Tensor = self.mean(endogenous)
        return number

    def expected_mean(self, prior: Prior, endogenous: Tensor) -> Tensor:
        """Return the mean of the concept's prior, [B x k], at the number that embeddings [B x k] tell."""
        mean: Tensor = prior(self.number(endogenous).detach())[0]
        return mean

    def label_logits(self, endogenous: Tensor) -> Tensor:
        """Return logits of the labels, [B x labels]: minus half the squared distance of the number, over its variance.

        The largest is that of the bin which the number lies in, or of the nearest label.
        """
        number = self.number(endogenous)
        distance = (self.low - number).clamp(min=0) + (number - self.high).clamp(min=0)
        return -0.5 * distance**2 / self._clamped.exp()

    @property
    def _clamped(self) -> Tensor:
        return self.logvar.clamp(-6, 4)

    def loss(self, endogenous: Tensor, codes: Tensor, values: Tensor) -> Tensor:
        """Return the loss of each cell, [B]; zero where ``values`` [B x 1] is NaN."""
        known = values.isfinite()[:, 0]
        error = torch.where(known, values[:, 0] - self.number(endogenous)[:, 0], 0)
        return known * 0.5 * (self._clamped + error**2 / self._clamped.exp())


class SetReader(nn.Module):
    """Linear classifier of each member of a set.

    Parameters
    ----------
    embedding
        Numbers of an embedding, k.
    concept
        The concept, of kind ``set``.
    """

    combinations: Tensor

    def __init__(self, embedding: int, concept: Concept) -> None:
        super().__init__()
        combinations = torch.from_numpy(concept.values)
        self.members = nn.Linear(embedding, combinations.shape[1])
        self.register_buffer("combinations", combinations, persistent=False)

    def label_logits(self, endogenous: Tensor) -> Tensor:
        """Return logits of the combinations that training cells carry, [B x labels], of embeddings [B x k]."""
        logits = self.members(endogenous)
        joint: Tensor = logits @ self.combinations.t() - F.softplus(logits).sum(dim=1, keepdim=True)
        return joint

    def expected_mean(self, prior: Prior, endogenous: Tensor) -> Tensor:
        """Return the mean of the concept's prior, [B x k], at the members' probabilities that embeddings tell."""
        mean: Tensor = prior(self.members(endogenous).sigmoid().detach())[0]
        return mean

    def loss(self, endogenous: Tensor, codes: Tensor, values: Tensor) -> Tensor:
        """Return the loss of each cell, [B]; zero where ``values`` [B x members] is NaN."""
        known = values.isfinite().all(dim=1)
        members = torch.where(known[:, None], values, 0)
        loss = F.binary_cross_entropy_with_logits(self.members(endogenous), members, reduction="none").sum(dim=1)
        return known * loss


Reader = LabelReader | NumberReader | SetReader


def make_reader(embedding: int, concept: Concept) -> Reader:
    """Make the reader of a concept by its kind."""
    if concept.value is not None and concept.value.is_number:
        return NumberReader(embedding, concept)
    if concept.value is not None and concept.value.kind == "set":
        return SetReader(embedding, concept)
    return LabelReader(embedding, concept)


def _intervals(concept: Concept) -> tuple[Tensor, Tensor]:
    """Return the standardised lower and upper bound of each label, [labels]; equal for ordinal ones."""
    value = concept.value
    if value is None or value.kind == "ordinal":
        low = high = concept.values[:, 0].copy()
    else:
        bounds = value.standardise(np.array(value.bounds))
        low, high = np.append(-_FAR, bounds), np.append(bounds, _FAR)
    return torch.from_numpy(low), torch.from_numpy(high)
