"""Lines that tell how far a long piece of work is."""

import pytest

from causcell._internal import stages
from causcell._internal.stages import at_intervals


def test_short_steps_are_told_at_intervals_the_first_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now, told = [100.0], []
    monkeypatch.setattr(stages.time, "monotonic", lambda: now[0])
    tell = at_intervals(told.append, seconds=3)
    for step in range(8):
        tell(f"step {step}")
        now[0] += 1
    assert told == ["step 0", "step 3", "step 6"]


def test_nothing_is_told_to_nobody() -> None:
    at_intervals(None)("a step")
