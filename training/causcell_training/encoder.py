"""The encoder: exogenous embeddings of all concepts from a cell's expression."""

from __future__ import annotations

from torch import Tensor, nn


class Encoder(nn.Module):
    """q(eps | x), a diagonal Gaussian whose mean and log-variance an MLP reads from standardised expression."""

    def __init__(self, genes: int, concepts: int, embedding: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self._shape = (2, concepts, embedding)
        body: list[nn.Module] = [nn.Dropout(dropout)]
        for i in range(layers):
            body += [nn.Linear(genes if i == 0 else width, width), nn.LayerNorm(width), nn.SiLU(), nn.Dropout(dropout)]
        self.body = nn.Sequential(*body)
        self.output = nn.Linear(width, 2 * concepts * embedding)

    def forward(self, standardised: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, each [B x M x k], of expression [B x G]."""
        mean, logvar = self.output(self.body(standardised)).unflatten(1, self._shape).unbind(dim=1)
        return mean, logvar.clamp(-10, 4)
