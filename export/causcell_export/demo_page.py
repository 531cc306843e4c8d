"""The page that the demo ends with: verdicts, real and counterfactual cells, scores before and after, genes."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell.evaluation.cell_maps import CellMap, MappedCells
from causcell.evaluation.map_panels import draw_map
from causcell.evaluation.page_style import STYLE, embed_style
from causcell.evaluation.verdict_cards import format_verdict
from causcell.generator import Generator
from causcell.get import effects_df
from causcell.plot import graph, volcano
from causcell.plot.maps import place_on_umap
from causcell.plot.shared import stored_colours
from causcell.repository.verdicts import Verdict

if TYPE_CHECKING:
    import anndata
    import pandas as pd
    from matplotlib.axes import Axes

PAGE = "index.html"

_STYLE = STYLE + (
    "body{max-width:66rem}.quiet{color:var(--quiet)}figure{margin:1rem 0;padding:1rem;border:1px solid var(--line);"
    "border-radius:10px}figure svg{height:auto;display:block;margin:auto}.drawn{fill:currentColor;max-width:100%}"
    ".two{display:grid;grid-template-columns:repeat(auto-fit,minmax(25rem,1fr));gap:1rem}.two figure{margin:0}"
    "code{background:var(--card);border-radius:4px;padding:.1rem .3rem}table{font-size:.92rem}td{text-align:left}"
)
"""Style of reports, and what the demo adds."""

_FOLLOWING = {"#0072b2": "var(--down)", "#d55e00": "var(--up)", "#009e73": "var(--good)"}
"""Colours of figures that the page has for light and for dark."""


@dataclass(frozen=True)
class Question:
    """An intervention that the demo may show.

    Attributes
    ----------
    concept, label, baseline
        What is set to what, and the label that a trial compares with.
    known
        Genes that the literature names for the label.
    title
        What they are.
    """

    concept: str
    label: str
    baseline: str
    known: Collection[str]
    title: str

    @property
    def name(self) -> str:
        """The intervention."""
        return f"do({self.concept} = {self.label})"


def choose_questions(questions: Collection[Question], verdicts: Collection[Verdict]) -> list[Question]:
    """Choose what the model's own verdict calls usable; if it calls nothing so, what it could not judge."""
    usable = {each.concept: each.usable for each in verdicts if each.combinations == "seen"}
    for word in (True, None):
        kept = [each for each in questions if usable.get(each.concept) is word]
        if kept:
            return kept
    return []


def write_page(
    out: Path,
    cells: anndata.AnnData,
    generator: Generator,
    questions: Collection[Question],
    facts: Mapping[str, str],
    *,
    by: str,
) -> Path:
    """Write the page, with its figures as SVG within, and each figure as a file of its own.

    Parameters
    ----------
    out
        Folder of the demo.
    cells
        The real cells, log1p values.
    generator
        The exported model.
    questions
        Interventions to show, as `choose_questions` left them.
    facts
        What was done and how long it took, by name.
    by
        Column of ``obs`` with the cell types.

    Returns
    -------
    The page.
    """
    verdicts = {each.concept: each for each in generator.manifest.verdicts if each.combinations == "seen"}
    parts = [
        "<h1>CausCell: cells as they would have been</h1>",
        f'<p class="quiet">A model of {cells.n_obs:,} real blood cells (PBMC, Zheng et al. 2017), trained, exported, '
        "verified and asked by <code>causcell demo</code>, on this machine. Nothing here is from another run.</p>",
        "<h2>What the model says of itself</h2>",
        f'<ul class="verdicts">{"".join(map(format_verdict, generator.manifest.verdicts))}</ul>',
        _figure(
            out,
            "graph",
            graph(generator),
            "Concepts and edges; below, how often labels of held-out cells are read right.",
        ),
    ]
    factual = generator.reconstruct(cells)
    for question in questions:
        parts += _answer(out, cells, factual, generator, question, verdicts.get(question.concept), by)
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in facts.items())
    parts += [f"<h2>What was done</h2><table>{rows}</table>"]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>CausCell demo</title>'
    head += f"<style>{_STYLE}</style>"
    page = out / PAGE
    page.write_text(f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n')
    return page


def _answer(
    out: Path,
    cells: anndata.AnnData,
    factual: anndata.AnnData,
    generator: Generator,
    question: Question,
    verdict: Verdict | None,
    by: str,
) -> list[str]:
    """Show one intervention: where cells go, the score of the known genes by type, the genes that change."""
    do = {question.concept: question.label}
    counterfactual = generator.counterfactual(cells, do=do)
    trial = generator.trial(cells, question.concept, baseline=question.baseline, draws=1)
    table = effects_df(trial, question.label)
    known = [gene for gene in question.known if gene in set(table["names"])]
    judged = "not judged: look, and don't conclude" if verdict is None or verdict.usable is None else "usable"
    before, after = (generator.counterfactual(cells, do=each, preset="mean") for each in ({}, do))
    scores = _draw_scores(cells, before, after, question, known, by)
    slug = re.sub(r"\W+", "_", f"{question.concept}_{question.label}").strip("_")
    return [
        f"<h2>{escape(question.name)}</h2>",
        f"<p>What would each cell express, had it been <b>{escape(question.label)}</b>, all else equal? The model's "
        f"verdict on interventions on {escape(question.concept)}: <b>{escape(judged)}</b>.</p>",
        _map_figure(out, f"map_{slug}", map_cells(cells, factual, counterfactual, question, by)),
        '<div class="two">',
        _figure(
            out,
            f"score_{slug}",
            scores,
            f"Mean estimate of {len(known)} {question.title}, by the type that a cell had. Higher after the "
            "intervention is what the literature expects.",
        ),
        _figure(
            out,
            f"genes_{slug}",
            volcano(table, known=known, names=8, ax=_axes()),
            f"Average effect of {question.label} against {question.baseline} on every gene, in a trial over all "
            f"cells; rings mark the {len(known)} known genes.",
        ),
        "</div>",
        f"<p>{_describe_ranks(table, known)}</p>",
    ]


def _axes() -> Axes:
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(5.2, 4.4), layout="constrained")[1]


def _describe_ranks(table: pd.DataFrame, known: list[str]) -> str:
    ordered = table.sort_values("effect", ascending=False)["names"].tolist()
    ranks = sorted((ordered.index(gene) + 1, gene) for gene in known)
    listed = ", ".join(f"{escape(gene)} {rank}" for rank, gene in ranks[:12])
    return f"Known genes by rank among {len(ordered)}, from most raised to most lowered: {listed}."


def _draw_scores(
    cells: anndata.AnnData,
    factual: anndata.AnnData,
    counterfactual: anndata.AnnData,
    question: Question,
    known: list[str],
    by: str,
) -> Axes:
    """Draw the mean score of each cell type before and after, beside that of the real cells that carry the label."""
    import matplotlib.pyplot as plt

    before, after = (_score(each, known) for each in (factual, counterfactual))
    types = factual.obs[by].astype(str).to_numpy()
    names = sorted(set(types), key=lambda name: before[types == name].mean())
    figure, ax = plt.subplots(figsize=(5.4, 1.1 + 0.3 * len(names)), layout="constrained")
    del figure
    for place, name in enumerate(names):
        start, end = (each[types == name].mean() for each in (before, after))
        ax.plot([start, end], [place, place], color="0.8", linewidth=2, zorder=1)
        ax.scatter(start, place, color="#0072B2", s=34, zorder=2, label="as it is" if not place else None)
        ax.scatter(end, place, color="#D55E00", s=34, zorder=2, label=question.name if not place else None)
    carries = (cells.obs[question.concept].astype(str) == question.label).to_numpy()
    real = _score(cells[carries], known).mean()
    ax.axvline(real, color="0.35", linestyle="--", linewidth=1, label=f"real cells with {question.label}")
    ax.set_yticks(range(len(names)), [f"{name} (n={(types == name).sum()})" for name in names], fontsize=8)
    ax.set_xlabel(f"mean of {len(known)} {question.title}, log scale")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return ax


def _score(cells: anndata.AnnData, genes: list[str]) -> np.ndarray:
    values = cells[:, genes].X
    return np.asarray(values.mean(axis=1), dtype=np.float64).ravel()


def map_cells(
    cells: anndata.AnnData,
    factual: anndata.AnnData,
    counterfactual: anndata.AnnData,
    question: Question,
    by: str,
) -> CellMap:
    """Map the cells that do not carry a question's label, factual and counterfactual, and those that carry it.

    Parameters
    ----------
    cells, factual, counterfactual
        Real cells and what the model makes of them, in the same order.
    question
        The intervention.
    by
        Column of ``obs`` that colours the cells.
    """
    carries = (cells.obs[question.concept].astype(str) == question.label).to_numpy()
    real = cells[:, counterfactual.var_names].X.toarray()
    values = [real, *(each.X[~carries] for each in (factual, counterfactual))]
    values = [each.toarray() if hasattr(each, "toarray") else np.asarray(each) for each in values]
    places = place_on_umap(values, 0)
    labels = cells.obs[by].cat
    codes = labels.codes.to_numpy()
    stored = stored_colours(cells, by)
    return CellMap(
        question.concept,
        "other cells",
        question.label,
        "UMAP",
        "",
        by,
        tuple(map(str, labels.categories)),
        tuple(stored.get(str(label), "") for label in labels.categories),
        MappedCells(places[0][~carries], codes[~carries]),
        MappedCells(places[0][carries], codes[carries]),
        MappedCells(places[1], codes[~carries]),
        MappedCells(places[2], codes[~carries]),
        "sample",
    )


def _map_figure(out: Path, name: str, drawn: CellMap) -> str:
    svg = draw_map(f"Cells under do({drawn.concept} = {drawn.target})", drawn)
    (out / f"{name}.svg").write_text(embed_style(svg))
    caption = (
        f"One plane (UMAP) for all panels. Counterfactual cells should lie where real {drawn.target} cells do, in "
        "grey; each keeps the colour of the type that it had."
    )
    return f'<figure><div class="scroll">{svg}</div><figcaption>{escape(caption)}</figcaption></figure>'


def _figure(out: Path, name: str, ax: Axes, caption: str) -> str:
    """Save a figure as SVG, and return it for the page, in the page's colours, with its caption."""
    import matplotlib.pyplot as plt

    buffer = io.StringIO()
    figure: Any = ax.figure
    with plt.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", dpi=160, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    text = buffer.getvalue()
    (out / f"{name}.svg").write_text(text)
    svg = follow_page(text[text.index("<svg") :], caption)
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)  # names of several drawings on one page
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def follow_page(svg: str, told: str) -> str:
    """Give a figure of matplotlib the colours of the page around it, light or dark, and say what it shows.

    Parameters
    ----------
    svg
        The drawing: black on white, with greys between them.
    told
        What it shows, for those who hear it.

    Examples
    --------
    >>> follow_page('<svg><path style="fill: #ffffff; stroke: #000000"/></svg>', "A line.")
    '<svg class="drawn" role="img"><title>A line.</title><path style="fill: var(--back); stroke: var(--text)"/></svg>'
    """

    def follow(found: re.Match[str]) -> str:
        what, colour = found[1], found[2].lower()
        red, green, blue = colour[1:3], colour[3:5], colour[5:7]
        if not red == green == blue:
            return what + _FOLLOWING.get(colour, colour)
        share = round(100 * (255 - int(red, 16)) / 255)
        ends = {0: "var(--back)", 100: "var(--text)"}
        return what + ends.get(share, f"color-mix(in srgb,var(--text) {share}%,var(--back))")

    svg = re.sub(r"((?:fill|stroke): )(#[0-9a-fA-F]{6})\b", follow, svg)
    return re.sub(r"<svg([^>]*)>", rf'<svg class="drawn" role="img"\1><title>{escape(told)}</title>', svg, count=1)
