"""The structural causal model over concept embeddings, as a differentiable layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from causcell.concepts import ConceptSchema, Edge
from causcell_training.edge_gates import EdgeGates


class Mechanism(nn.Module):
    """Network g_i(z_parents) of what a concept's parents add together, beyond the sum of what each adds.

    It begins at zero, so that a nonlinear model begins as the linear one.

    Parameters
    ----------
    parents
        Number of parents.
    embedding
        Numbers per concept, k.
    width
        Hidden width.
    """

    def __init__(self, parents: int, embedding: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(parents * embedding, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        self.out = nn.Linear(width, embedding)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, parents: Tensor) -> Tensor:
        """Return what is added, [B x k], from the parents' embeddings [B x parents x k]."""
        added: Tensor = self.out(self.layers(parents.flatten(1)))
        return added


class StructuralCausalModel(nn.Module):
    """Structural causal model over a DAG with additive noise and interventions.

    Linear, z = A^T z + eps (Gao et al., Nature Communications 2025, s41467-025-62008-1, the SCM layer), or nonlinear,
    z_i = sum_j A_ji z_j + g_i(z_parents) + eps_i with a `Mechanism` g_i of each concept that has parents. The graph is
    acyclic and noise is added, so that either is solved for z, and for eps, exactly, one concept after another. Shapes:
    B cells, M = m + 1 concepts with the unexplained one last, k numbers per concept. A [M x M] holds the weight of the
    edge from i to j at [i, j].

    Parameters
    ----------
    schema
        Concepts, edges and their weights.
    learned
        Make the edge weights parameters that training moves, beginning at those of the schema.
    mechanism
        ``(k, width)`` of nonlinear mechanisms; none: linear.

    Attributes
    ----------
    gates
        Gates of the edges while a graph is learned, see `learn_edges`; else none.

    Examples
    --------
    >>> import torch
    >>> from causcell.concepts import Concept, ConceptSchema, Edge
    >>> schema = ConceptSchema((Concept("a", ("0", "1")), Concept("b", ("0", "1"))), (Edge("a", "b", 0.5),))
    >>> StructuralCausalModel(schema)(torch.tensor([[[2.0], [1.0], [7.0]]])).flatten().tolist()
    [2.0, 2.0, 7.0]
    """

    weights: Tensor
    gates: EdgeGates | None

    def __init__(
        self, schema: ConceptSchema, *, learned: bool = False, mechanism: tuple[int, int] | None = None
    ) -> None:
        super().__init__()
        self._schema = replace(schema, mechanism="nonlinear" if mechanism else "linear")
        self._place = {(schema.index(e.parent), schema.index(e.child)): n for n, e in enumerate(schema.edges)}
        weights = torch.tensor([edge.weight for edge in schema.edges], dtype=torch.float32)
        if learned:
            self.weights = nn.Parameter(weights)
        else:
            self.register_buffer("weights", weights, persistent=False)
        self.gates = None
        children = [(i, parents) for i in range(len(schema.concepts)) if (parents := schema.parents(i))]
        self.mechanisms = nn.ModuleDict(
            {str(i): Mechanism(len(parents), *mechanism) for i, parents in children} if mechanism else {}
        )

    def learn_edges(self) -> None:
        """Put a gate on every edge: the schema's edges are from now on those that are allowed."""
        self.gates = EdgeGates(len(self._schema.edges))

    @property
    def schema(self) -> ConceptSchema:
        """Concepts and graph, with the edge weights as they are now."""
        edges = zip(self._schema.edges, self.weights.tolist(), strict=True)
        return replace(self._schema, edges=tuple(Edge(e.parent, e.child, float(weight)) for e, weight in edges))

    def forward(self, exogenous: Tensor, forced: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Solve for z, concept after concept in causal order.

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
            for caused in self._add_up(i, z):
                z[i] = z[i] + caused
            if forced is not None and mask is not None:
                z[i] = torch.where(mask[:, i, None] > 0.5, forced[:, i], z[i])
        return torch.stack(z, dim=1)

    def exogenous(self, endogenous: Tensor) -> Tensor:
        """Solve for the exogenous embeddings that give endogenous ones, z_i less what its parents add; [B x M x k]."""
        eps, z = list(endogenous.unbind(dim=1)), endogenous.unbind(dim=1)
        for i in range(len(eps)):
            for caused in self._add_up(i, z):
                eps[i] = eps[i] - caused
        return torch.stack(eps, dim=1)

    def _add_up(self, i: int, z: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield what the parents of concept i add to it, [B x k] each, from all embeddings, [B x k] each."""
        parents = self._schema.parents(i) if i < len(self._schema.concepts) else ()
        places = [self._place[parent, i] for parent in parents]
        causes = [z[parent] for parent in parents]
        if self.gates is not None:
            causes = [self.gates(place) * cause for place, cause in zip(places, causes, strict=True)]
        for place, cause in zip(places, causes, strict=True):
            yield self.weights[place] * cause
        if str(i) in self.mechanisms:
            yield self.mechanisms[str(i)](torch.stack(causes, dim=1))

    def posterior(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Propagate q(eps | x) = N(mean, variance) to q(z_i | x).

        Linear mechanisms give the marginal, see `marginal_variance`. Nonlinear ones, and edges with gates, give
        q(z_i | x, z_parents) at a draw of the parents: the average over draws of a divergence from it is an upper bound
        of the divergence from the marginal (KL is convex).

        Parameters
        ----------
        mean, variance
            Of each exogenous embedding, [B x M x k].

        Returns
        -------
        tuple of Tensor
            Mean and variance of each endogenous embedding, [B x M x k] each.
        """
        if self.mechanisms or self.gates is not None:
            noise = variance.sqrt() * torch.randn_like(mean)
            return self(mean + noise) - noise, variance
        return self(mean), self.marginal_variance(variance)

    def marginal_variance(self, exogenous_variance: Tensor) -> Tensor:
        """Propagate the variance of q(eps | x) to q(z_i | x) along linear mechanisms.

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
