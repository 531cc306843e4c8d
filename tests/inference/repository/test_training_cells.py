"""Which cells a model was trained on: exactly for few, by a filter of one size for many."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from causcell.repository import training_cells
from causcell.repository.training_cells import FILTER_BITS, MOST_DIGESTS, TrainingCells

NAMES = [f"cell_{i}" for i in range(MOST_DIGESTS + 1)]
OTHERS = [f"other_{i}" for i in range(20_000)]


@pytest.fixture(scope="module")
def many() -> TrainingCells:
    return TrainingCells.of(NAMES)


def test_few_cells_are_known_exactly_and_written_as_by_earlier_versions() -> None:
    few = TrainingCells.of(["b", "a", "b"])
    assert few.contain(["a", "x", "b"]).tolist() == [True, False, True]
    assert sorted(few.model_dump()) == ["count", "digests"]
    assert (few.count, few.mistaken) == (2, 0)


def test_as_many_as_are_kept_one_by_one() -> None:
    assert TrainingCells.of(NAMES[:-1]).hashes == 0


def test_a_filter_knows_every_training_cell_and_next_to_no_other(many: TrainingCells) -> None:
    assert many.count == len(NAMES)
    assert many.contain(NAMES).all()
    assert not many.contain(OTHERS).any()
    assert 0 < many.mistaken < 1e-12


def test_a_filter_is_of_one_size(many: TrainingCells) -> None:
    text = json.dumps(many.model_dump())
    assert len(text) < 1.4 * FILTER_BITS / 8
    assert TrainingCells.model_validate_json(text) == many
    many.check()


def test_the_share_of_mistakes_is_the_one_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_cells, "FILTER_BITS", 2**19)  # as full as 16 times the cells make it
    full = TrainingCells.of(NAMES)
    assert full.contain(NAMES).all()
    assert full.mistaken == pytest.approx(full.contain(OTHERS).mean(), rel=0.1)
    assert full.mistaken == pytest.approx(0.0216, rel=0.02)


@pytest.mark.parametrize(
    "damage",
    [
        {"digests": "%%%"},
        {"digests": base64.b64encode(bytes(100)).decode()},
        {"count": MOST_DIGESTS},
        {"hashes": 0},
    ],
)
def test_a_filter_that_can_t_be_is_told(many: TrainingCells, damage: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"training_cells\.digests (is no filter of|does not hold) \d+"):
        many.model_copy(update=damage).check()


def test_digests_of_too_few_cells_are_told() -> None:
    few = TrainingCells(count=1, digests=base64.b64encode(np.arange(2, dtype="<u8").tobytes()).decode())
    with pytest.raises(ValueError, match="does not hold 1 digests"):
        few.check()
