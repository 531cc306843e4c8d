"""The structural causal model over concept embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from causcell.schema import ConceptSchema


class StructuralCausalModel(nn.Module):
    """z = A^T z + eps over a DAG (paper: the linear SCM layer), with interventions.

    Parameters
    ----------
    schema
        Concepts, edges and their weights.
    """

    total_effect: Tensor

    def __init__(self, schema: ConceptSchema) -> None:
        super().__init__()
        adjacency = torch.tensor(schema.adjacency(), dtype=torch.float64)
        self._order = schema.order
        self._parents = [[(p, float(adjacency[p, i])) for p in schema.parents(i)] for i in range(len(schema.concepts))]
        effect = torch.linalg.inv(torch.eye(schema.size, dtype=torch.float64) - adjacency.T)
        self.register_buffer("total_effect", effect.float(), persistent=False)  # B = (I - A^T)^-1

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
        for i in (*self._order, len(z) - 1):
            for parent, weight in self._parents[i] if i < len(self._parents) else ():
                z[i] = z[i] + weight * z[parent]
            if forced is not None and mask is not None:
                z[i] = torch.where(mask[:, i, None] > 0.5, forced[:, i], z[i])
        return torch.stack(z, dim=1)

    def marginal_variance(self, exogenous_variance: Tensor) -> Tensor:
        """Variance of each z_i given x, over its ancestors: sum_j B_ij^2 sigma_j^2, [B x M x k]."""
        return torch.einsum("ij,bjk->bik", self.total_effect**2, exogenous_variance)
