"""Priors that interventions take: what they are fitted to, and runs from before there were any."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from short_runs import weights
from valued_cells import valued_cells, valued_config

from causcell._internal.digests import file_digest
from causcell_training import Run, fit
from causcell_training.target_priors import fit_target_priors


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("targets")
    return fit(valued_cells(count=400), folder / "run", config=valued_config(folder))


@torch.no_grad()
def test_prior_is_of_embeddings_informed_of_the_value(run: Run) -> None:
    """By label and number: mean and spread of what reference cells' embeddings are, nearer than what was read."""
    model, cells = run.model, valued_cells(count=400)
    codes, values = (torch.from_numpy(each) for each in model.schema.encode_values(cells.obs))
    expression = torch.from_numpy(np.log1p(cells.X / cells.X.sum(axis=1, keepdims=True) * 1e4))
    endogenous = model.scm(model.inform(model.encode(expression)[0], torch.empty(0), values))
    informed, read = model.prior(values), model.prior_of_read(values)
    for i, concept in enumerate(model.schema.concepts):
        known = codes[:, i] >= 0
        z = endogenous[known, i]
        errors = [float(((prior[0][known, i] - z) ** 2).mean()) for prior in (informed, read)]
        assert errors[0] <= errors[1], concept.name
        spread = (0.5 * informed[1][known, i]).exp()
        assert float(((z - informed[0][known, i]) / spread).std()) == pytest.approx(1, abs=0.15), concept.name


def test_what_interventions_take_is_fitted_when_training_has_ended_alone(run: Run) -> None:
    """The same cells give the same priors; those that inform abduction stay."""
    before = {name: array.copy() for name, array in weights(run).items()}
    values = torch.from_numpy(run.model.schema.encode_values(valued_cells(count=400).obs)[1]).numpy()
    exogenous = np.random.default_rng(0).normal(size=(400, run.model.schema.size, 4)).astype(np.float32)
    state = torch.random.get_rng_state()
    once: list[np.ndarray] = []
    twice: list[np.ndarray] = []
    for found in (once, twice):
        fit_target_priors(run.model, exogenous, values)
        found += [array.copy() for name, array in weights(run).items() if name.startswith("target_")]
    assert all(np.array_equal(one, other) for one, other in zip(once, twice, strict=True))
    assert torch.equal(torch.random.get_rng_state(), state)
    moved = {name for name, array in weights(run).items() if (array != before[name]).any()}
    assert moved
    assert all(name.startswith("target_") for name in moved)


def test_run_without_them_takes_the_priors_that_it_has(tmp_path: Path) -> None:
    older = fit(valued_cells(), tmp_path / "run", config=valued_config(tmp_path))
    file = older.path / "weights.safetensors"
    kept = {name: tensor for name, tensor in load_file(file).items() if not name.startswith("target_")}
    digest = file_digest(file)
    save_file(kept, file)
    described = (older.path / "run.json").read_text()
    (older.path / "run.json").write_text(described.replace(digest, file_digest(file)))
    model = Run.load(older.path).model
    values = torch.from_numpy(model.schema.encode_values(valued_cells().obs)[1])
    with torch.no_grad():
        assert torch.equal(model.prior(values)[0], model.prior_of_read(values)[0])
