"""Figures of effects in a report: numbers are the evaluation's, figures are told in words, nothing is fetched."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from causcell.evaluation.cell_maps import CellMap, MappedCells
from causcell.evaluation.effect_figures import format_effect_figures
from causcell.evaluation.gene_shifts import GeneShifts
from causcell.evaluation.map_panels import choose_colours
from causcell.evaluation.report import format_page
from causcell.evaluation.shift_heat_map import MOST_ROWS, choose_genes
from causcell.evaluation.shift_panels import MOST_PANELS, choose_shown, find_furthest
from causcell.evaluation.table import EFFECTS, LABELS, UNSEEN, Table

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = 'a"><script>alert(1)</script>'


def shift(number: int = 0, genes: int = 60, **changes: object) -> GeneShifts:
    rng = np.random.default_rng(number)
    names = tuple(f"GENE{i}" for i in range(genes))
    real = rng.standard_normal(genes).astype(np.float32)
    predicted = (0.8 * real + 0.3 * rng.standard_normal(genes)).astype(np.float32)
    given = {
        "genes": names, "symbols": names, "concept": "stim", "source": "ctrl", "target": "IFN",
        "stratum": f"cell_type=type {number}", "source_cells": 20 + number, "target_cells": 40, "real": real,
        "error": np.full(genes, 0.1, np.float32), "predicted": predicted,
        "correlation": float(np.corrcoef(real, predicted)[0, 1]),
    }  # fmt: skip
    return GeneShifts(**(given | changes))


def table(*shifts: GeneShifts, kind: str = EFFECTS) -> Table:
    rows = {"model, do": {"pcc": 0.5}, "no change": {"pcc": 0.0}}
    made = Table.of("Interventions: stim", rows, interpretation="", limitations="", kind=kind, concept="stim")
    return Table(**{**made.__dict__, "shifts": shifts})


def cell_map(**changes: object) -> CellMap:
    rng = np.random.default_rng(0)
    cells = [MappedCells(rng.normal(0, 3, (n, 2)).astype(np.float32), rng.integers(0, 2, n)) for n in (12, 9, 12, 12)]
    given = {
        "concept": "stim", "source": "ctrl", "target": "IFN", "axes": "UMAP", "why": "", "column": "cell_type",
        "labels": ("B", "T"), "colors": ("#123456", ""), "sources": cells[0], "targets": cells[1],
        "factual": cells[2], "counterfactual": cells[3], "estimate": "sample",
    }  # fmt: skip
    return CellMap(**(given | changes))


def figures(html: str) -> dict[str, ElementTree.Element]:
    """The drawings of a page by their class."""
    found = [ElementTree.fromstring(each) for each in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]
    return {each.get("class", ""): each for each in found}


def test_panels_tell_every_stratum_with_its_cells_and_its_correlation() -> None:
    shifts = [shift(number) for number in range(5)]
    panels = figures(format_effect_figures(table(*shifts), {}))["panels"]
    texts = [each.text for each in panels.iter(f"{SVG}text")]
    for each in shifts:
        assert each.row_name in texts
        assert f"n {each.source_cells} → 40 · r {each.correlation:.2f}" in texts
    assert texts.count("real shift (log scale)") == texts.count("predicted shift (log scale)") == 1
    assert len(panels.findall(f".//{SVG}line[@class='same']")) == 5


def test_dots_stand_where_both_shifts_say_on_one_scale() -> None:
    """Places of the ringed genes are a linear function of their shifts, the same in both panels but for a corner."""
    shifts = [shift(0), shift(1, genes=60)]
    panels = figures(format_effect_figures(table(*shifts), {}))["panels"]
    rings = panels.findall(f"{SVG}circle")
    slopes = []
    for each in shifts:
        ringed = find_furthest(each)
        own, rings = rings[: len(ringed)], rings[len(ringed) :]
        told = [ring.find(f"{SVG}title").text for ring in own]
        assert told[0].startswith(f"{each.symbols[ringed[0]]}: real {each.real[ringed[0]]:.2f} ± 0.10, predicted ")
        x, y = (np.array([float(ring.get(name)) for ring in own]) for name in ("cx", "cy"))
        for values, places in ((each.real[ringed], x), (-each.predicted[ringed], y)):
            slope, start = np.polyfit(values, places, 1)
            np.testing.assert_allclose(slope * values + start, places, atol=0.06)  # a tenth of a pixel, rounded
            slopes.append(slope)
    assert not rings
    np.testing.assert_allclose(slopes, slopes[0], rtol=0.01)
    frame = panels.find(f"{SVG}rect[@class='frame']")
    line = panels.find(f"{SVG}line[@class='same']")
    assert [line.get(name) for name in ("x1", "y2")] == [frame.get("x"), frame.get("y")]  # corner to corner: equal axes
    assert frame.get("width") == frame.get("height")


def test_the_furthest_genes_are_ringed() -> None:
    each = shift(3)
    size, off = np.hypot(each.real, each.predicted), np.abs(each.real - each.predicted)
    ringed = find_furthest(each)
    assert {int(size.argmax()), int(off.argmax())} <= set(ringed)
    assert min(size[ringed[:6]]) >= max(np.delete(size, ringed[:6]))


def test_a_heat_map_holds_real_beside_predicted_for_the_genes_of_the_largest_shifts() -> None:
    shifts = [shift(number) for number in range(3)]
    heat = figures(format_effect_figures(table(*shifts), {}))["heat"]
    genes = choose_genes(shifts)
    texts = [each.text for each in heat.iter(f"{SVG}text")]
    assert [text for text in texts if text in shifts[0].symbols] == [shifts[0].symbols[gene] for gene in genes]
    assert texts.count("real") == texts.count("predicted") == 3
    assert [text for text in texts if text.startswith("n ")] == ["n 20 → 40", "n 21 → 40", "n 22 → 40"]
    largest = max(np.abs([each.real[genes], each.predicted[genes]]).max() for each in shifts)
    cells = [each for each in heat.iter(f"{SVG}g") if len(each.findall(f"{SVG}rect")) == 2]
    assert len(cells) == 3 * len(genes)
    for number, cell in enumerate(cells):
        own, gene = shifts[number // len(genes)], genes[number % len(genes)]
        for rect, value in zip(cell.findall(f"{SVG}rect"), (own.real[gene], own.predicted[gene]), strict=True):
            assert rect.get("class") == ("up" if value > 0 else "down")
            assert float(rect.get("fill-opacity")) == pytest.approx(abs(value) / largest, abs=0.006)
        assert f"real {own.real[gene]:.2f} ± 0.10, predicted {own.predicted[gene]:.2f}" in cell.find(f"{SVG}title").text


def test_of_many_shifts_those_of_most_cells_are_shown_and_the_rest_is_said() -> None:
    shifts = [shift(number) for number in range(MOST_ROWS + 4)]
    page = format_effect_figures(table(*shifts), {})
    assert f"Shown are the {MOST_PANELS} shifts of most cells; shifts.h5ad holds all {len(shifts)}." in page
    assert f"Shown are the {MOST_ROWS} shifts of most cells" in page
    assert [each.source_cells for each in choose_shown(shifts, 3)] == [37, 38, 39]
    assert page.count('class="same"') == MOST_PANELS


def test_shifts_without_replicates_have_no_error_and_no_change_has_a_figure() -> None:
    """Infinite errors and shifts of nothing: no NaN reaches the page."""
    none = np.zeros(60, np.float32)
    page = format_effect_figures(
        table(shift(0, error=np.full(60, np.inf, np.float32)), shift(1, real=none, predicted=none)), {}
    )
    empty = format_effect_figures(table(shift(1, real=none, predicted=none, correlation=0.0)), {})
    assert "±" not in re.findall(r"<title>GENE.*?</title>", page)[0]
    assert not re.search(r"\b(nan|inf)\b", page + empty)


@pytest.mark.parametrize("factual", [True, False])
def test_a_map_has_every_cell_in_its_panel(factual: bool) -> None:
    drawn = cell_map(**({} if factual else {"factual": None}))
    page = format_effect_figures(table(shift()), {"stim": drawn})
    panels = figures(page)["map"]
    rings = "".join(each.get("d") for each in panels.findall(f"{SVG}path[@class='rings']"))
    dots = [len(re.findall("h0", each.get("d"))) for each in panels.findall(f"{SVG}path[@class='cells']")]
    behind = [len(re.findall("h0", each.get("d"))) for each in panels.findall(f"{SVG}path[@class='behind']")]
    assert rings.count("m") == 12
    assert sum(dots) == 9 + 12 * (1 + factual)
    assert behind == [12, 9] if factual else behind == [9]
    assert "Cells under do(stim = IFN)" in page
    key = panels.findall(f"{SVG}circle")
    assert [each.get("fill") for each in key] == ["#123456", "var(--label-0)"]
    assert ("Factual samples" in page) == factual


def test_colours_that_scanpy_did_not_store_are_safe_and_seen_on_dark_pages() -> None:
    labels = tuple(map(str, range(8)))
    drawn = cell_map(labels=labels, colors=("",) * 8)
    colours = choose_colours(drawn, [*range(8), -1])
    assert len(set(colours.values())) == 9
    assert [colours[code] for code in range(8)] == [f"var(--label-{code})" for code in range(8)]
    page = format_page("t", {}, [table(shift())], maps={"stim": drawn})
    light, dark = (re.findall(r"--label-\d+:(#\w{6})", part) for part in page.split("--label-11", 1))
    assert [each.lower() for each in light[:2]] == ["#0072b2", "#e69f00"]
    for colour in dark[1:]:
        assert max(int(colour[place : place + 2], 16) for place in (1, 3, 5)) > 180  # seen on black
    many = cell_map(labels=tuple(map(str, range(30))), colors=("",) * 30)
    assert len(set(choose_colours(many, [*range(30), -1]).values())) == 31


def test_why_there_is_no_map_is_said() -> None:
    assert "No map of cells was kept" in format_effect_figures(table(shift()), {})
    assert "as the reason is" in format_effect_figures(table(shift()), {"stim": "No map, as the reason is."})
    page = format_effect_figures(table(shift()), {"stim": cell_map(axes="PC", why="12 cells are few")})
    assert "Principal components in place of a UMAP: 12 cells are few." in page


def test_tables_of_before_make_a_report_that_says_what_it_lacks() -> None:
    page = format_page("t", {}, [table()])
    assert "No figures of single genes" in page
    assert "No map of cells was kept" in page
    assert 'class="panels"' not in page
    assert format_effect_figures(table(kind=LABELS), {}) == ""
    assert "map of cells" not in format_effect_figures(table(shift(), kind=UNSEEN), {})


def test_every_figure_has_a_title_and_a_description_and_nothing_is_fetched() -> None:
    page = format_page("t", {}, [table(shift(), shift(1))], maps={"stim": cell_map()})
    found = figures(page)
    assert set(found) == {"dots", "panels", "heat", "map"}
    for svg in found.values():
        assert [each.tag for each in svg[:2]] == [f"{SVG}title", f"{SVG}desc"]
        assert all(each.text for each in svg[:2])
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"<(img|script|link|iframe)|@import|url\(|src=", page)
    assert "@media(prefers-color-scheme:dark)" in page
    defined = set(re.findall(r"(--\w+):", page))
    assert set(re.findall(r"var\((--\w+)\)", page)) <= defined


def test_names_stay_text() -> None:
    symbols = (HOSTILE,) * 60
    hostile = {"concept": HOSTILE, "source": HOSTILE, "target": HOSTILE}
    page = format_effect_figures(
        table(shift(stratum=f"cell_type={HOSTILE}", symbols=symbols, **hostile)),
        {"stim": cell_map(labels=(HOSTILE, HOSTILE), column=HOSTILE, **hostile)},
    )
    assert "<script" not in page
    assert len(figures(page)) == 3  # each is well-formed


def test_a_page_of_thousands_of_genes_and_many_strata_stays_small() -> None:
    shifts = [shift(number, genes=2000) for number in range(40)]
    tables = [table(*shifts) for _ in range(4)]
    assert len(format_page("t", {}, tables).encode()) < 3_000_000
