"""Verdicts that export takes on held-out cells."""

from pathlib import Path

import anndata
import numpy as np
import pytest

from causcell.cells.collection import open_cells
from causcell.generator import Generator
from causcell.repository.folder import open_repository
from causcell_export.judging import with_verdicts
from causcell_training.data.split import PART, TEST, VALIDATION


@pytest.fixture(scope="module")
def held_out(generator: Generator, cells: anndata.AnnData) -> anndata.AnnData:
    """All cells as a run keeps held-out ones, those of each part by turns: more than the few that were held out."""
    with generator.bind(open_cells(cells)) as bound:
        expression = bound.read(slice(0, cells.n_obs)).expression
    made = anndata.AnnData(expression, obs=cells.obs.copy())
    made.var_names = list(generator.preprocessing.genes)
    made.obs[PART] = np.where(np.arange(cells.n_obs) % 2 == 0, TEST, VALIDATION)
    return made


def test_every_exported_concept_has_a_verdict_and_few_cells_are_told(repository: Path) -> None:
    manifest = open_repository(repository).manifest
    assert [each.concept for each in manifest.verdicts] == list(manifest.concept_schema.names)
    assert all(each.usable is None and "too few cells" in each.reason for each in manifest.verdicts)


def test_concepts_are_judged_on_test_cells(repository: Path, held_out: anndata.AnnData) -> None:
    manifest = open_repository(repository).manifest
    judged = {each.concept: each for each in with_verdicts(manifest, repository, held_out).verdicts}
    assert list(judged) == list(manifest.concept_schema.names)
    test = held_out[held_out.obs[PART] == TEST]
    for name, verdict in judged.items():
        assert verdict.majority == pytest.approx(test.obs[name].value_counts(normalize=True).max(), abs=1e-4)
    stim = judged["stim"]
    assert stim.score is not None
    assert stim.usable is (stim.read and stim.score > stim.resolution)
    # the same again
    assert with_verdicts(manifest, repository, held_out).verdicts == tuple(judged.values())


def test_without_cells_to_judge_on_nothing_is_judged(repository: Path, held_out: anndata.AnnData) -> None:
    few = held_out[:20]
    manifest = with_verdicts(open_repository(repository).manifest, repository, few)
    assert {each.usable for each in manifest.verdicts} == {None}
    assert all("10 test cells and 10 validation cells were held out" in each.reason for each in manifest.verdicts)
