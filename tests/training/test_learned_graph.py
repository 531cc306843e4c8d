"""Learned graphs: gates open and shut, what is found becomes the model's graph, what can't be told is said."""

import json
import warnings
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
from short_runs import assert_same_weights, interrupt, tiny_config
from simulation import CONCEPTS, EDGES

from causcell.concepts import Concept, ConceptSchema, Edge
from causcell.errors import CausCellWarning, ConceptGraphError, ConfigurationError
from causcell.preprocessing import Preprocessing
from causcell_training import Run, TrainConfig, fit
from causcell_training.concept_graph import allowed_edges
from causcell_training.config import ModelConfig, ObjectiveConfig, load_config
from causcell_training.edge_gates import EdgeGates
from causcell_training.learned_graph import edge_strengths, keep_found_edges
from causcell_training.model import CausCell
from causcell_training.objective import Objective

SCHEMA = ConceptSchema(
    tuple(Concept(name, ("no", "yes")) for name in "abc"), (Edge("a", "b"), Edge("a", "c", 2.0), Edge("b", "c", -1.0))
)
CELLS, EMBEDDING = 40, 4

pytestmark = pytest.mark.filterwarnings("ignore:model.graph='learned'")


def make_model(mechanism: str) -> CausCell:
    """A model with gates open, shut and between."""
    numbers = np.ones(6, dtype=np.float32)
    config = ModelConfig(
        embedding=EMBEDDING, encoder_width=8, width=8, blocks=1, mechanism=mechanism, mechanism_width=8, graph="learned"
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CausCell(SCHEMA, Preprocessing(tuple("ABCDEF"), "log1p", (), numbers, numbers), config).eval()
        model.scm.learn_edges()
        for each in model.scm.mechanisms.values():
            torch.nn.init.normal_(each.out.weight)
    with torch.no_grad():
        model.scm.gates.parameter.copy_(torch.tensor([0.3, -1.0, 0.02]))
    return model


@pytest.fixture
def exogenous() -> torch.Tensor:
    return torch.randn(CELLS, SCHEMA.size, EMBEDDING, generator=torch.Generator().manual_seed(1))


def test_gates_are_shut_exactly_where_they_are_rather_shut_than_open() -> None:
    gates = EdgeGates(4)
    with torch.no_grad():
        gates.parameter.copy_(torch.tensor([1.0, 0.0, -0.2, -1.0]))
    assert gates.values()[0] == 1 and 0 < gates.values()[1] < 1 and (gates.values()[2:] == 0).all()
    assert torch.equal(gates.values() > 0, gates.probabilities() > 0.5)


def test_drawn_gates_are_open_as_often_as_their_probability_says() -> None:
    gates = EdgeGates(3)
    with torch.no_grad():
        gates.parameter.copy_(torch.tensor([0.1, -0.1, -0.3]))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        with gates.draw(20_000):
            drawn = torch.cat([gates(place) for place in range(3)], dim=1)
    # the deviation of a share of 20,000 is below .004
    torch.testing.assert_close((drawn > 0).float().mean(dim=0), gates.probabilities(), atol=0.02, rtol=0)
    assert ((drawn >= 0) & (drawn <= 1)).all()


def test_a_mechanism_and_its_inverse_meet_the_same_gates_in_a_step(exogenous: torch.Tensor) -> None:
    model = make_model("nonlinear")
    with torch.no_grad(), model.scm.gates.draw(CELLS):
        z = model.scm(exogenous)
        np.testing.assert_allclose(model.scm.exogenous(z).numpy(), exogenous.numpy(), atol=1e-5)
        first = model.scm(exogenous)
        assert torch.equal(first, z)
    assert not torch.equal(model.scm(exogenous), z)  # typical gates, after the step


def test_the_objective_moves_the_gates_and_counts_those_that_are_open() -> None:
    model = make_model("nonlinear").train()
    labels = torch.from_numpy(np.random.default_rng(2).integers(-1, 2, (CELLS, 3)))
    terms = Objective(SCHEMA, EMBEDDING, labels, ObjectiveConfig())(model, torch.rand(CELLS, 6), labels)
    assert terms["edges"] == model.scm.gates.probabilities().sum()
    gradient = torch.autograd.grad(terms["total"] - 0.01 * terms["edges"], model.scm.gates.parameter)[0]
    assert (gradient != 0).any()  # beside the price of an edge there is what it is worth


@pytest.mark.parametrize("mechanism", ["linear", "nonlinear"])
@torch.no_grad()
def test_the_graph_that_was_found_computes_what_the_gates_did(exogenous: torch.Tensor, mechanism: str) -> None:
    model = make_model(mechanism)
    pruned, found = keep_found_edges(model)
    assert pruned.scm.gates is None
    assert [(e.parent, e.child) for e in pruned.schema.edges] == [("a", "b"), ("b", "c")]
    assert {name: each["found"] for name, each in found.items()} == {"a:b": True, "a:c": False, "b:c": True}
    forced, mask = torch.ones_like(exogenous), torch.zeros(CELLS, SCHEMA.size)
    mask[:, 1] = 1
    for given in ((exogenous,), (exogenous, forced, mask)):
        np.testing.assert_allclose(pruned.scm(*given).numpy(), model.scm(*given).numpy(), rtol=1e-5, atol=1e-5)
    assert set(edge_strengths(pruned, pruned.scm(exogenous))) == {"a:b", "b:c"}


@torch.no_grad()
def test_the_strength_of_a_linear_edge_is_the_share_of_the_variance_that_it_carries(exogenous: torch.Tensor) -> None:
    model, _ = keep_found_edges(make_model("linear"))
    z = model.scm(exogenous)
    weight = model.schema.edges[0].weight
    expected = weight**2 * z[:, 0].var(dim=0, correction=0).sum() / z[:, 1].var(dim=0, correction=0).sum()
    assert edge_strengths(model, z)["a:b"] == pytest.approx(float(expected), abs=1e-3)


# -- runs --------------------------------------------------------------------------------------------------------------


def learned_config(**overrides: object) -> TrainConfig:
    """Short training with gates that move fast."""
    return tiny_config(**{"model.graph": "learned", "optimisation.learning_rate": 0.02, **overrides})


@pytest.fixture(scope="module")
def learned(cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = learned_config(**{"model.mechanism": "nonlinear"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausCellWarning)
        return fit(cells, tmp_path_factory.mktemp("learned") / "run", config=config)


def test_a_run_says_of_every_allowed_edge_what_was_learned(learned: Run) -> None:
    edges = learned.provenance["edges"]
    assert list(edges) == list(EDGES)
    kept = [f"{edge.parent}:{edge.child}" for edge in learned.model.schema.edges]
    assert [name for name, each in edges.items() if each["found"]] == kept
    assert all(each["found"] or each["strength"] == 0 for each in edges.values())
    again = Run.load(learned.path)
    assert_same_weights(again, learned)
    assert again.provenance["edges"] == json.loads(json.dumps(edges))
    assert "learned" in again.summary()["edges"]


def test_a_heavy_price_leaves_no_edge(cells: anndata.AnnData, tmp_path: Path) -> None:
    dear = fit(cells, tmp_path / "run", config=learned_config(**{"objective.edges": 10.0}))
    assert dear.model.schema.edges == ()
    assert Run.load(tmp_path / "run").summary()["edges"] == f"none; learned, without {', '.join(EDGES)}"


def test_a_resumed_run_is_the_uninterrupted_one(cells: anndata.AnnData, learned: Run, tmp_path: Path) -> None:
    config = learned_config(**{"model.mechanism": "nonlinear"})
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 4, RuntimeError("power cut"))
        with pytest.raises(RuntimeError, match="power cut"):
            fit(cells, tmp_path / "run", config=config)
    unfinished = Run.load(tmp_path / "run", unfinished=True)
    assert unfinished.model.scm.gates is None and list(unfinished.provenance["edges"]) == list(EDGES)
    again = fit(cells, tmp_path / "run", config=config, resume=True)
    assert_same_weights(again, learned)
    assert again.provenance["edges"] == learned.provenance["edges"]


def test_a_graph_that_is_given_has_no_gates(run: Run) -> None:
    assert "edges" not in run.provenance and run.model.scm.gates is None
    assert "train/edges" not in (run.path / "metrics.csv").read_text()


def test_without_edges_a_graph_is_learned_along_the_order_of_the_concepts() -> None:
    config = load_config(overrides={"concept": CONCEPTS, "model.graph": "learned"})
    assert allowed_edges(config) == [(a, b) for i, a in enumerate(CONCEPTS) for b in CONCEPTS[i + 1 :]]
    assert allowed_edges(config.model_copy(update={"edge": ("stim:state",)})) == [("stim", "state")]
    assert allowed_edges(load_config(overrides={"concept": CONCEPTS})) == []


@pytest.mark.filterwarnings("default:model.graph='learned'")
def test_a_training_warns_of_what_cells_cannot_tell(cells: anndata.AnnData, tmp_path: Path) -> None:
    with pytest.warns(CausCellWarning, match=r"(?s)chooses among 'stim:state'.*Markov equivalence.*docs/graph\.md"):
        fit(cells, tmp_path / "run", config=learned_config(edge=("stim:state",), **{"optimisation.epochs": 1}))


def test_what_is_allowed_is_acyclic_and_has_an_edge(cells: anndata.AnnData, tmp_path: Path) -> None:
    with pytest.raises(ConceptGraphError, match="cycle"):
        fit(cells, tmp_path / "run", config=learned_config(edge=("stim:state", "state:stim")))
    with pytest.raises(ConfigurationError, match=r"model.graph='learned' with one concept \(stim\).*second concept"):
        fit(cells, tmp_path / "run", config=learned_config(concept=("stim",), edge=()))
