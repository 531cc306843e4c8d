"""Nonlinear mechanisms carry what causes do together, and fitting them leaves every endogenous embedding as it was."""

import copy
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
from short_runs import assert_same_weights, tiny_config

from causcell.concepts import Concept, ConceptSchema, Edge
from causcell.preprocessing import Preprocessing
from causcell_training import Run, fit
from causcell_training.config import ModelConfig
from causcell_training.descent import read_heritage
from causcell_training.fitted_mechanisms import as_trained, fit_mechanisms
from causcell_training.model import CausCell

SCHEMA = ConceptSchema(
    tuple(Concept(name, ("no", "yes")) for name in ("treatment", "type", "state")),
    (Edge("treatment", "state"), Edge("type", "state")),
)
CELLS, EMBEDDING = 1000, 4
STATE = SCHEMA.index("state")


def make_model(mechanism: str = "nonlinear") -> CausCell:
    numbers = np.ones(6, dtype=np.float32)
    config = ModelConfig(embedding=EMBEDDING, mechanism=mechanism, mechanism_width=32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CausCell(SCHEMA, Preprocessing(tuple("ABCDEF"), "log1p", (), numbers, numbers), config).eval()


@pytest.fixture
def opposite() -> np.ndarray:
    """Exogenous embeddings of cells whose treatment moves the state by another sign in each type."""
    rng = np.random.default_rng(0)
    eps = rng.normal(scale=0.3, size=(CELLS, SCHEMA.size, EMBEDDING)).astype(np.float32)
    signs = rng.choice([-1.0, 1.0], size=(CELLS, 2)).astype(np.float32)
    eps[:, :2, 0] += signs
    eps[:, STATE, 1] += signs.prod(axis=1)
    return eps


@torch.no_grad()
def test_what_causes_do_together_goes_from_the_noise_to_the_mechanism(opposite: np.ndarray) -> None:
    """Fitted, do(treatment) has consequences that no sum of causes holds."""
    model, eps = make_model(), torch.from_numpy(opposite)
    z = model.scm(eps)
    found = torch.from_numpy(fit_mechanisms(model, opposite))
    assert torch.equal(found, model.recentre_exogenous(eps))
    torch.testing.assert_close(model.scm(found), z, rtol=1e-5, atol=1e-5)
    together = torch.sign(z[:, 0, 0] * z[:, 1, 0])
    told = [abs(float(torch.corrcoef(torch.stack([e[:, STATE, 1], together]))[0, 1])) for e in (eps, found)]
    assert told[0] > 0.9 and told[1] < 0.3
    forced, mask = z.clone(), torch.zeros(z.shape[:2])
    forced[:, 0, 0], mask[:, 0] = -z[:, 0, 0], 1
    moved = (model.scm(found, forced, mask) - z)[:, STATE, 1] * together
    assert float(moved.mean()) == pytest.approx(-2, abs=0.5)


@torch.no_grad()
def test_other_embeddings_and_networks_stay(opposite: np.ndarray) -> None:
    model = make_model()
    before, state = {name: each.clone() for name, each in model.state_dict().items()}, torch.random.get_rng_state()
    fit_mechanisms(model, opposite)
    assert torch.equal(torch.random.get_rng_state(), state)
    after = model.state_dict()
    assert {name for name, each in before.items() if not torch.equal(after[name], each)} == {
        name for name in before if name.startswith("scm.mechanisms.")
    }
    causeless = [i for i in range(SCHEMA.size) if i != STATE]
    eps = torch.from_numpy(opposite)
    assert torch.equal(model.recentre_exogenous(eps)[:, causeless], eps[:, causeless])


def test_there_is_nothing_to_fit_in_linear_models_and_too_little_in_few_cells(opposite: np.ndarray) -> None:
    for model, cells in ((make_model("linear"), CELLS), (make_model(), 63)):
        before = {name: each.clone() for name, each in model.state_dict().items()}
        np.testing.assert_array_equal(fit_mechanisms(model, opposite[:cells]), opposite[:cells])
        assert model.trained_scm is None
        assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())


@torch.no_grad()
def test_noise_is_fitted_to_no_more_than_it_was(opposite: np.ndarray) -> None:
    """The weights that err least on other cells are those that were there, where causes tell nothing."""
    model, eps = make_model(), np.random.default_rng(1).normal(size=opposite.shape).astype(np.float32)
    fit_mechanisms(model, eps)
    added = model.scm.mechanisms[str(STATE)](torch.from_numpy(eps[:, :2]))
    assert float(added.square().mean()) < 0.02


@torch.no_grad()
def test_a_model_is_taken_back_to_what_it_was_trained_as(opposite: np.ndarray) -> None:
    model = make_model()
    trained = copy.deepcopy(model)
    assert as_trained(model, opposite) == (model, opposite)
    fit_mechanisms(model, opposite)
    again, eps = as_trained(model, model.recentre_exogenous(torch.from_numpy(opposite)).numpy())
    assert {name: each.tolist() for name, each in again.state_dict().items()} == {
        name: each.tolist() for name, each in trained.state_dict().items()
    }
    np.testing.assert_allclose(eps, opposite, atol=1e-5)
    assert model.trained_scm is not None


# -- runs --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fit(cells, tmp_path_factory.mktemp("fitted") / "run", config=tiny_config(**{"model.mechanism": "nonlinear"}))


@torch.no_grad()
def test_a_finished_run_has_fitted_mechanisms_and_is_read_again(run: Run) -> None:
    assert run.model.trained_scm is not None
    again = Run.load(run.path)
    assert_same_weights(again, run)
    x = torch.rand(5, len(run.model.preprocessing.genes))
    mean = run.model.encoder(run.model.standardise(x))[0]
    assert torch.equal(again.model.encode(x)[0], run.model.encode(x)[0])
    assert not torch.equal(run.model.encode(x)[0], mean)
    torch.testing.assert_close(run.model.scm(run.model.encode(x)[0]), run.model.trained_scm(mean), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_reference_cells_are_those_of_the_fitted_mechanisms(run: Run) -> None:
    """The noise that is left of them is less than that which training left."""
    model, eps = run.model, run.reference.exogenous
    back = as_trained(model, eps)[1]
    fitted = [i for i in range(model.schema.size) if str(i) in model.scm.mechanisms]
    assert np.square(eps[:, fitted]).mean() < np.square(back[:, fitted]).mean()
    others = [i for i in range(model.schema.size) if i not in fitted]
    np.testing.assert_array_equal(eps[:, others], back[:, others])


def test_a_training_from_it_begins_with_what_was_trained(run: Run, cells: anndata.AnnData, tmp_path: Path) -> None:
    heritage = read_heritage(run, 0)
    trained = run.model.trained_scm
    assert trained is not None
    assert not any(name.startswith("trained_scm") for name in heritage.weights)
    for name, each in trained.state_dict().items():
        assert torch.equal(heritage.weights[f"scm.{name}"], each)
    heir = fit(cells, tmp_path / "heir", start_from=run.path, config=tiny_config(**{"optimisation.epochs": 1}))
    assert heir.model.trained_scm is not None
    assert_same_weights(Run.load(heir.path), heir)
