"""The structural causal model over concept embeddings."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from causcell.concepts import ConceptSchema, Edge


class StructuralCausalModel(nn.Module):
    """z = A^T z + eps over a DAG (paper: the linear SCM layer), with interventions.

    Parameters
    ----------
    schema
        Concepts, edges and their weights.
    learned
        Whether training moves the weights of the edges, from those of the schema; which edges there are, it never does.
    """

    weights: Tensor

    def __init__(self, schema: ConceptSchema, *, learned: bool = False) -> None:
        super().__init__()
        self._schema = schema
        self._place = {(schema.index(e.parent), schema.index(e.child)): n for n, e in enumerate(schema.edges)}
        weights = torch.tensor([edge.weight for edge in schema.edges], dtype=torch.float32)
        if learned:
            self.weights = nn.Parameter(weights)
        else:
            self.register_buffer("weights", weights, persistent=False)

    @property
    def schema(self) -> ConceptSchema:
        """Concepts and graph, with the weights as they are now."""
        edges = zip(self._schema.edges, self.weights.tolist(), strict=True)
        return replace(self._schema, edges=tuple(Edge(e.parent, e.child, float(weight)) for e, weight in edges))

    def forward(self, exogenous: Tensor, forced: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Endogenous embeddings, concept after concept in causal order.

        Parameters
        ----------
        exogenous
            [B x M x k].
        forced, mask
            Where mask [B x M] is not zero, z_i is forced[:, i] [B x M x k] and the edges into i are cut.

        Returns
        -------
        [B x M x k].
        """
        z = list(exogenous.unbind(dim=1))
        for i in (*self._schema.order, len(z) - 1):
            for parent in self._schema.parents(i) if i < len(self._schema.concepts) else ():
                z[i] = z[i] + self.weights[self._place[parent, i]] * z[parent]
            if forced is not None and mask is not None:
                z[i] = torch.where(mask[:, i, None] > 0.5, forced[:, i], z[i])
        return torch.stack(z, dim=1)

    def marginal_variance(self, exogenous_variance: Tensor) -> Tensor:
        """Variance of each z_i given x, over its ancestors: sum_j B_ij^2 sigma_j^2, [B x M x k]; B = (I - A^T)^-1."""
        adjacency = torch.zeros(self._schema.size, self._schema.size, device=self.weights.device)
        if self._place:
            parents, children = torch.tensor(list(self._place), device=self.weights.device).T
            adjacency = adjacency.index_put((parents, children), self.weights)
        total_effect = torch.linalg.inv(torch.eye(self._schema.size, device=self.weights.device) - adjacency.T)
        return torch.einsum("ij,bjk->bik", total_effect**2, exogenous_variance)
