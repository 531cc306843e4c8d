"""The encoder: exogenous embeddings of all concepts from a cell's expression."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Encoder(nn.Module):
    """Amortised posterior q(eps | x): a diagonal Gaussian from the principal components of standardised expression.

    The projection to principal components is fixed before training: a first layer learned from the genes fits the
    noise of a few thousand cells. Beside the MLP a linear map gives the mean, for the same reason. (Kang, 2,007
    training cells, MSE of held-out cells: genes .289, with the linear map .283, components and linear map .272.)

    Parameters
    ----------
    genes
        Number of panel genes, G.
    concepts
        Number of concepts with the unexplained one, M.
    embedding
        Numbers per concept, k.
    components
        Principal components read; `projection` [G x components] is zero until it is set.
    width, layers
        Width and number of the MLP's hidden layers.
    dropout
        Share of genes and of hidden units left out in training.
    """

    projection: Tensor

    def __init__(
        self, genes: int, concepts: int, embedding: int, *, components: int, width: int, layers: int, dropout: float
    ) -> None:
        super().__init__()
        self._shape = (concepts, embedding)
        self.register_buffer("projection", torch.zeros(genes, components))
        self.dropout = nn.Dropout(dropout)
        body: list[nn.Module] = []
        for i in range(layers):
            body += [nn.Linear(width if i else components, width), nn.LayerNorm(width), nn.SiLU(), nn.Dropout(dropout)]
        self.body = nn.Sequential(*body)
        self.output = nn.Linear(width, 2 * concepts * embedding)
        self.linear = nn.Linear(components, concepts * embedding, bias=False)

    def forward(self, standardised: Tensor) -> tuple[Tensor, Tensor]:
        """Compute mean and log-variance of q(eps | x).

        Parameters
        ----------
        standardised
            Standardised expression, float [B x G].

        Returns
        -------
        tuple of Tensor
            Mean and log-variance (within -10 and 4), each [B x M x k].
        """
        return self.read_scores(self.dropout(standardised) @ self.projection)

    def read_scores(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Compute mean and log-variance, each [B x M x k], of principal components, [B x components]."""
        mean, logvar = self.output(self.body(scores)).unflatten(1, (2, *self._shape)).unbind(dim=1)
        return mean + self.linear(scores).unflatten(1, self._shape), logvar.clamp(-10, 4)
