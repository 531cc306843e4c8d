"""A nonlinear mechanism in the exported graphs: parity, what the manifest says, and the client's laws."""

import json
from collections.abc import Iterator
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
from short_runs import tiny_config

from causcell import Generator
from causcell.cli.inspect import _describe
from causcell.counterfactual.interventions import plan_interventions
from causcell.counterfactual.scm import StructuralCausalModel
from causcell.errors import ConceptGraphError
from causcell.evaluation.value_simulator import ValueWorld
from causcell.repository.manifest import Manifest
from causcell_export import export
from causcell_training import Run, fit

pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")


@pytest.fixture(scope="module")
def nonlinear(cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    folder = tmp_path_factory.mktemp("nonlinear")
    run = fit(cells, folder / "run", config=tiny_config(**{"model.mechanism": "nonlinear"}))
    with torch.no_grad():  # six epochs move them little
        for each in run.model.scm.mechanisms.values():
            torch.nn.init.normal_(each.out.weight, generator=torch.Generator().manual_seed(0))
    run.save()
    return run, export(run, folder / "models")


@pytest.fixture(scope="module")
def opened(nonlinear: tuple[Run, Path]) -> Iterator[Generator]:
    with Generator.open(nonlinear[1], threads=1) as generator:
        yield generator


def test_the_manifest_says_the_mechanism_and_refuses_a_matrix(opened: Generator) -> None:
    manifest = opened.manifest
    assert manifest.mechanism == _describe(manifest)["mechanism"] == "nonlinear"
    assert Manifest.from_json(manifest.to_json(), "manifest.json") == manifest
    assert "nonlinear mechanisms" in repr(opened)
    with pytest.raises(ConceptGraphError, match="no adjacency matrix"):
        opened.schema.adjacency()


def test_the_manifest_of_a_linear_model_is_as_it_was(generator: Generator) -> None:
    assert "mechanism" not in json.loads(generator.manifest.to_json())
    assert generator.schema.adjacency().any()


@pytest.mark.parametrize("batch", [1, 3, 64])
@torch.no_grad()
def test_graphs_compute_what_the_model_does(nonlinear: tuple[Run, Path], opened: Generator, batch: int) -> None:
    run, model = nonlinear[0], nonlinear[0].model
    rng = np.random.default_rng(batch)
    shape = (batch, model.schema.size, model.config.embedding)
    exogenous, forced = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    mask = rng.integers(2, size=shape[:2]).astype(np.float32)
    labels = rng.integers(-1, 2, size=(batch, len(model.schema.concepts)))
    assert set(opened.manifest.parity) >= {"encoder_scm", "scm", "abduction"} and run.description.mechanism
    engine = opened.engine
    found = engine.run("scm", {"exogenous": exogenous, "forced": forced, "mask": mask})["endogenous"]
    given = [torch.from_numpy(each) for each in (exogenous, forced, mask)]
    np.testing.assert_allclose(found, model.scm(*given).numpy(), rtol=1e-4, atol=1e-4)
    informed = engine.run("abduction", {"exogenous": exogenous, "labels": labels})["informed"]
    np.testing.assert_allclose(informed, model.inform(given[0], torch.from_numpy(labels)).numpy(), rtol=1e-4, atol=1e-4)


def test_interventions_keep_the_laws(opened: Generator, cells: anndata.AnnData) -> None:
    """Non-descendants bit for bit, descendants move, a cell of the label is its own, no intervention is factual."""
    scm, schema = StructuralCausalModel(opened.engine), opened.schema
    labels = schema.encode(cells.obs[:60])
    exogenous = np.random.default_rng(0).standard_normal((60, schema.size, 4), dtype=np.float32)
    own = {"exogenous": exogenous, "endogenous": scm.factual(exogenous)["endogenous"], "labels": labels}
    own["keys"] = np.random.default_rng(1).integers(2**63, size=(60, 2)).astype(np.uint64)
    (intervention,) = plan_interventions(schema, {"cell_type": "B"})
    acted, before = scm.intervene(intervention, **own).endogenous, own["endogenous"]
    stays = labels[:, schema.index("cell_type")] == schema["cell_type"].code("B")
    for place in (schema.index("stim"), schema.index("donor"), -1):
        np.testing.assert_array_equal(acted[:, place], before[:, place])
    np.testing.assert_array_equal(acted[stays], before[stays])
    assert (acted[~stays, schema.index("state")] != before[~stays, schema.index("state")]).any(axis=1).all()
    (nothing,) = plan_interventions(schema)
    np.testing.assert_array_equal(scm.intervene(nothing, **own).endogenous, before)


def test_a_dose_acts_by_a_nonlinear_mechanism(tmp_path: Path) -> None:
    """A concept with values is a cause as any other; export verifies its graphs, abduction by values included."""
    world = ValueWorld.make(genes=20)
    cells = world.cells(world.noise(160))
    concepts, edges = ("dose:continuous", "perturbation:set", "cell_type", "state"), ("dose:state", "cell_type:state")
    settings = {"model.mechanism": "nonlinear", "set_control": ("perturbation=control",), "optimisation.epochs": 2}
    run = fit(cells, tmp_path / "run", config=tiny_config(concept=concepts, edge=edges, **settings))
    with Generator.open(export(run, tmp_path / "models"), threads=1) as opened:
        assert opened.manifest.mechanism == "nonlinear" and opened.schema["dose"].value is not None
        assert {"scm", "abduction", "prior"} <= set(opened.manifest.parity)
        assert opened.counterfactual(cells[:8], {"cell_type": "C"}, preset="mean").shape == (8, 20)
