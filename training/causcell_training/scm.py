"""The structural causal model over concept embeddings, as a differentiable layer."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from causcell.concepts import ConceptSchema, Edge


class StructuralCausalModel(nn.Module):
    """Linear structural causal model over a DAG, z = A^T z + eps, with interventions.

    Gao et al. (Nature Communications 2025, s41467-025-62008-1), the SCM layer. Shapes: B cells, M = m + 1 concepts
    with the unexplained one last, k numbers per concept. A [M x M] holds the weight of the edge from i to j at [i, j].

    Parameters
    ----------
    schema
        Concepts, edges and their weights.
    learned
        Make the edge weights parameters that training moves, beginning at those of the schema. The set of edges is
        never learned.

    Examples
    --------
    >>> import torch
    >>> from causcell.concepts import Concept, ConceptSchema, Edge
    >>> schema = ConceptSchema((Concept("a", ("0", "1")), Concept("b", ("0", "1"))), (Edge("a", "b", 0.5),))
    >>> StructuralCausalModel(schema)(torch.tensor([[[2.0], [1.0], [7.0]]])).flatten().tolist()
    [2.0, 2.0, 7.0]
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
        """Concepts and graph, with the edge weights as they are now."""
        edges = zip(self._schema.edges, self.weights.tolist(), strict=True)
        return replace(self._schema, edges=tuple(Edge(e.parent, e.child, float(weight)) for e, weight in edges))

    def forward(self, exogenous: Tensor, forced: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Solve z = A^T z + eps, concept after concept in causal order.

        Parameters
        ----------
        exogenous
            Exogenous embeddings eps, float [B x M x k].
        forced, mask
            Embeddings that interventions set, [B x M x k], and where they do, [B x M]: where the mask is not zero, z_i
            is ``forced[:, i]`` and the edges into i are cut. Without both nothing is set.

        Returns
        -------
        Tensor
            Endogenous embeddings z, [B x M x k].
        """
        z = list(exogenous.unbind(dim=1))
        for i in (*self._schema.order, len(z) - 1):
            for parent in self._schema.parents(i) if i < len(self._schema.concepts) else ():
                z[i] = z[i] + self.weights[self._place[parent, i]] * z[parent]
            if forced is not None and mask is not None:
                z[i] = torch.where(mask[:, i, None] > 0.5, forced[:, i], z[i])
        return torch.stack(z, dim=1)

    def exogenous(self, endogenous: Tensor) -> Tensor:
        """Solve for the exogenous embeddings eps = (I - A^T) z that give endogenous ones z; both [B x M x k]."""
        eps = list(endogenous.unbind(dim=1))
        for i in range(len(self._schema.concepts)):
            for parent in self._schema.parents(i):
                eps[i] = eps[i] - self.weights[self._place[parent, i]] * endogenous[:, parent]
        return torch.stack(eps, dim=1)

    def marginal_variance(self, exogenous_variance: Tensor) -> Tensor:
        """Propagate the variance of q(eps | x) to q(z_i | x).

        Embeddings of different concepts are independent given x, so the variance of z_i is a sum over i and its
        ancestors: sum_j B_ij^2 sigma_j^2, with the total effects B = (I - A^T)^-1.

        Parameters
        ----------
        exogenous_variance
            Variance of each exogenous embedding, sigma^2, [B x M x k].

        Returns
        -------
        Tensor
            Marginal variance of each endogenous embedding, [B x M x k].
        """
        adjacency = torch.zeros(self._schema.size, self._schema.size, device=self.weights.device)
        if self._place:
            parents, children = torch.tensor(list(self._place), device=self.weights.device).T
            adjacency = adjacency.index_put((parents, children), self.weights)
        total_effect = torch.linalg.inv(torch.eye(self._schema.size, device=self.weights.device) - adjacency.T)
        return torch.einsum("ij,bjk->bik", total_effect**2, exogenous_variance)
