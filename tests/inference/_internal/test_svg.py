"""Parts of SVG figures: dots in their places, labels that cover nothing, texts that nothing can break out of."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from causcell._internal.svg import draw_points, draw_rings, figure_svg, nice_step, place_labels, shorten


def places(path: str) -> list[tuple[int, int]]:
    """The absolute places of a path of relative moves."""
    steps = re.findall(r"m(-?\d+) ?(-?\d+)h0", path)
    return [tuple(each) for each in np.cumsum(np.array(steps, dtype=int), axis=0).tolist()]


def test_every_dot_is_in_its_place_to_half_a_pixel() -> None:
    x, y = np.random.default_rng(0).uniform(-50, 200, (2, 500))
    drawn = places(draw_points(x, y))
    expected = {(round(2 * a), round(2 * b)) for a, b in zip(x, y, strict=True)}
    assert set(drawn) == expected
    assert len(drawn) == len(expected)


def test_dots_of_one_place_are_drawn_once() -> None:
    assert places(draw_points(np.full(1000, 7.1), np.full(1000, -3.0))) == [(14, -6)]


def test_a_ring_goes_round_its_place() -> None:
    starts = re.findall(
        r"m(-?\d+) (-?\d+)a4 4 0 1 0 8 0a4 4 0 1 0-8 0", draw_rings(np.array([1, 9]), np.array([2, 2]), 4)
    )
    assert np.cumsum(np.array(starts, dtype=int), axis=0).tolist() == [[-2, 4], [14, 4]]


def test_a_figure_has_a_title_and_a_description_that_are_text() -> None:
    svg = ElementTree.fromstring(figure_svg("dots", "A <b> & c", '"<script>"', (10, 5), ""))
    assert [(each.tag.rpartition("}")[2], each.text) for each in svg] == [
        ("title", "A <b> & c"),
        ("desc", '"<script>"'),
    ]
    assert svg.get("role") == "img"


def test_no_label_covers_a_point_or_another_label_or_leaves_the_box() -> None:
    rng = np.random.default_rng(1)
    points = [(f"GENE{i}", float(x), float(y)) for i, (x, y) in enumerate(rng.uniform(10, 290, (40, 2)))]
    placed = place_labels(points, (0, 0, 300, 300))
    assert len(placed) > 25
    boxes = []
    for label in placed:
        width = 6.4 * len(label.text)
        left = {"start": label.x, "middle": label.x - width / 2, "end": label.x - width}[label.anchor]
        boxes.append((left, label.y - 8, left + width, label.y + 2))
    for i, own in enumerate(boxes):
        assert own[0] >= 0 and own[1] >= 0 and own[2] <= 300 and own[3] <= 300
        for other in boxes[:i]:
            assert own[0] >= other[2] or other[0] >= own[2] or own[1] >= other[3] or other[1] >= own[3]
        assert not any(own[0] < x < own[2] and own[1] < y < own[3] for _, x, y in points)


@pytest.mark.parametrize(("span", "parts"), [(1e-9, 4), (0.7, 3), (1.0, 1), (99.0, 4), (5e7, 5)])
def test_steps_divide_a_span_into_as_many_parts_as_asked_for_at_most(span: float, parts: int) -> None:
    step = nice_step(span, parts)
    assert parts / 2.6 < span / step <= parts
    assert f"{step:e}"[0] in "125"


def test_a_span_of_nothing_has_a_step() -> None:
    assert nice_step(0.0, 4) == nice_step(float("nan"), 4) == 1.0


def test_long_texts_are_cut_and_short_ones_are_not() -> None:
    assert shorten("x" * 100, 64, 10) == "x" * 9 + "…"
    assert shorten("x" * 10, 64, 10) == "x" * 10
