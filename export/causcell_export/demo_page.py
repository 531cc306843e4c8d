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

from causcell.generator import Generator
from causcell.get import effects_df
from causcell.plot import graph, umap_pair, volcano
from causcell.repository.verdicts import Verdict

if TYPE_CHECKING:
    import anndata
    import pandas as pd
    from matplotlib.axes import Axes

PAGE = "index.html"

_STYLE = """
:root{color-scheme:light dark;--text:#1c2430;--quiet:#5b6675;--back:#fff;--card:#f5f7fa;--line:#d8dee6}
@media(prefers-color-scheme:dark){:root{--text:#e8ebef;--quiet:#a3adba;--back:#14181d;--card:#1d232b;--line:#333c47}}
body{font:16px/1.55 system-ui,sans-serif;color:var(--text);background:var(--back);max-width:68rem;margin:2rem auto;
padding:0 1rem}
h1{font-size:1.9rem;margin:0 0 .3rem}h2{margin-top:2.4rem}p,li{max-width:48rem}.quiet{color:var(--quiet)}
figure{margin:1rem 0;padding:1rem;background:#fff;color:#222;border:1px solid var(--line);border-radius:10px}
figure svg{max-width:100%;height:auto;display:block;margin:auto}
figcaption{color:#5b6675;font-size:.9rem;margin-top:.6rem}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(24rem,1fr));gap:1rem}.two figure{margin:0}
.verdicts{padding:0;list-style:none}.verdicts li{background:var(--card);border-left:5px solid #888;border-radius:6px;
padding:.5rem .9rem;margin:.5rem 0}.verdicts .usable{border-color:#009e73}.verdicts .unusable{border-color:#d55e00}
table{border-collapse:collapse;font-size:.92rem}code{background:var(--card);border-radius:4px;padding:.1rem .3rem}
td{padding:.25rem 1rem .25rem 0;text-align:left;border-bottom:1px solid var(--line);font-variant-numeric:tabular-nums}
"""


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
    """Leave out what the model's own verdict calls unusable; what it calls usable comes first."""
    usable = {each.concept: each.usable for each in verdicts if each.combinations == "seen"}
    kept = [each for each in questions if usable.get(each.concept) is not False]
    return sorted(kept, key=lambda each: usable.get(each.concept) is not True)


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
        f'<ul class="verdicts">{"".join(map(_format_verdict, generator.manifest.verdicts))}</ul>',
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


def _format_verdict(verdict: Verdict) -> str:
    style = {True: "usable", False: "unusable", None: ""}[verdict.usable]
    return f'<li class="{style}"><b>{escape(verdict.title)}</b>: {escape(verdict.reason)}</li>'


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
    panels = umap_pair(cells, counterfactual, factual=factual, color=by)
    before, after = (generator.counterfactual(cells, do=each, preset="mean") for each in ({}, do))
    scores = _draw_scores(cells, before, after, question, known, by)
    slug = re.sub(r"\W+", "_", f"{question.concept}_{question.label}").strip("_")
    return [
        f"<h2>{escape(question.name)}</h2>",
        f"<p>What would each cell express, had it been <b>{escape(question.label)}</b>, all else equal? The model's "
        f"verdict on interventions on {escape(question.concept)}: <b>{escape(judged)}</b>.</p>",
        _figure(
            out,
            f"map_{slug}",
            panels[0],
            "One map (UMAP) of real cells, of the same cells as the model makes them, and of their counterfactuals; a "
            "cell keeps the colour of the type that it had.",
        ),
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
            volcano(table, known=known, names=8),
            f"Average effect of {question.label} against {question.baseline} on every gene, in a trial over all "
            f"cells; rings mark the {len(known)} known genes.",
        ),
        "</div>",
        f"<p>{_describe_ranks(table, known)}</p>",
    ]


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
    figure, ax = plt.subplots(figsize=(6, 1.2 + 0.32 * len(names)), layout="constrained")
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


def _figure(out: Path, name: str, ax: Axes, caption: str) -> str:
    """Save a figure as SVG, and return it for the page with its caption."""
    import matplotlib.pyplot as plt

    buffer = io.StringIO()
    figure: Any = ax.figure
    with plt.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", dpi=160, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    text = buffer.getvalue()
    (out / f"{name}.svg").write_text(text)
    svg = text[text.index("<svg") :]
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)  # names of several drawings on one page
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"
