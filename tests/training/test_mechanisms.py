"""Nonlinear mechanisms: the laws of the structural causal model hold as they do for linear ones."""

import copy
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
from short_runs import assert_same_weights, interrupt, tiny_config
from torch import nn

from causcell.concepts import UNLABELLED, Concept, ConceptSchema, Edge
from causcell.errors import ConceptGraphError, ConfigurationError
from causcell.preprocessing import Preprocessing
from causcell_training import Run, fit
from causcell_training.config import ModelConfig, ObjectiveConfig
from causcell_training.model import CausCell
from causcell_training.objective import Objective
from causcell_training.scm import Mechanism, StructuralCausalModel

NAMES = ("c", "a", "d", "b")  # children stand before their parents: causal order is not the order of the axis
SCHEMA = ConceptSchema(
    tuple(Concept(name, ("no", "yes")) for name in NAMES),
    (Edge("a", "b", 0.5), Edge("b", "c", -1.5), Edge("a", "c", 2.0), Edge("c", "d", 0.75)),
)
CELLS, EMBEDDING, WIDTH = 48, 5, 16

TOLERANCE = 1e-5
"""Sums of float32 terms of size ten and networks of two layers: their rounding is below 1e-5."""


def set_at_random(module: nn.Module) -> None:
    """Give every layer of the mechanisms weights, which are zero at the beginning."""
    generator = torch.Generator().manual_seed(3)
    for mechanism in (each for each in module.modules() if isinstance(each, Mechanism)):
        for parameter in mechanism.parameters():
            with torch.no_grad():
                parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))


@pytest.fixture
def scm() -> StructuralCausalModel:
    scm = StructuralCausalModel(SCHEMA, mechanism=(EMBEDDING, WIDTH))
    set_at_random(scm)
    return scm


@pytest.fixture
def exogenous() -> torch.Tensor:
    return torch.randn(CELLS, len(NAMES) + 1, EMBEDDING, generator=torch.Generator().manual_seed(0))


def solved(scm: StructuralCausalModel, exogenous: np.ndarray, forced: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Embeddings of one cell [M x k] by the equations themselves, in float64 and in the order a, b, c, d."""
    z = exogenous.astype(np.float64).copy()
    for name in ("a", "b", "c", "d"):
        i, parents = NAMES.index(name), SCHEMA.parents(NAMES.index(name))
        for edge in (each for each in SCHEMA.edges if each.child == name):
            z[i] += edge.weight * z[NAMES.index(edge.parent)]
        if parents:
            layers = copy.deepcopy(scm.mechanisms[str(i)]).double()
            with torch.no_grad():
                z[i] += layers(torch.from_numpy(z[list(parents)])[None])[0].numpy()
        if mask[i]:
            z[i] = forced[i]
    return z


def test_a_nonlinear_model_begins_as_the_linear_one(exogenous: torch.Tensor) -> None:
    nonlinear = StructuralCausalModel(SCHEMA, mechanism=(EMBEDDING, WIDTH))
    assert torch.equal(nonlinear(exogenous), StructuralCausalModel(SCHEMA)(exogenous))


@torch.no_grad()
def test_interventions_solve_the_equations_of_the_cut_graph(
    scm: StructuralCausalModel, exogenous: torch.Tensor
) -> None:
    generator = torch.Generator().manual_seed(1)
    forced = torch.randn(exogenous.shape, generator=generator)
    mask = torch.randint(2, exogenous.shape[:2], generator=generator).float()
    mask[:, -1] = 0
    z = scm(exogenous, forced, mask).numpy()
    assert not np.allclose(z, StructuralCausalModel(SCHEMA)(exogenous, forced, mask).numpy())
    for cell in range(CELLS):
        expected = solved(scm, exogenous[cell].numpy(), forced[cell].numpy(), mask[cell].numpy() > 0)
        np.testing.assert_allclose(z[cell], expected, rtol=TOLERANCE, atol=TOLERANCE)


@torch.no_grad()
def test_exogenous_embeddings_are_solved_for(scm: StructuralCausalModel, exogenous: torch.Tensor) -> None:
    np.testing.assert_allclose(scm.exogenous(scm(exogenous)).numpy(), exogenous.numpy(), atol=TOLERANCE)


@torch.no_grad()
def test_non_descendants_are_kept_bit_for_bit(scm: StructuralCausalModel, exogenous: torch.Tensor) -> None:
    forced, mask = torch.full_like(exogenous, 3.0), torch.zeros(exogenous.shape[:2])
    mask[:, NAMES.index("c")] = 1
    factual, acted = scm(exogenous), scm(exogenous, forced, mask)
    assert torch.equal(acted[:, NAMES.index("c")], forced[:, NAMES.index("c")])
    for place in (NAMES.index("a"), NAMES.index("b"), -1):
        assert torch.equal(acted[:, place], factual[:, place])
    assert not torch.allclose(acted[:, NAMES.index("d")], factual[:, NAMES.index("d")])


def make_model(mechanism: str) -> CausCell:
    numbers = np.ones(6, dtype=np.float32)
    config = ModelConfig(
        embedding=EMBEDDING, encoder_width=8, width=8, blocks=1, mechanism=mechanism, mechanism_width=WIDTH
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CausCell(SCHEMA, Preprocessing(tuple("ABCDEF"), "log1p", (), numbers, numbers), config).eval()
    set_at_random(model)
    return model


@torch.no_grad()
def test_informed_abduction_sets_each_labelled_embedding_and_keeps_the_others(exogenous: torch.Tensor) -> None:
    """z_i' = z_i + m_i[y_i] - sum_l p_i(l | z_i) m_i[l] whatever the parents are told; an unlabelled one keeps z_i."""
    model = make_model("nonlinear")
    labels = torch.from_numpy(np.random.default_rng(2).integers(-1, 2, (CELLS, len(NAMES))))
    z, informed = model.scm(exogenous), model.scm(model.inform(exogenous, labels))
    for i, (logits, mean) in enumerate(zip(model.label_logits(z), model.label_mean, strict=True)):
        expected = z[:, i] + mean[labels[:, i]] - logits.softmax(dim=1) @ mean
        expected = torch.where(labels[:, i, None] == UNLABELLED, z[:, i], expected)
        np.testing.assert_allclose(informed[:, i].numpy(), expected.numpy(), rtol=TOLERANCE, atol=TOLERANCE)


def test_the_objective_reaches_every_weight_of_the_mechanisms() -> None:
    model = make_model("nonlinear").train()
    labels = torch.from_numpy(np.random.default_rng(2).integers(-1, 2, (CELLS, len(NAMES))))
    objective = Objective(SCHEMA, EMBEDDING, labels, ObjectiveConfig())
    objective(model, torch.rand(CELLS, 6), labels)["total"].backward()
    assert set(model.scm.mechanisms) == {str(NAMES.index(name)) for name in "bcd"}
    for name, parameter in model.scm.mechanisms.named_parameters():
        assert parameter.grad is not None and (parameter.grad != 0).any(), name


@torch.no_grad()
def test_the_posterior_given_drawn_parents_has_the_marginal_mean_and_variance(scm: StructuralCausalModel) -> None:
    """Compare, by the law of total variance, all draws of the parents with embeddings drawn as a whole."""
    generator = torch.Generator().manual_seed(4)
    mean, variance = (torch.randn(1, len(NAMES) + 1, EMBEDDING, generator=generator).abs() / 2 for _ in range(2))
    with torch.random.fork_rng():
        torch.manual_seed(5)
        means, variances = scm.posterior(mean.expand(20_000, -1, -1), variance.expand(20_000, -1, -1))
        drawn = scm(mean + variance.sqrt() * torch.randn(20_000, *mean.shape[1:]))
    # the deviation of a mean or a variance from 20,000 draws is about 1 % of a deviation; 5 % is beyond its tails
    torch.testing.assert_close(means.mean(dim=0), drawn.mean(dim=0), rtol=0.05, atol=0.05)
    torch.testing.assert_close(means.var(dim=0) + variances.mean(dim=0), drawn.var(dim=0), rtol=0.07, atol=0.02)


def test_a_matrix_of_nonlinear_mechanisms_is_refused(scm: StructuralCausalModel) -> None:
    assert scm.schema.mechanism == "nonlinear"
    with pytest.raises(ConceptGraphError, match=r"mechanism='nonlinear': no adjacency matrix.*Generator"):
        scm.schema.adjacency()
    assert StructuralCausalModel(SCHEMA).schema.mechanism == "linear"


# -- runs --------------------------------------------------------------------------------------------------------------

NONLINEAR = {"model.mechanism": "nonlinear", "model.mechanism_width": 8}


@pytest.fixture(scope="module")
def nonlinear(cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fit(cells, tmp_path_factory.mktemp("nonlinear") / "run", config=tiny_config(**NONLINEAR))


def test_a_run_trains_its_mechanisms_and_is_read_again(nonlinear: Run) -> None:
    assert all((each.out.weight != 0).any() for each in nonlinear.model.scm.mechanisms.values())
    again = Run.load(nonlinear.path)
    assert_same_weights(again, nonlinear)
    assert again.description.mechanism == again.model.schema.mechanism == "nonlinear"
    assert "nonlinear mechanisms" in again.summary()["edges"]


def test_a_run_of_linear_mechanisms_is_described_as_before(run: Run) -> None:
    assert "mechanism" not in run.description.model_dump(mode="json")
    assert run.model.schema.mechanism == "linear"


def test_a_resumed_run_is_the_uninterrupted_one(cells: anndata.AnnData, nonlinear: Run, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 4, RuntimeError("power cut"))
        with pytest.raises(RuntimeError, match="power cut"):
            fit(cells, tmp_path / "run", config=tiny_config(**NONLINEAR))
    again = fit(cells, tmp_path / "run", config=tiny_config(**NONLINEAR), resume=True)
    assert_same_weights(again, nonlinear)


@pytest.mark.parametrize("graph", [{"edge": ()}, {"model.graph": "independent"}])
def test_mechanisms_without_causes_are_refused(
    cells: anndata.AnnData, tmp_path: Path, graph: dict[str, object]
) -> None:
    with pytest.raises(ConfigurationError, match=r"model.mechanism='nonlinear' with model.graph=.* no edge.*give"):
        fit(cells, tmp_path / "run", config=tiny_config(**NONLINEAR, **graph))
    assert not (tmp_path / "run").exists()
