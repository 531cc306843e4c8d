"""Trained models against the simulator's truth: total effects, confounding, null effects, what follows the graph.

Tolerances: with 1,000 training cells and 500 new ones the errors of several seeds were a third of the limits here.
"""

from collections.abc import Iterator

import anndata
import numpy as np
import pytest
from exported import export_unmeasured

from causcell.evaluation.known_truth import (
    average_signature_effect,
    compare_with_truth,
    find_state_genes,
    predict_effect,
)
from causcell.evaluation.simulator import SCHEMA, Noise, World
from causcell.generator import Generator
from causcell_training import fit
from causcell_training.config import load_config

pytestmark = pytest.mark.slow  # four models are trained and exported

WORLD, NULL_WORLD = World.make(), World.make(activation=0.0)
VARIANTS = {
    "graph": (WORLD, {}),
    "learned": (WORLD, {"model.edge_weights": "learned"}),
    "independent": (WORLD, {"model.graph": "independent"}),
    "null": (NULL_WORLD, {}),
}
ACTIVE = SCHEMA["state"].code("active")


def training_cells(world: World) -> anndata.AnnData:
    return world.cells(world.noise(1000, seed=1))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Generator]]:
    """An opened model of each variant, trained on its world's cells."""
    folder = tmp_path_factory.mktemp("known_truth")
    opened = {}
    for name, (world, overrides) in VARIANTS.items():
        config = load_config(
            overrides={
                "concept": SCHEMA.names,
                "edge": tuple(f"{edge.parent}:{edge.child}" for edge in SCHEMA.edges),
                "genes": "all",
                "model.embedding": 8,
                "model.encoder_width": 64,
                "model.width": 64,
                "model.blocks": 1,
                "optimisation.learning_rate": 3e-3,
                "optimisation.epochs": 30,
                "optimisation.batch_size": 64,
                "optimisation.validate_every": 10,
                **overrides,
            }
        )
        models = export_unmeasured(fit(training_cells(world), folder / f"{name}-run", config=config), folder / name)
        opened[name] = Generator.open(models, threads=1)
    yield opened
    for generator in opened.values():
        generator.close()


@pytest.fixture(scope="module")
def noise() -> Noise:
    return WORLD.noise(500, seed=2)


def errors(models: dict[str, Generator], variant: str, noise: Noise, do: dict[str, str]) -> dict[str, dict[str, float]]:
    table = compare_with_truth(VARIANTS[variant][0], models[variant], training_cells(WORLD), noise, do, draws=2)
    return {row: {measure: values[0] for measure, values in each.items()} for row, each in table.rows.items()}


@pytest.mark.parametrize("variant", ["graph", "learned"])
@pytest.mark.parametrize(("concept", "label"), [("treatment", "treated"), ("donor", "d3")])
def test_total_effects_are_those_of_the_truth_and_reach_the_downstream_state(
    models: dict[str, Generator], noise: Noise, variant: str, concept: str, label: str
) -> None:
    """Whatever the weights are learned to be: they are not identified, total effects are."""
    found = errors(models, variant, noise, {concept: label})
    assert found["model, do"]["error of the average"] < 0.2
    assert found["model, do"]["active after"] == pytest.approx(found["truth"]["active after"], abs=0.15)
    assert abs(found["no change"]["active after"] - found["truth"]["active after"]) > 0.1


def test_without_the_graph_nothing_follows(models: dict[str, Generator], noise: Noise) -> None:
    found = errors(models, "independent", noise, {"treatment": "treated"})
    assert found["model, do"]["active after"] == found["no change"]["active after"]


def test_a_confounded_intervention_is_nearer_to_the_truth_than_the_difference_of_means(
    models: dict[str, Generator], noise: Noise
) -> None:
    found = errors(models, "graph", noise, {"cell_type": "C"})
    assert found["model, do"]["error of the average"] < 0.5 * found["mean shift"]["error of the average"]


@pytest.mark.parametrize(("concept", "label"), [("state", "active"), ("cell_type", "C")])
def test_single_cells_are_nearer_to_the_truth_if_they_keep_what_is_their_own(
    models: dict[str, Generator], noise: Noise, concept: str, label: str
) -> None:
    found = errors(models, "graph", noise, {concept: label})
    drawn, own = found["model, do, a single draw"], found["model, do, own kept"]
    assert own["error of single cells"] < 0.75 * drawn["error of single cells"]
    assert own["error of the average"] < drawn["error of the average"] + 0.05


def test_a_treatment_that_activates_nobody_is_found_to_activate_nobody(models: dict[str, Generator]) -> None:
    """The edge is given, its effect is none."""
    noise = NULL_WORLD.noise(500, seed=2)
    do = {"treatment": "treated"}
    control = NULL_WORLD.labels(noise)[:, 0] == 0
    cells = NULL_WORLD.cells(noise)[control]
    labels = predict_effect(models["null"], cells, do)[1]
    before = SCHEMA.encode(cells.obs)
    assert abs((labels[:, 3] == ACTIVE).mean() - (before[:, 3] == ACTIVE).mean()) < 0.1


def test_the_states_signature_follows_the_state_with_the_graph_and_the_treatment_without(
    models: dict[str, Generator], noise: Noise
) -> None:
    """Resting control cells are treated, with the state free to follow, and held resting.

    The truth, and the model that knows the graph, show the signature if the state follows and not if it is held;
    without the graph it is shown, in part, whatever becomes of the state.
    """
    labels = WORLD.labels(noise)
    cells = WORLD.cells(noise)[(labels[:, 0] == 0) & (labels[:, 3] != ACTIVE)]
    signs = find_state_genes(WORLD)

    def signature(variant: str, do: dict[str, str]) -> float:
        return float(average_signature_effect(predict_effect(models[variant], cells, do)[0], signs).mean())

    free, held = {"treatment": "treated"}, {"treatment": "treated", "state": "resting"}
    assert signature("graph", free) > signature("graph", held) + 0.15
    assert signature("graph", held) < 0.1
    assert signature("independent", free) == pytest.approx(signature("independent", held), abs=1e-5)


@pytest.mark.parametrize("variant", ["learned", "independent"])
def test_the_exported_structural_model_is_that_of_the_manifests_edges(
    models: dict[str, Generator], variant: str
) -> None:
    """z = (I - A^T)^-1 eps with the weights that the manifest states, also where concepts are forced."""
    schema, engine = models[variant].schema, models[variant].engine
    weights = [edge.weight for edge in schema.edges]
    assert (len(weights) == 3 and 1.0 not in weights) if variant == "learned" else not weights
    rng = np.random.default_rng(0)
    exogenous, forced = rng.standard_normal((2, 16, schema.size, 8)).astype(np.float32)
    mask = rng.integers(2, size=(16, schema.size)).astype(np.float32)
    found = engine.run("scm", {"exogenous": exogenous, "forced": forced, "mask": mask})["endogenous"]
    for cell in range(16):
        cut = schema.adjacency() * (mask[cell] == 0)
        acted = np.where(mask[cell, :, None] > 0, forced[cell], exogenous[cell])
        expected = np.linalg.solve(np.eye(schema.size) - cut.T, acted.astype(np.float64))
        np.testing.assert_allclose(found[cell], expected, atol=1e-5)  # float32 sums of at most four terms
