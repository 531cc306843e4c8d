"""Independence of exogenous embeddings: labels they should not tell, and how much a linear probe reads of them."""

import numpy as np
import pytest
import torch
from probes import variance_explained_by_probe
from torch import Tensor, nn

from causcell.concepts import Concept, ConceptSchema, Edge
from causcell_training.independence import Independence, independencies
from causcell_training.independence import explained_variance as explained_by_moments


def one_hot(codes: Tensor, size: int) -> Tensor:
    return nn.functional.one_hot(codes, size).float()


def explained_variance(embedding: Tensor, labels: Tensor, given: Tensor | None = None) -> Tensor:
    """The definition, from labels that are one-hot."""
    return variance_explained_by_probe(embedding, labels, given)


TERMS = [
    *(Independence(0, (0, 1), 0), Independence(0, (0, 2), 0), Independence(1, (0,), None)),
    *(Independence(2, (0, 1), None), Independence(2, (1, 2), None), Independence(1, (1, 2), 1)),
]


@pytest.mark.parametrize("unlabelled", [False, True])
def test_value_and_gradient_are_those_of_the_definition(unlabelled: bool) -> None:
    """In double precision, of several terms of one embedding, of labels without cells, and of cells without labels."""
    sizes, generator = (5, 7, 3), torch.Generator().manual_seed(6)
    labels = torch.stack([torch.randint(size - 1, (90,), generator=generator) for size in sizes], dim=1)
    if unlabelled:
        labels[::7, 1] = -1
        labels[3:20, 0] = -1
        labels[5] = -1
    exogenous = torch.randn(90, 3, 6, generator=generator, dtype=torch.float64).requires_grad_()
    found = explained_by_moments(exogenous, labels, TERMS, sizes)
    expected = torch.zeros((), dtype=torch.float64)
    for embedding, concepts, given in TERMS:
        there = (labels[:, concepts] >= 0).all(dim=1)
        codes = labels[there][:, concepts[0]]
        for j in concepts[1:]:
            codes = codes * sizes[j] + labels[there][:, j]
        groups = None if given is None else one_hot(labels[there][:, given], sizes[given])
        told = one_hot(codes, int(np.prod([sizes[j] for j in concepts])))
        expected = expected + variance_explained_by_probe(exogenous[there, embedding], told, groups)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    gradients = [torch.autograd.grad(value, exogenous)[0] for value in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-8)


def test_nothing_is_explained_where_no_cell_carries_the_labels() -> None:
    labels = torch.full((4, 3), -1)
    assert explained_by_moments(torch.randn(4, 3, 6), labels, TERMS, (5, 7, 3)) == 0


def test_explained_variance_of_two_labels_is_the_share_of_a_linear_regression() -> None:
    """R^2 of regressing the label on the embedding; the ridge of 0.02 takes at most a few hundredths of it."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(2, (500,), generator=generator)
    embedding = torch.randn(500, 3, generator=generator)
    embedding[:, 0] += 1.5 * codes
    x, y = embedding.double().numpy(), codes.double().numpy()
    design = np.c_[np.ones(500), x]
    left = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    expected = 1 - left.var() / y.var()
    assert explained_variance(embedding, one_hot(codes, 2)).item() == pytest.approx(expected, rel=0.05)


def test_explained_variance_is_bounded_by_the_labels_less_one_and_nothing_hides_by_scale() -> None:
    generator = torch.Generator().manual_seed(1)
    codes = torch.arange(300) % 3
    told = one_hot(codes, 3) + 0.01 * torch.randn(300, 3, generator=generator)
    assert 1.8 < explained_variance(told, one_hot(codes, 3)).item() <= 2
    noise = torch.randn(300, 3, generator=generator)
    for embedding in (told, noise):
        full = explained_variance(embedding, one_hot(codes, 3))
        torch.testing.assert_close(
            explained_variance(0.05 * embedding + 7, one_hot(codes, 3)), full, rtol=0.05, atol=1e-3
        )
    # by chance: (3 numbers) x (2 free labels) / (299 cells) = 0.02, and rarely three times that
    assert explained_variance(noise, one_hot(codes, 3)).item() < 0.06


def test_what_an_embedding_tells_within_labels_is_less_what_the_labels_tell() -> None:
    """An embedding of its own label alone tells a descendant's label too, and nothing of it given its own."""
    generator = torch.Generator().manual_seed(2)
    own = torch.arange(600) % 3
    other = torch.where(torch.rand(600, generator=generator) < 0.8, own, torch.randint(3, (600,), generator=generator))
    noise = 0.1 * torch.randn(600, 3, generator=generator)
    assert explained_variance(one_hot(own, 3) + noise, one_hot(other, 3)).item() > 1
    within = explained_variance(one_hot(own, 3) + noise, one_hot(other, 3), one_hot(own, 3)).item()
    assert within < 0.05  # by chance 3 x 2 / 600 = 0.01
    told = one_hot(own, 3) + one_hot(other, 3) + noise
    assert explained_variance(told, one_hot(other, 3), one_hot(own, 3)).item() > 0.3


def test_what_tells_a_label_by_another_sign_in_each_group_is_found_by_combinations_alone() -> None:
    generator = torch.Generator().manual_seed(3)
    own, other = torch.arange(600) % 3, torch.randint(2, (600,), generator=generator)
    embedding = 0.1 * torch.randn(600, 3, generator=generator)
    embedding[:, 0] += torch.tensor([1.0, -1.0, 0.0])[own] * (2 * other - 1)
    assert explained_variance(embedding, one_hot(other, 2)).item() < 0.05
    assert explained_variance(embedding, one_hot(other, 2), one_hot(own, 3)).item() < 0.05
    for given in (None, one_hot(own, 3)):
        assert explained_variance(embedding, one_hot(2 * own + other, 6), given).item() > 0.9


def test_within_small_groups_noise_explains_nothing_on_average() -> None:
    """16 numbers of 128 cells in 8 groups: by chance about 16 x 8 / 120 = 1.07 of the combinations with two labels."""
    generator = torch.Generator().manual_seed(4)
    found = []
    for _ in range(200):
        own, other = torch.randint(8, (128,), generator=generator), torch.randint(2, (128,), generator=generator)
        embedding = torch.randn(128, 16, generator=generator)
        found.append(explained_variance(embedding, one_hot(2 * own + other, 16), one_hot(own, 8)).item())
    assert np.mean(found) == pytest.approx(0, abs=4 * np.std(found) / np.sqrt(200) + 0.01)


@pytest.mark.parametrize(
    ("concepts", "edges", "expected"),
    [
        ("a", "", [(1, (0,), None)]),
        ("ab", "", [(0, (0, 1), 0), (1, (1, 0), 1), (2, (0, 1), None)]),
        ("ab", "ab", [(0, (0, 1), 0), (1, (0,), None), (2, (0, 1), None)]),
        (
            "abc",
            "ac bc",
            [
                *((0, (0, 1), 0), (0, (0, 2), 0), (1, (1, 0), 1), (1, (1, 2), 1), (2, (0, 1), None)),
                *((3, (0, 1), None), (3, (0, 2), None), (3, (1, 2), None)),
            ],
        ),
    ],
)
def test_independencies_are_of_ancestors_and_given_the_own_label_of_all_others(concepts, edges, expected) -> None:
    schema = ConceptSchema(
        tuple(Concept(name, ("0", "1")) for name in concepts), tuple(Edge(*edge) for edge in edges.split())
    )
    assert independencies(schema) == expected
