"""The structural causal model: z = (I - A^T)^-1 eps, and which edges an intervention cuts."""

import numpy as np
import pytest
import torch

from causcell.concepts import Concept, ConceptSchema, Edge
from causcell_training.scm import StructuralCausalModel

NAMES = ("c", "a", "d", "b")  # children stand before their parents: causal order is not the order of the axis
EDGES = (("a", "b", 0.5), ("b", "c", -1.5), ("a", "c", 2.0), ("c", "d", 0.75))
CELLS, EMBEDDING = 64, 5

TOLERANCE = 1e-5
"""Embeddings are sums of at most four float32 terms of size ten: their rounding is below 1e-5."""


def schema_of(edges: tuple[tuple[str, str, float], ...]) -> ConceptSchema:
    return ConceptSchema(tuple(Concept(name, ("no", "yes")) for name in NAMES), tuple(Edge(*edge) for edge in edges))


def adjacency_of(edges: tuple[tuple[str, str, float], ...]) -> np.ndarray:
    """A[i, j] is the weight of the edge from i to j; the last concept (unexplained) has no edge."""
    adjacency = np.zeros((len(NAMES) + 1, len(NAMES) + 1))
    for parent, child, weight in edges:
        adjacency[NAMES.index(parent), NAMES.index(child)] = weight
    return adjacency


def solved(adjacency: np.ndarray, exogenous: np.ndarray) -> np.ndarray:
    """z = (I - A^T)^-1 eps in float64, [B x M x k]."""
    return np.einsum("ij,bjk->bik", np.linalg.inv(np.eye(len(adjacency)) - adjacency.T), exogenous)


@pytest.fixture
def exogenous() -> torch.Tensor:
    return torch.randn(CELLS, len(NAMES) + 1, EMBEDDING, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("edges", [EDGES, EDGES[:1], ()], ids=["graph", "one edge", "no edge"])
def test_embeddings_solve_the_linear_equations(
    exogenous: torch.Tensor, edges: tuple[tuple[str, str, float], ...]
) -> None:
    z = StructuralCausalModel(schema_of(edges))(exogenous)
    expected = solved(adjacency_of(edges), exogenous.double().numpy())
    np.testing.assert_allclose(z.numpy(), expected, atol=TOLERANCE)


def test_exogenous_embeddings_are_solved_for(exogenous: torch.Tensor) -> None:
    scm = StructuralCausalModel(schema_of(EDGES))
    np.testing.assert_allclose(scm.exogenous(scm(exogenous)).numpy(), exogenous.numpy(), atol=TOLERANCE)


def test_concepts_without_parents_and_the_unexplained_one_are_untouched(exogenous: torch.Tensor) -> None:
    z = StructuralCausalModel(schema_of(EDGES))(exogenous)
    for place in (NAMES.index("a"), -1):
        assert torch.equal(z[:, place], exogenous[:, place])


def test_intervention_cuts_incoming_edges_and_propagates(exogenous: torch.Tensor) -> None:
    """Each cell against the equations of its own graph: the columns of forced concepts emptied, their eps replaced."""
    generator = torch.Generator().manual_seed(1)
    forced = torch.randn(exogenous.shape, generator=generator)
    mask = torch.randint(2, exogenous.shape[:2], generator=generator).float()
    assert len(np.unique(mask[:, : len(NAMES)].numpy(), axis=0)) == 16  # every set of targets is met
    z = StructuralCausalModel(schema_of(EDGES))(exogenous, forced, mask)
    for cell in range(CELLS):
        targets = mask[cell].numpy() > 0
        adjacency = adjacency_of(EDGES)
        adjacency[:, targets] = 0
        acted = np.where(targets[:, None], forced[cell].numpy(), exogenous[cell].numpy())
        expected = solved(adjacency, acted[None].astype(np.float64))[0]
        np.testing.assert_allclose(z[cell].numpy(), expected, atol=TOLERANCE)


def test_forced_embeddings_are_taken_and_non_descendants_kept_bit_for_bit(exogenous: torch.Tensor) -> None:
    scm = StructuralCausalModel(schema_of(EDGES))
    forced, mask = torch.full_like(exogenous, 7.0), torch.zeros(exogenous.shape[:2])
    mask[:, NAMES.index("c")] = 1
    factual, acted = scm(exogenous), scm(exogenous, forced, mask)
    assert torch.equal(acted[:, NAMES.index("c")], forced[:, NAMES.index("c")])
    for name in ("a", "b"):
        assert torch.equal(acted[:, NAMES.index(name)], factual[:, NAMES.index(name)])
    assert torch.equal(acted[:, -1], factual[:, -1])
    assert not torch.allclose(acted[:, NAMES.index("d")], factual[:, NAMES.index("d")])  # its only descendant


def test_forced_values_do_not_matter_where_nothing_is_forced(exogenous: torch.Tensor) -> None:
    scm = StructuralCausalModel(schema_of(EDGES))
    unmasked = scm(exogenous, torch.full_like(exogenous, torch.nan), torch.zeros(exogenous.shape[:2]))
    assert torch.equal(unmasked, scm(exogenous))


def test_marginal_variance_sums_over_ancestors(exogenous: torch.Tensor) -> None:
    variance = exogenous.exp()
    total_effect = np.linalg.inv(np.eye(len(NAMES) + 1) - adjacency_of(EDGES).T)
    expected = np.zeros(variance.shape)
    for i in range(len(NAMES) + 1):
        for j in range(len(NAMES) + 1):
            expected[:, i] += total_effect[i, j] ** 2 * variance[:, j].double().numpy()
    found = StructuralCausalModel(schema_of(EDGES)).marginal_variance(variance)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)  # float32 sums of positive terms


def test_marginal_variance_is_that_of_sampled_embeddings() -> None:
    scm = StructuralCausalModel(schema_of(EDGES))
    generator = torch.Generator().manual_seed(2)
    variance = torch.rand(1, len(NAMES) + 1, EMBEDDING, generator=generator) + 0.5
    noise = torch.randn(20_000, *variance.shape[1:], generator=generator)
    sampled = scm(variance.sqrt() * noise).var(dim=0)
    # the deviation of a variance estimated from n samples is sqrt(2 / n) = 1 % of it; 5 % is beyond its tails
    torch.testing.assert_close(sampled, scm.marginal_variance(variance)[0], rtol=0.05, atol=0)


def test_learned_weights_begin_at_the_schemas_and_stand_in_the_schema_that_comes_out(exogenous: torch.Tensor) -> None:
    scm = StructuralCausalModel(schema_of(EDGES), learned=True)
    torch.testing.assert_close(scm(exogenous), StructuralCausalModel(schema_of(EDGES))(exogenous))
    with torch.no_grad():
        scm.weights.copy_(torch.tensor([2.0, 3.0, -1.0, 0.25]))
    moved = tuple((parent, child, w) for (parent, child, _), w in zip(EDGES, (2.0, 3.0, -1.0, 0.25), strict=True))
    assert scm.schema == schema_of(moved)
    torch.testing.assert_close(scm(exogenous), StructuralCausalModel(scm.schema)(exogenous))


def test_learned_weights_get_gradients_from_embeddings_and_from_their_variance(exogenous: torch.Tensor) -> None:
    scm = StructuralCausalModel(schema_of(EDGES), learned=True)
    for loss in (scm(exogenous).square().sum(), scm.marginal_variance(exogenous.exp()).sum()):
        (gradient,) = torch.autograd.grad(loss, scm.weights)
        assert (gradient != 0).all()


def test_fixed_weights_are_no_parameters() -> None:
    assert not list(StructuralCausalModel(schema_of(EDGES)).parameters())
