"""The change log names whatever is deprecated or was replaced, beside what to use today."""

import re

import pytest
from paths import ROOT

import causcell_training._moved
from causcell import _moved

ROWS = [re.split(r" *\| *", line)[1:3] for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line[:1] == "|"]
NEW = dict(ROWS)
"""Second column of every table by the first."""

HOMES = {**_moved.MOVED, **_moved.SPLIT, **causcell_training._moved.MOVED}


@pytest.mark.parametrize("old", sorted(HOMES.keys() - set(_moved.KEPT)))
def test_a_module_that_moved_stands_with_all_that_took_its_place(old: str) -> None:
    assert re.findall(r"`([^`]+)`", NEW[f"`{old}`"]) == list(HOMES[old])


@pytest.mark.parametrize(("old", "new"), [*_moved.RENAMED.items(), *causcell_training._moved.RENAMED.items()])
def test_a_renamed_thing_stands_with_its_new_name(old: str, new: str) -> None:
    module, _, name = old.rpartition(".")
    (found,) = [row[1] for row in ROWS if re.fullmatch(rf"`{module or '[^`]*'}`: .*`{name}`.*", row[0])]
    assert f"`{new}`" in found


@pytest.mark.parametrize("old", _moved.REPLACED)
def test_what_was_replaced_stands_with_what_took_its_place(old: str) -> None:
    assert _moved.REPLACED[old].partition(",")[0] in NEW[f"`{old}`"]
