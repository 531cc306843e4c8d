"""What notebooks show is well-formed, escaped, and a drawing of the graph."""

import itertools
import re
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.textpath import TextPath

from causcell._internal.html import graph_svg, html_card

SVG = "{http://www.w3.org/2000/svg}"


def make_graph(names, edges):
    pairs = [SimpleNamespace(parent=parent, child=child) for parent, child in edges]
    return SimpleNamespace(names=names, edges=pairs)


def draw(names, edges=()):
    """The boxes' left and right edges and middles by name, and the ends of the arrows."""
    drawing = ElementTree.fromstring(graph_svg(make_graph(names, edges)))
    boxes = {}
    for box, text in zip(drawing.iter(f"{SVG}rect"), drawing.iter(f"{SVG}text"), strict=True):
        x, y, width, height = (float(box.get(side)) for side in ("x", "y", "width", "height"))
        boxes[text.text] = (x, x + width, y + height / 2)
    arrows = []
    for line in drawing.iter(f"{SVG}polyline"):
        points = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
        arrows.append(points)
    return drawing, boxes, arrows


def test_a_card_has_its_title_and_facts_escaped():
    card = html_card("Model <1>", {"cells & genes": "700 < 1,000", 'quoted "x"': "a > b"})
    assert "<1>" not in card
    root = ElementTree.fromstring(card)
    assert root.find("b").text == "Model <1>"
    rows = [[cell.text for cell in row] for row in root.iter("tr")]
    assert rows == [["cells & genes", "700 < 1,000"], ['quoted "x"', "a > b"]]


def test_a_card_holds_the_drawing():
    card = html_card("Model", {}, graph_svg(make_graph(["stim"], [])))
    assert len(list(ElementTree.fromstring(card).iter(f"{SVG}svg"))) == 1


@pytest.mark.parametrize("names", [["stim"], ["stim", "donor", "cell_type"], ["a <b> & 'c'"]], ids=str)
def test_every_concept_has_a_box_inside_the_drawing(names):
    drawing, boxes, arrows = draw(names)
    assert list(boxes) == names
    assert arrows == []
    for left, right, middle in boxes.values():
        assert 0 <= left < right <= float(drawing.get("width"))
        assert 0 < middle < float(drawing.get("height"))


def test_arrows_run_from_causes_on_the_left_to_effects_on_the_right():
    """donor -> cell_type -> state <- stim: an edge that skips a column is drawn too."""
    edges = [("donor", "cell_type"), ("cell_type", "state"), ("stim", "state")]
    _, boxes, arrows = draw(["state", "stim", "donor", "cell_type"], edges)
    assert len(arrows) == len(edges)
    for (cause, effect), ((x1, y1), *_, (x2, y2)) in zip(edges, arrows, strict=True):
        assert boxes[cause][1] < boxes[effect][0]
        assert abs(x1 - boxes[cause][1]) <= 1
        assert 0 < boxes[effect][0] - x2 < 6  # room for the arrow's head
        assert (y1, y2) == pytest.approx((boxes[cause][2], boxes[effect][2]), abs=1)


def test_no_arrow_runs_through_a_box_of_another_concept():
    """stim -> state runs beside cell_type, which donor is a cause of and which is a cause of state."""
    edges = [("donor", "cell_type"), ("cell_type", "state"), ("stim", "state"), ("state", "age"), ("stim", "age")]
    _, boxes, arrows = draw(["stim", "donor", "cell_type", "state", "age"], edges)
    for edge, points in zip(edges, arrows, strict=True):
        for (x1, y1), (x2, y2) in itertools.pairwise(points):
            for share in np.linspace(0, 1, 50):
                x, y = x1 + share * (x2 - x1), y1 + share * (y2 - y1)
                inside = [n for n, (left, right, middle) in boxes.items() if left < x < right and abs(y - middle) < 13]
                assert not set(inside) - set(edge)


def test_no_arrow_runs_through_a_wider_box_of_its_own_column():
    """From a narrow box at the top to the last row of the next column, beside wide boxes below it."""
    names = ["a", *(f"developmental_stage_of_donor_{i}" for i in range(4)), *(f"child {i}" for i in range(5))]
    edges = [("a", f"child {i}") for i in range(5)]
    _, boxes, arrows = draw(names, edges)
    for edge, points in zip(edges, arrows, strict=True):
        for (x1, y1), (x2, y2) in itertools.pairwise(points):
            for share in np.linspace(0, 1, 50):
                x, y = x1 + share * (x2 - x1), y1 + share * (y2 - y1)
                inside = [n for n, (left, right, middle) in boxes.items() if left < x < right and abs(y - middle) < 13]
                assert not set(inside) - set(edge)


@pytest.mark.parametrize(
    "name", ["WWWWWWWWWWWW", "mmmmmmmmmmmm", "QQQQQQQQQQQQ", "developmental_stage_0123456789", "iii"]
)
def test_a_name_fits_its_box(name):
    """Measured in DejaVu Sans, which is wider than what browsers usually take."""
    _, boxes, _ = draw([name])
    left, right, _ = boxes[name]
    width = TextPath((0, 0), name, size=12, prop="DejaVu Sans").get_extents().width
    assert width <= right - left - 6


def test_wide_scripts_have_wide_boxes():
    _, boxes, _ = draw(["細胞型" * 4])
    left, right, _ = boxes["細胞型" * 4]
    assert right - left >= 12 * 12


def test_boxes_do_not_overlap():
    names = [f"concept_{i}" * (1 + i % 3) for i in range(9)]
    _, boxes, _ = draw(names, [(names[i], names[j]) for i in range(3) for j in range(3, 6)])
    places = list(boxes.values())
    for i, (left, right, middle) in enumerate(places):
        for other_left, other_right, other_middle in places[:i]:
            apart = right <= other_left or other_right <= left
            assert apart or abs(middle - other_middle) >= 26


def test_the_drawing_takes_the_colour_of_the_text_around_it():
    """Dark notebooks show it as light ones do."""
    drawing = graph_svg(make_graph(["a", "b"], [("a", "b")]))
    assert set(re.findall(r'(?:stroke|fill)="([^"]+)"', drawing)) == {"currentColor", "none"}
