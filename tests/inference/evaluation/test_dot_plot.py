"""Dot plots: a dot for each value in its place, none that covers another, a direction for each measure."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from causcell.evaluation.dot_plot import draw_dots, find_direction
from causcell.evaluation.table import Table

NAMESPACE = {"svg": "http://www.w3.org/2000/svg"}


@pytest.fixture
def table() -> Table:
    """Four rows of two measures, two of equal value, one without the second measure."""
    rows = {
        "model <a>": {"PCC": 0.8, "MSE": 0.2},
        "no change": {"PCC": 0.0, "MSE": 1.0},
        "label means": {"PCC": 0.8},
        "other real cells": {"PCC": 1.0, "MSE": 0.1},
    }
    roles = {"model <a>": "model", "no change": "trivial", "label means": "trivial", "other real cells": "replicate"}
    errors = {"model <a>": {"PCC": 0.1}}
    return Table.of("Name & more", rows, interpretation="", limitations="", roles=roles, errors=errors)


def drawing(table: Table) -> ElementTree.Element:
    return ElementTree.fromstring(draw_dots(table).partition('<div class="key">')[0])


def test_every_value_has_a_dot_in_its_place(table: Table) -> None:
    groups = drawing(table).findall("svg:g", NAMESPACE)
    told = [group.find("svg:title", NAMESPACE).text for group in groups]
    assert len(groups) == 7
    assert sum("label means" in text for text in told) == 1
    places = {
        text.partition(":")[0]: float(group.find("svg:circle", NAMESPACE).get("cx"))
        for group, text in zip(groups[:4], told[:4], strict=True)
    }
    low, high = places["no change"], places["other real cells"]
    assert (places["model <a>"] - low) / (high - low) == pytest.approx(0.8, abs=1e-3)


def test_no_dot_covers_another(table: Table) -> None:
    dots = drawing(table).findall(".//svg:circle", NAMESPACE)
    points = np.array([(float(dot.get("cx")), float(dot.get("cy"))) for dot in dots])
    distances = np.linalg.norm(points[:, None] - points[None], axis=2) + 100 * np.eye(len(points))
    assert distances.min() >= 16


def test_the_key_names_every_row_by_its_part(table: Table) -> None:
    key = draw_dots(table).partition('<div class="key">')[2]
    assert re.findall(r'<span class="(\w+)">(\w)</span> ([^<]+)</div>', key) == [
        ("model", "a", "model &lt;a&gt; (judged)"),
        ("trivial", "b", "no change (trivial)"),
        ("trivial", "c", "label means (trivial)"),
        ("ceiling", "d", "other real cells (ceiling)"),
    ]


def test_whiskers_stand_where_there_are_errors(table: Table) -> None:
    assert draw_dots(table).count('class="whisker"') == 1


def test_values_that_are_all_the_same_or_missing_are_drawn(table: Table) -> None:
    same = Table.of("s", {row: {"x": 1.0} for row in "ab"}, interpretation="", limitations="")
    assert len(drawing(same).findall(".//svg:circle", NAMESPACE)) == 2
    none = Table.of("n", {"a": {"x": float("nan")}}, interpretation="", limitations="")
    assert len(drawing(none).findall(".//svg:circle", NAMESPACE)) == 0


@pytest.mark.parametrize(
    ("measure", "words"), [("MSE", "the lower the better"), ("accuracy", "the higher the better"), ("unheard of", "")]
)
def test_the_direction_is_told_where_it_is_known(measure: str, words: str) -> None:
    assert find_direction(measure) == words


def test_counts_have_no_line_and_own_directions_are_told() -> None:
    rows = {"a": {"linear": 0.4, "cells": 220.0}, "b": {"linear": 0.6, "cells": 220.0}}
    table = Table.of("t", rows, interpretation="", limitations="", better={"linear": "lower"}, counts=["cells"])
    texts = [text.text for text in drawing(table).iter("{http://www.w3.org/2000/svg}text")]
    assert "linear" in texts
    assert "the lower the better" in texts
    assert "cells" not in texts
