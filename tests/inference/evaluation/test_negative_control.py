"""A negative control: a concept of random labels has no effect, on any gene, in any kind of cell.

A label that says nothing moves nobody, unless its embedding holds something else of the cell (leakage): then cells that
lack it are moved one way and those that have it the other. So effects are averaged within every label of every other
concept, and single cells are looked at too. Limits are shares of the squared true effect of the treatment.
"""

from collections.abc import Iterator

import anndata
import numpy as np
import pytest
from exported import export_unmeasured

from causcell.effects import simulated_trial
from causcell.evaluation.known_truth import predict_effect
from causcell.evaluation.simulator import SCHEMA, World
from causcell.generator import Generator
from causcell_training import fit
from causcell_training.config import load_config

pytestmark = pytest.mark.slow  # a model is trained and exported

WORLD, CONTROL = World.make(), "plate"
LIMIT_AVERAGE, LIMIT_SINGLE = 0.008, 0.2
"""Measured, the largest label's average: .0045 (.0029 before abduction knew labels); without independence and
adversary, where embeddings hold what is not theirs, .0128 (.0135). Single cells are .05 to .09 either way: what they
move by is their reference cell's own, which averages out."""


def labelled_cells(count: int, seed: int) -> anndata.AnnData:
    """Cells of the simulator, each with a plate drawn at random."""
    cells = WORLD.cells(WORLD.noise(count, seed=seed))
    cells.obs[CONTROL] = np.random.default_rng(seed).permutation(np.resize(["p1", "p2"], count))
    return cells


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generator]:
    """A model that was told the graph, and the plates beside."""
    folder = tmp_path_factory.mktemp("negative_control")
    config = load_config(
        overrides={
            "concept": (*SCHEMA.names, CONTROL),
            "edge": tuple(f"{edge.parent}:{edge.child}" for edge in SCHEMA.edges),
            "genes": "all",
            "model.embedding": 2,  # too few numbers for what is a concept's own: there is reason to leak, and
            "objective.exogenous_kl": 0.01,  # little that keeps an embedding from holding more than its label
            "objective.endogenous_kl": 0.1,
            "model.encoder_width": 64,
            "model.width": 64,
            "model.blocks": 1,
            "optimisation.learning_rate": 3e-3,
            "optimisation.epochs": 20,
            "optimisation.batch_size": 64,
            "optimisation.validate_every": 10,
        }
    )
    run = fit(labelled_cells(1000, seed=1), folder / "run", config=config)
    with Generator.open(export_unmeasured(run, folder / "models"), threads=1) as opened:
        yield opened


def true_effect() -> np.ndarray:
    """True effect of the treatment on untreated cells, [n x G]."""
    noise = WORLD.noise(500, seed=2)
    untreated = WORLD.labels(noise)[:, SCHEMA.index("treatment")] == SCHEMA["treatment"].code("control")
    return WORLD.effect(noise, {"treatment": "treated"})[untreated]


def square(effect: np.ndarray) -> float:
    """Squared length of effects [... x G], mean over cells."""
    return float((effect**2).sum(axis=-1).mean())


def test_random_labels_have_no_effect_in_any_kind_of_cell(generator: Generator) -> None:
    cells = labelled_cells(500, seed=2)
    cells = cells[(cells.obs[CONTROL] == "p2").to_numpy()]
    effect, true = predict_effect(generator, cells, {CONTROL: "p1"}, draws=4)[0], true_effect()
    for concept in SCHEMA.names:
        for label, rows in cells.obs.groupby(concept, observed=True).indices.items():
            average = square(effect[rows].mean(axis=0))
            assert average < LIMIT_AVERAGE * square(true.mean(axis=0)), f"cells of {concept} = {label} are moved"
    assert square(effect) < LIMIT_SINGLE * square(true)


def test_a_trial_of_random_labels_calls_no_gene_changed(generator: Generator) -> None:
    """And one of the treatment does: the test has the power."""
    cells = labelled_cells(500, seed=2)
    assert not simulated_trial(generator, cells, CONTROL, draws=2).layers["changed"].any()
    assert simulated_trial(generator, cells, "treatment", draws=2).layers["changed"][1].sum() > 10
