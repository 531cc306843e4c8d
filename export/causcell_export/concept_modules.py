"""Graphs of concepts, as PyTorch modules whose inputs and outputs are the contract's.

Shapes: B cells, m observed concepts, M concepts with the unexplained one last, k numbers a concept, V numbers of all
concepts' values side by side.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from causcell_training.model import CausCell


class EncoderScm(nn.Module):
    """Encoder and structural causal model: a cell's concepts from its expression."""

    projection: Tensor
    offset: Tensor

    def __init__(self, model: CausCell) -> None:
        super().__init__()
        self.model = model
        with torch.no_grad():  # standardisation goes into the projection: two passes over the genes are none
            projection = model.encoder.projection.double() / model.deviation.double()[:, None]
            self.register_buffer("projection", projection.float())
            self.register_buffer("offset", (-model.mean.double() @ projection).float())

    def forward(self, expression: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return exogenous mean, its log-variance and endogenous embeddings.

        Parameters
        ----------
        expression
            Log scale, float32 [B x G].

        Returns
        -------
        float32 [B x M x k] each.
        """
        mean, logvar = self.model.encoder.read_scores(expression @ self.projection + self.offset)
        mean = self.model.recentre_exogenous(mean)
        return mean, logvar, self.model.scm(mean)


class Abduction(nn.Module):
    """Addition of a cell's known labels to embeddings that were read from its expression."""

    def __init__(self, model: CausCell) -> None:
        super().__init__()
        self.model = model

    def forward(self, exogenous: Tensor, labels: Tensor) -> Tensor:
        """Return informed exogenous embeddings, float32 [B x M x k]; see `causcell_training.model.CausCell.inform`.

        Parameters
        ----------
        exogenous
            Exogenous embeddings, float32 [B x M x k].
        labels
            Label codes, -1 for unlabelled, int64 [B x m].
        """
        return self.model.inform(exogenous, labels)


class InformedByValues(nn.Module):
    """Addition of a cell's known values to embeddings that were read from its expression; see `Abduction`."""

    def __init__(self, model: CausCell) -> None:
        super().__init__()
        self.model = model

    def forward(self, exogenous: Tensor, values: Tensor) -> Tensor:
        """Return informed exogenous embeddings, float32 [B x M x k].

        Parameters
        ----------
        exogenous
            Exogenous embeddings, float32 [B x M x k].
        values
            Values of all concepts side by side, NaN for unlabelled, float32 [B x V].
        """
        return self.model.inform(exogenous, torch.empty(0), values)


class Prior(nn.Module):
    """Gaussian prior of each concept's embedding, given the concept's value."""

    def __init__(self, model: CausCell) -> None:
        super().__init__()
        self.model = model

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance, float32 [B x m x k] each, of values side by side, float32 [B x V]."""
        return self.model.prior(values)


class Scm(nn.Module):
    """Structural causal model: endogenous embeddings under an intervention, and the labels that they tell."""

    def __init__(self, model: CausCell) -> None:
        super().__init__()
        self.model = model

    def forward(self, exogenous: Tensor, forced: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Return endogenous embeddings and each concept's label logits.

        Parameters
        ----------
        exogenous, forced
            Exogenous embeddings, and endogenous ones to be forced, float32 [B x M x k].
        mask
            1 where a concept is forced, else 0, float32 [B x M].

        Returns
        -------
        float32 [B x M x k], [B x labels] for each concept, and [B x 1] for each ordinal or continuous one; see
        `causcell_training.scm.StructuralCausalModel`.
        """
        endogenous = self.model.scm(exogenous, forced, mask)
        return endogenous, *self.model.label_logits(endogenous), *self.model.numbers(endogenous).values()
