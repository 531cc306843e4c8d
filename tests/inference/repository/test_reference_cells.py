"""Reference cells: draws keyed by cell, that carry what was asked for; and the table's file."""

import numpy as np
import pytest

from causcell.errors import CorruptFileError, InterventionError
from causcell.randomness import cell_keys
from causcell.repository.reference_cells import (
    CELLS_PER_LABEL,
    FEWEST_PER_LABEL,
    REFERENCE_BYTES,
    ReferenceCells,
    cells_per_label,
    select_reference_cells,
)

NAMES = [f"cell_{i}" for i in range(300)]
KEYS = cell_keys(0, NAMES)


@pytest.fixture(scope="module")
def reference():
    """60 cells of three concepts, with 3, 2 and 4 labels; nobody carries (0: 2, 1: 1) together, some miss labels."""
    rng = np.random.default_rng(0)
    labels = np.stack([rng.integers(size, size=60) for size in (3, 2, 4)], axis=1).astype(np.int32)
    labels[(labels[:, 0] == 2), 1] = 0
    labels[:3, 2] = -1
    return ReferenceCells(rng.normal(size=(60, 4, 5)).astype(np.float32), labels, np.unique(labels, axis=0))


# -- draws -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("concept", "label"), [(0, 0), (0, 2), (1, 1), (2, 3)])
def test_drawn_cells_carry_the_label(reference, concept, label):
    rows, unmatched = reference.draw(concept, label, KEYS, draw=0)
    assert rows.shape == (300,)
    assert (reference.labels[rows, concept] == label).all()
    assert not unmatched.any()


def test_every_carrier_can_be_drawn(reference):
    """300 draws of at most 30 carriers leave one out with a chance below 0.2 %; the keys are fixed."""
    rows, _ = reference.draw(1, 1, KEYS, draw=0)
    assert set(rows) == set(np.flatnonzero(reference.labels[:, 1] == 1))


def test_a_draw_does_not_depend_on_the_batch(reference):
    rows, _ = reference.draw(0, 1, KEYS, draw=0)
    order = np.random.default_rng(0).permutation(300)
    np.testing.assert_array_equal(reference.draw(0, 1, KEYS[order], draw=0)[0], rows[order])
    np.testing.assert_array_equal(reference.draw(0, 1, KEYS[7:8], draw=0)[0], rows[7:8])


def test_draws_differ_by_draw_seed_and_concept(reference):
    same_carriers = ReferenceCells(reference.exogenous, np.ones((60, 2), np.int32), np.ones((1, 2), np.int32))
    rows, _ = same_carriers.draw(0, 1, KEYS, draw=0)
    for other in (
        same_carriers.draw(0, 1, KEYS, draw=1),
        same_carriers.draw(1, 1, KEYS, draw=0),
        same_carriers.draw(0, 1, cell_keys(1, NAMES), draw=0),
    ):
        assert (other[0] == rows).mean() < 0.1  # by chance: 1 in 60


def test_no_cell_carries_the_label(reference):
    with pytest.raises(InterventionError, match="no reference cell carries label 9 of concept 1"):
        reference.draw(1, 9, KEYS, draw=0)


def test_matching_honours_the_parents_labels(reference):
    parent_labels = np.stack([np.arange(300) % 3, np.arange(300) % 2], axis=1)
    parents = (0, 1)
    rows, unmatched = reference.draw(2, 1, KEYS, draw=0, parent_labels=parent_labels, parents=parents)
    carriers = reference.labels[reference.labels[:, 2] == 1]
    possible = np.array([(carriers[:, :2] == combo).all(axis=1).any() for combo in parent_labels])
    assert 0 < possible.sum() < 300
    np.testing.assert_array_equal(unmatched, ~possible)
    assert (reference.labels[rows, 2] == 1).all()
    np.testing.assert_array_equal(reference.labels[rows[possible]][:, :2], parent_labels[possible])


def test_matching_falls_back_to_the_draw_by_label_alone(reference):
    """Flagged, and the very draw that the cell gets without matching."""
    parent_labels = np.full((300, 1), 2)
    rows, unmatched = reference.draw(1, 1, KEYS, draw=0, parent_labels=parent_labels, parents=(0,))
    assert unmatched.all()
    np.testing.assert_array_equal(rows, reference.draw(1, 1, KEYS, draw=0)[0])


def test_a_matched_draw_does_not_depend_on_the_batch(reference):
    parent_labels = (np.arange(300) % 3)[:, None]
    rows, unmatched = reference.draw(1, 1, KEYS, draw=0, parent_labels=parent_labels, parents=(0,))
    order = np.random.default_rng(0).permutation(300)[:50]
    there = reference.draw(1, 1, KEYS[order], draw=0, parent_labels=parent_labels[order], parents=(0,))
    np.testing.assert_array_equal(there[0], rows[order])
    np.testing.assert_array_equal(there[1], unmatched[order])


def test_matching_a_concept_without_parents_changes_nothing(reference):
    rows, unmatched = reference.draw(0, 1, KEYS, draw=0, parent_labels=np.empty((300, 0), int), parents=())
    np.testing.assert_array_equal(rows, reference.draw(0, 1, KEYS, draw=0)[0])
    assert not unmatched.any()


# -- which cells are kept ----------------------------------------------------------------------------------------------


def test_a_label_keeps_at_most_its_share():
    labels = np.repeat([0, 1, 2], [500, 30, 100])[:, None]
    kept = select_reference_cells(labels, np.random.default_rng(0), per_label=100)
    assert np.bincount(labels[kept, 0]).tolist() == [100, 30, 100]


def test_every_label_of_every_concept_keeps_enough():
    """Each label has as many cells as it may, and the whole is no more than all labels' shares together."""
    rng = np.random.default_rng(1)
    labels = np.stack([rng.integers(2, size=2000), rng.choice(5, p=[0.6, 0.3, 0.08, 0.015, 0.005], size=2000)], axis=1)
    kept = select_reference_cells(labels, np.random.default_rng(0), per_label=100)
    wanted = 0
    for concept in range(2):
        all_cells, kept_cells = np.bincount(labels[:, concept]), np.bincount(labels[kept, concept])
        assert (kept_cells >= np.minimum(all_cells, 100)).all()
        wanted += np.minimum(all_cells, 100).sum()
    assert len(kept) <= wanted


def test_all_cells_of_a_rare_label_are_kept():
    labels = np.repeat([[0, 0], [0, 1], [1, 0]], [1000, 7, 1000], axis=0)
    kept = select_reference_cells(labels, np.random.default_rng(0), per_label=50)
    assert set(range(1000, 1007)) <= set(kept)
    assert (labels[kept, 0] == 0).sum() == 50


def test_kept_rows_ascend_and_stand_once():
    labels = np.random.default_rng(0).integers(3, size=(500, 3))
    kept = select_reference_cells(labels, np.random.default_rng(0), per_label=20)
    assert (np.diff(kept) > 0).all()


def test_cells_without_any_label_are_not_kept():
    labels = np.array([[-1, -1], [0, -1], [1, 0], [-1, 1]])
    assert select_reference_cells(labels, np.random.default_rng(0)).tolist() == [1, 2, 3]


def test_selection_is_the_generators():
    labels = np.zeros((1000, 1), dtype=int)
    first, again, other = (select_reference_cells(labels, np.random.default_rng(seed), 50) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert set(first) != set(other)


# -- the file ----------------------------------------------------------------------------------------------------------


def test_saved_cells_are_loaded(reference, tmp_path):
    reference.save(tmp_path / "reference.npz")
    loaded = ReferenceCells.load(tmp_path / "reference.npz")
    for name in ("exogenous", "labels", "combinations"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(reference, name))
        assert getattr(loaded, name).dtype == getattr(reference, name).dtype


def test_the_file_holds_nothing_else(reference, tmp_path):
    reference.save(tmp_path / "reference.npz")
    with np.load(tmp_path / "reference.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {"exogenous", "labels", "combinations"}


def absent(path):
    path.unlink()


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("no cells")


def truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def overwritten(offset):
    """Eight bytes of the first array changed: near its start what is compressed has no meaning any more."""

    def spoil(path):
        content = path.read_bytes()
        path.write_bytes(content[:offset] + bytes(8) + content[offset + 8 :])

    spoil.__name__ = f"overwritten_at_{offset}"
    return spoil


def another_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def pickled(path):
    with path.open("wb") as file:
        np.savez(file, exogenous=np.array([{}]), labels=np.zeros(1), combinations=np.zeros(1))


def incomplete(path):
    with path.open("wb") as file:
        np.savez(file, exogenous=np.zeros(3), labels=np.zeros(3))


@pytest.mark.parametrize(
    "spoil",
    [absent, empty, text, truncated, overwritten(60), overwritten(300), another_array, pickled, incomplete],
    ids=lambda spoil: spoil.__name__,
)
def test_a_corrupt_file_is_refused(reference, tmp_path, spoil):
    path = tmp_path / "reference.npz"
    reference.save(path)
    spoil(path)
    with pytest.raises(CorruptFileError, match=r"reference\.npz holds no reference cells .*; export again"):
        ReferenceCells.load(path)


def test_table_is_bounded_by_bytes_and_not_by_labels():
    for labels in (2, 50, 500, 2000):
        cells = cells_per_label(labels, concepts=3, embedding=32) * labels
        assert cells * 4 * (4 * 32 + 3) <= max(REFERENCE_BYTES, FEWEST_PER_LABEL * labels * 4 * (4 * 32 + 3))
    assert cells_per_label(20, concepts=3, embedding=32) == CELLS_PER_LABEL
    assert cells_per_label(10**6, concepts=3, embedding=32) == FEWEST_PER_LABEL
