"""Abduction informed by labels: the component of the known label in the mixture q(z | x)."""

import numpy as np
import pytest
import torch
from torch import nn

from causcell.concepts import UNLABELLED, Concept, ConceptSchema, Edge
from causcell.preprocessing import Preprocessing
from causcell_training.config import ModelConfig
from causcell_training.model import CausCell

SIZES, CELLS, EMBEDDING = (2, 3, 4), 30, 5
SCHEMA = ConceptSchema(
    tuple(Concept(name, tuple(map(str, range(size)))) for name, size in zip("abc", SIZES, strict=True)),
    (Edge("a", "b"), Edge("b", "c", 0.5)),
)

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
"""Sums of at most ten float32 terms of size one."""


def make_model(abduction: str = "informed") -> CausCell:
    numbers = np.ones(6, dtype=np.float32)
    config = ModelConfig(embedding=EMBEDDING, encoder_width=8, width=8, blocks=1, abduction=abduction)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CausCell(SCHEMA, Preprocessing(tuple("ABCDEF"), "log1p", (), numbers, numbers), config).eval()
        for parameter in (*model.label_mean, *(each.weight for each in model.classifiers)):
            nn.init.normal_(parameter)
    return model


@pytest.fixture
def exogenous() -> torch.Tensor:
    return torch.randn(CELLS, SCHEMA.size, EMBEDDING, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def labels() -> torch.Tensor:
    rng = np.random.default_rng(2)
    return torch.from_numpy(np.stack([rng.integers(-1, size, CELLS) for size in SIZES], axis=1))


@torch.no_grad()
def test_a_known_label_takes_the_place_of_what_was_read(exogenous: torch.Tensor, labels: torch.Tensor) -> None:
    """z_i' = z_i + m_i[y_i] - sum_l p_i(l | z_i) m_i[l], and an unlabelled concept keeps its z_i."""
    model = make_model()
    z = model.scm(exogenous).double().numpy()
    informed = model.scm(model.inform(exogenous, labels)).numpy()
    assert (labels == UNLABELLED).any(dim=0).all()
    for i in range(len(SIZES)):
        weight, bias = (each.double().numpy() for each in (model.classifiers[i].weight, model.classifiers[i].bias))
        logits, mean = z[:, i] @ weight.T + bias, model.label_mean[i].double().numpy()
        for cell in range(CELLS):
            p, code = np.exp(logits[cell]) / np.exp(logits[cell]).sum(), int(labels[cell, i])
            expected = z[cell, i] if code == UNLABELLED else z[cell, i] + mean[code] - p @ mean
            np.testing.assert_allclose(informed[cell, i], expected, **TOLERANCE)
    np.testing.assert_array_equal(informed[:, -1], exogenous[:, -1].numpy())


@torch.no_grad()
def test_unlabelled_cells_stay(exogenous: torch.Tensor) -> None:
    labels = torch.full((CELLS, len(SIZES)), UNLABELLED)
    np.testing.assert_allclose(make_model().inform(exogenous, labels).numpy(), exogenous.numpy(), **TOLERANCE)


@torch.no_grad()
def test_a_label_that_is_read_surely_adds_nothing(exogenous: torch.Tensor) -> None:
    model = make_model()
    for classifier in model.classifiers:
        classifier.weight *= 1000
    labels = torch.stack([logits.argmax(dim=1) for logits in model.label_logits(model.scm(exogenous))], dim=1)
    stays = torch.isclose(model.inform(exogenous, labels), exogenous, atol=1e-3).all(dim=2).all(dim=1)
    assert stays.float().mean() > 0.9  # a few lie where two labels are equally near
    assert (
        not torch.isclose(model.inform(exogenous, (labels + 1) % torch.tensor(SIZES)), exogenous)[:, :-1]
        .all(dim=2)
        .any()
    )


@torch.no_grad()
def test_a_model_that_reads_expression_alone_ignores_labels(exogenous: torch.Tensor, labels: torch.Tensor) -> None:
    assert make_model("expression").inform(exogenous, labels) is exogenous
