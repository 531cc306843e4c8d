"""The demo's page: what the model calls unusable is not shown, known genes are ranked, one file holds it all."""

import re
from html import escape
from pathlib import Path
from xml.etree import ElementTree

import anndata
import pytest
from paths import MODEL_REPOSITORY

from causcell.evaluation.verdict_cards import shorten_reason
from causcell.generator import Generator
from causcell.repository.verdicts import Verdict
from causcell_export.demo import QUESTIONS, demo_cells
from causcell_export.demo_page import choose_questions, write_page

pytest.importorskip("umap", reason="takes causcell[evaluate]")
pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")


def verdict(concept: str, usable: bool | None) -> Verdict:
    return Verdict(concept=concept, usable=usable, reason="as it is")


def test_what_the_verdict_calls_unusable_is_not_shown() -> None:
    assert choose_questions(QUESTIONS, [verdict("bulk_labels", False), verdict("phase", None)]) == [QUESTIONS[1]]
    assert choose_questions(QUESTIONS, [verdict("bulk_labels", False), verdict("phase", False)]) == []


def test_what_could_not_be_judged_is_shown_where_nothing_is_usable() -> None:
    assert choose_questions(QUESTIONS, [verdict("bulk_labels", None), verdict("phase", True)]) == [QUESTIONS[1]]
    unseen = Verdict(concept="phase", combinations="unseen", usable=False, reason="of other combinations")
    assert choose_questions(QUESTIONS, [unseen]) == [*QUESTIONS]


@pytest.fixture(scope="module")
def cells() -> anndata.AnnData:
    return demo_cells()[::3].copy()


@pytest.mark.slow
def test_the_page_holds_verdicts_figures_and_genes(cells: anndata.AnnData, tmp_path: Path) -> None:
    with Generator.open(MODEL_REPOSITORY, threads=1) as generator:
        verdicts = generator.manifest.verdicts
        page = write_page(tmp_path, cells, generator, QUESTIONS[:1], {"training": "87 s"}, by="bulk_labels")
    text = page.read_text()
    assert page == tmp_path / "index.html"
    shown = [shorten_reason(each) for each in verdicts]
    assert all(escape(reason) in text for reason in shown)
    assert text.index(escape(shown[0])) < text.index('<svg class="drawn"') < text.index("do(bulk_labels = CD19+ B)")
    assert re.search(r"from most raised to most lowered: [\w-]+ 1, ", text)  # a known gene of B cells comes first
    assert "interventions on bulk_labels: <b>usable</b>" in text
    assert not re.search(r'(src|href)="https?:', text)  # nothing from elsewhere
    assert not re.search(r"(fill|stroke): #(0{6}|f{6})", text)  # black and white are the page's own
    assert text.count("<svg") - text.count('class="scale"') == 4
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        assert "<title>" in svg
    figures = sorted(path.name for path in tmp_path.glob("*.svg"))
    names = ["genes_bulk_labels_CD19_B", "graph", "map_bulk_labels_CD19_B", "score_bulk_labels_CD19_B"]
    assert figures == [f"{name}.svg" for name in names]
    for name in figures:
        ElementTree.parse(tmp_path / name)
    ids = re.findall(r'id="([^"]+)"', text)
    assert len(ids) == len(set(ids))  # several drawings on one page
