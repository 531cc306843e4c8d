"""Leakage within groups: what probes read of arrays whose answer is known, and the table of a trained model."""

import anndata
import numpy as np
import pytest

from causcell.concepts import Concept, ConceptSchema, Edge
from causcell.evaluation.data import read_evaluation_data
from causcell.evaluation.leakage import PROBES, list_leaks, measure_leakage_within, tabulate_leakage_within
from causcell.generator import Generator


def noise(cells: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((cells, 8))


def test_an_embedding_that_tells_nothing_is_at_chance_whatever_the_labels_frequencies() -> None:
    labels, groups = (np.arange(1200) % 10 < 3).astype(int), np.arange(1200) // 400
    found = measure_leakage_within(noise(1200), labels, groups)
    assert found is not None
    assert found.majority == pytest.approx(0.7)
    for probe in PROBES:
        # 1,200 cells against three shuffles of them: four standard errors of the difference, at most .0145 * 1.16 each
        assert abs(found.accuracy[probe] - found.chance[probe]) < 0.067, probe


def test_cells_are_read_by_probes_that_were_not_fitted_on_them() -> None:
    """More numbers than cells fit any labels; they do not foretell those of other cells, nor shuffled ones."""
    rng = np.random.default_rng(0)
    found = measure_leakage_within(rng.standard_normal((100, 400)), np.arange(100) % 2, np.zeros(100, dtype=int))
    assert found is not None
    assert max(*found.accuracy.values(), *found.chance.values()) < 0.7


def test_a_leak_of_another_sign_in_each_group_is_found_within_groups_alone() -> None:
    groups, labels = np.arange(600) // 300, np.arange(600) % 2
    x = noise(600)
    x[:, 0] += 3 * np.where(labels == groups, 1, -1)
    within = measure_leakage_within(x, labels, groups)
    overall = measure_leakage_within(x, labels, np.zeros(600, dtype=int))
    assert within is not None
    assert overall is not None
    assert min(within.accuracy.values()) > 0.97
    assert max(within.chance.values()) < 0.6
    assert overall.accuracy["linear"] < 0.6


def test_a_label_that_follows_from_the_group_is_no_leak() -> None:
    """Groups with one label hold nothing to read; in the other the embedding, which tells the group, tells nothing."""
    groups = np.arange(600) // 200
    labels = np.where(groups == 0, np.arange(600) % 2, 1)
    found = measure_leakage_within(noise(600) + 5 * groups[:, None], labels, groups)
    assert found is not None
    assert found.cells == 200
    assert found.groups == (1, 3)
    for probe in PROBES:
        assert abs(found.accuracy[probe] - found.chance[probe]) < 0.16, probe  # four standard errors of 200 cells


def test_the_network_reads_what_neither_a_line_nor_neighbours_can() -> None:
    """Two of 32 dimensions agree in sign or not."""
    rng = np.random.default_rng(0)
    labels, side = rng.integers(0, 2, 1000), rng.integers(0, 2, 1000)
    x = rng.standard_normal((1000, 32))
    x[:, 0] += 3 * side
    x[:, 1] += 3 * (side ^ labels)
    found = measure_leakage_within(x, labels, np.zeros(1000, dtype=int))
    assert found is not None
    assert found.accuracy["linear"] < 0.56
    assert found.accuracy["network"] > found.accuracy["neighbours"] + 0.1
    assert found.accuracy["network"] > 0.75
    assert found.chance["network"] < 0.56


def test_unlabelled_cells_rare_labels_and_cells_of_no_group_are_left_out() -> None:
    labels = np.array([0, 1] * 50 + [-1] * 30 + [2] * 9 + [0, 1] * 20)
    groups = np.array([0] * 139 + [-1] * 40)
    found = measure_leakage_within(noise(179), labels, groups)
    assert found is not None
    assert found.cells == 100
    assert measure_leakage_within(noise(179), np.where(labels == 0, 0, -1), groups) is None


def test_averages_are_weighted_by_cells() -> None:
    groups = np.array([0] * 300 + [1] * 100)
    labels = np.arange(400) % 2
    x = noise(400)
    x[:300, 0] += 20 * labels[:300]
    found = measure_leakage_within(x, labels, groups)
    assert found is not None
    # three quarters of the cells are read right, and about half of the others: within four standard errors of 100
    assert found.accuracy["linear"] == pytest.approx(0.75 + 0.25 * 0.5, abs=0.05)


def test_leaks_follow_from_the_graph() -> None:
    concepts = tuple(Concept(name, ("a", "b")) for name in ("donor", "cell_type", "stim"))
    leaks = list_leaks(ConceptSchema(concepts, (Edge("donor", "cell_type"),)))
    assert ("unexplained", "stim", "donor") in leaks
    assert ("unexplained", "stim", "cell_type") in leaks
    assert ("cell_type", "stim", "cell_type") in leaks
    assert ("donor", "cell_type", "donor") in leaks
    # given its label, the child's exogenous part goes with its parent: they have it in common
    assert ("cell_type", "donor", None) in leaks
    assert ("cell_type", "donor", "cell_type") not in leaks
    assert not [leak for leak in leaks if leak[0] == leak[1]]


def test_the_table_has_a_row_for_each_leak_and_reads_what_is_put_into_the_unexplained_embedding(
    generator: Generator, cells: anndata.AnnData
) -> None:
    rows = np.arange(cells.n_obs)
    data = read_evaluation_data(generator, cells, test_rows=rows, training_rows=rows)
    row = "embedding of unexplained, stim within cell_type"
    before = tabulate_leakage_within(data).rows[row]
    stim = data.test_labels[:, data.schema.index("stim")]
    assert data.test_embeddings is not None
    data.test_embeddings.exogenous["unexplained"][:] += 10 * stim[:, None]
    after = tabulate_leakage_within(data).rows[row]
    for probe in PROBES:
        assert after[probe][0] > 0.98
        assert after[f"{probe}, by chance"][0] < after[probe][0] - 0.2
    assert after["most frequent label"] == before["most frequent label"]
    assert after["groups"][0] + after["groups left out"][0] == len(data.schema["cell_type"].labels)
