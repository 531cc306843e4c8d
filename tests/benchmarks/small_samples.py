"""A small, noisy sample against the whole: which genes a model trained on the sample alone recovers, and which falsely.

    python tests/benchmarks/small_samples.py kang kang.h5ad --repeats 10 --workers 10 --out kang
    python tests/benchmarks/small_samples.py glioblastoma gbm.h5ad --repeats 10 --workers 10 --out glioblastoma
    python tests/benchmarks/small_samples.py perturbation perturb.h5ad --repeats 10 --workers 10 --out perturbation

Each repeat draws a sample at random (two donors of eight, two patients of five, a fifth of the cells), trains on it,
and asks the model's simulated trial which genes change. The truth is what the cells outside the sample show (Wilcoxon,
Benjamini-Hochberg 5 %): no cell is in both. Beside the trial: the same test on the sample's own means, Wilcoxon on the
sample, as many genes as the trial calls by the size of the sample's shift, and one half of the other cells for the
other half (ceiling). Perturbations are pooled. Writes ``result.json`` (every repeat), ``table.md``, ``figure.png``.
"""

from __future__ import annotations

import argparse
import itertools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import anndata
import numpy as np
from jobs import Job, add_job_options, run_jobs, write_result
from matplotlib.figure import Figure
from trained_models import most_varying_genes, trained

from causcell._internal.significance import false_discovery_rate, two_sided_p
from causcell.effects import simulated_trial
from causcell.errors import CausCellWarning
from causcell.evaluation.known_truth import log_normalise
from causcell.evaluation.metrics import differential_genes, effect_agreement, mean_shift, ranking_score
from causcell_training.config import load_config, parse_overrides

FDR = 0.05
MIN_EFFECT = 0.1
MIN_CELLS = 8
TRIAL, SAME_TEST, WILCOXON, STRONGEST, HALF = (
    "model's trial on the sample",
    "the trial's test on the sample's means",
    "Wilcoxon on the sample",
    "as many, by the sample's shift",
    "half of the other cells for the other half",
)
COUNTS = ("differential", "called", "right")
SQUARES = ("square of the error", "square of the shift")
SMALL: dict[str, Any] = {"model.width": 64, "model.encoder_width": 128, "optimisation.accelerator": "cpu"}


@dataclass(frozen=True)
class Study:
    """Cells, the contrast in them, and how a sample is drawn.

    Attributes
    ----------
    concepts, edges
        What the model is told.
    concept, source, target
        The contrast; without a target it is every other label of the concept against the source.
    sampled, take
        Column of ``obs`` of which so many labels are the sample, or (without a column) the share of the cells.
    only
        Column and label of the cells that the study is of.
    panel
        Number of genes of highest variance in the sample; 0 for all of the file.
    settings
        Further settings of training.
    """

    concepts: tuple[str, ...]
    concept: str
    source: str
    target: str | None
    take: float
    edges: tuple[str, ...] = ()
    sampled: str | None = None
    only: tuple[str, str] | None = None
    panel: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def read(self, path: str) -> anndata.AnnData:
        """Cells of the study."""
        cells = anndata.read_h5ad(path)
        return cells if self.only is None else cells[cells.obs[self.only[0]] == self.only[1]].copy()

    def normalise(self, cells: anndata.AnnData) -> np.ndarray:
        """Expression on the log scale, float64 [n x G]."""
        if self.settings.get("expression") == "log1p":
            return np.asarray(cells.X.toarray(), dtype=np.float64)
        return log_normalise(cells)


STUDIES = {
    "kang": Study(
        ("stim", "donor", "cell_type"), "stim", "ctrl", "stim", 2, ("donor:cell_type",), "donor", panel=700,
    ),
    "glioblastoma": Study(
        ("condition", "patient"), "condition", "ctrl", "panobinostat", 2, sampled="patient",
        settings={"genes": "all", "optimisation.epochs": 100},
    ),
    "perturbation": Study(
        ("perturbation",), "perturbation", "control", None, 0.2, only=("dataset", "norman19"),
        settings={"genes": "all", "expression": "log1p"},
    ),
}  # fmt: skip


def main() -> None:
    """Draw, train and compare every sample, write table and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=list(STUDIES))
    parser.add_argument("data")
    parser.add_argument("--repeats", type=int, default=10)
    add_job_options(parser, seeds=False)
    arguments = parser.parse_args()
    common = {"study": arguments.study, "data": arguments.data, "settings": parse_overrides(arguments.settings)}
    jobs = {f"sample {i}": common | {"repeat": i} for i in range(arguments.repeats)}
    found = list(run_jobs(measure_sample, jobs, arguments).values())
    summary = [summarise(each["contrasts"]) for each in found]
    table = format_table(summary)
    write_result(arguments.out, {"study": arguments.study, "samples": found, "by sample": summary})
    (arguments.out / "table.md").write_text(table)
    draw(summary).savefig(arguments.out / "figure.png", dpi=90)
    print(table)


def choose_sample(study: Study, cells: anndata.AnnData, repeat: int) -> tuple[str, np.ndarray]:
    """What the sample of that number is, in words, and its cells, bool [n]; no two numbers give the same labels."""
    if study.sampled is None:
        chosen = np.random.default_rng((repeat, 11)).permutation(cells.n_obs) < study.take * cells.n_obs
        return f"{chosen.sum()} cells at random", chosen
    groups = list(itertools.combinations(sorted(cells.obs[study.sampled].unique()), int(study.take)))
    if repeat >= len(groups):
        raise SystemExit(f"there are {len(groups)} ways to take {int(study.take)} labels of {study.sampled}")
    labels = groups[np.random.default_rng(11).permutation(len(groups))[repeat]]
    return ", ".join(labels), cells.obs[study.sampled].isin(labels).to_numpy()


def measure_sample(job: Job) -> dict[str, Any]:
    """Train on a sample, and compare what it shows with what the other cells show, by contrast."""
    study = STUDIES[job["study"]]
    cells = study.read(job["data"])
    name, inside = choose_sample(study, cells, job["repeat"])
    few = cells[inside].copy()
    panel = most_varying_genes(few, study.panel) if study.panel else []
    overrides = {**SMALL, "concept": study.concepts, "edge": study.edges, **study.settings, **job["settings"]}
    config = load_config(overrides=overrides | {"seed": job["repeat"]})
    with trained(few, config, panel=panel) as generator, warnings.catch_warnings():
        warnings.simplefilter("ignore", CausCellWarning)  # of combinations that no training cell carries: meant
        trial = simulated_trial(
            generator, few, study.concept, baseline=study.source, draws=4, fdr=FDR, min_effect=MIN_EFFECT
        )
    x = study.normalise(cells)[:, [cells.var_names.get_loc(gene) for gene in trial.var_names]]
    labels = cells.obs[study.concept].astype(str).to_numpy()
    targets = [study.target] if study.target else sorted(set(trial.obs_names) - {study.source})
    contrasts = {}
    for target in targets:
        parts = [[x[rows & (labels == label)] for label in (study.source, target)] for rows in (inside, ~inside)]
        if min(len(part) for both in parts for part in both) >= MIN_CELLS:
            row = trial[target]
            effect = np.asarray(row.layers["effect"][0], dtype=np.float64)
            called = np.asarray(row.layers["changed"][0])
            contrasts[target] = compare(effect, called, *parts, seed=job["repeat"])
    return {"sample": name, "cells": int(inside.sum()), "other cells": int((~inside).sum()), "contrasts": contrasts}


def compare(
    effect: np.ndarray, called: np.ndarray, small: list[np.ndarray], others: list[np.ndarray], *, seed: int
) -> dict[str, Any]:
    """Measures of the trial, of tests on the sample and of the ceiling, by estimate; source and target cells each."""
    (truth, variance), differ = mean_shift(*others), differential_genes(*others, fdr=FDR)
    shift, noise = mean_shift(*small)
    degrees = min(len(part) for part in small) - 1  # a conservative choice of Welch's
    same = false_discovery_rate(two_sided_p(shift, np.sqrt(noise), degrees, MIN_EFFECT)) < FDR
    strongest = np.zeros(len(shift), dtype=bool)
    strongest[np.argsort(-np.abs(shift), kind="stable")[: int(called.sum())]] = True
    found = {
        TRIAL: judge(effect, called, truth, variance, differ),
        SAME_TEST: judge(shift, same, truth, variance, differ),
        WILCOXON: judge(shift, differential_genes(*small, fdr=FDR), truth, variance, differ),
        STRONGEST: judge(shift, strongest, truth, variance, differ),
    }
    rng = np.random.default_rng((seed, 12))
    halves = [np.array_split(rng.permutation(len(part)), 2) for part in others]
    one, other = ([part[half[i]] for part, half in zip(others, halves, strict=True)] for i in (0, 1))
    found[HALF] = judge(
        mean_shift(*one)[0], differential_genes(*one, fdr=FDR), *mean_shift(*other), differential_genes(*other, fdr=FDR)
    )
    counts = {"source and target cells of the sample": [len(part) for part in small], "differential": int(differ.sum())}
    return counts | {"estimates": found}


def judge(
    shift: np.ndarray, called: np.ndarray, truth: np.ndarray, variance: np.ndarray, differ: np.ndarray
) -> dict[str, float | None]:
    """Genes called against those that differ, and the shift against the true one, [G] each; its noise is taken off."""
    agreement = effect_agreement(shift, truth, variance=variance)
    right = called & differ & (np.sign(shift) == np.sign(truth))
    return {
        "differential": int(differ.sum()),
        "called": int(called.sum()),
        "right": int(right.sum()),
        "square of the error": float((shift - truth) @ (shift - truth) - variance.sum()),
        "square of the shift": float(truth @ truth - variance.sum()),
        "AUC": ranking_score(np.abs(shift), differ),
        "top 50 shared": agreement["top_overlap"],
        "Pearson": agreement["pcc"],
        "size": agreement["size"],
        "calibration": agreement["calibration"],
    }


def summarise(contrasts: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """Measures of a sample by estimate: genes of all contrasts together, and means over the contrasts of the rest."""
    summary: dict[str, dict[str, float | None]] = {}
    for estimate in next(iter(contrasts.values()))["estimates"]:
        each = [found["estimates"][estimate] for found in contrasts.values()]
        differential, called, right, wrong, square = (sum(one[m] for one in each) for m in COUNTS + SQUARES)
        values = {m: [one[m] for one in each if one[m] is not None] for m in each[0] if m not in COUNTS + SQUARES}
        summary[estimate] = {
            "differential": differential,
            "called": called,
            "recovered": right / differential if differential else None,
            "share false": 1 - right / called if called else None,
            "error": wrong / square if square > 0 else None,
            **{measure: float(np.mean(v)) if v else None for measure, v in values.items()},
        }
    return summary


def format_table(summary: Sequence[Mapping[str, Mapping[str, float | None]]]) -> str:
    """Markdown: mean and spread over samples, a row an estimate; in how many samples the trial is ahead of Wilcoxon."""
    measures = list(summary[0][TRIAL])
    lines = ["| | " + " | ".join(measures) + " |", "|---" * (len(measures) + 1) + "|"]
    for estimate in summary[0]:
        texts = []
        for measure in measures:
            values = [v for each in summary if (v := each[estimate][measure]) is not None]
            digits = 0 if measure in COUNTS else 2
            texts.append(f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}" if values else "")
        lines.append(f"| {estimate} | " + " | ".join(texts) + " |")
    lines.append("")
    for measure, sign in (("recovered", 1), ("share false", -1), ("error", -1), ("AUC", 1), ("Pearson", 1)):
        for other in (SAME_TEST, WILCOXON, STRONGEST) if measure in ("recovered", "share false") else (SAME_TEST,):
            pairs = [(each[TRIAL][measure], each[other][measure]) for each in summary]
            told = [sign * (one - two) for one, two in pairs if one is not None and two is not None]
            better = sum(difference > 0 for difference in told)
            lines.append(f"- {measure}: the trial is better than *{other}* in {better} of {len(told)} samples")
    return "\n".join(lines) + "\n"


def draw(summary: Sequence[Mapping[str, Mapping[str, float | None]]]) -> Figure:
    """Genes recovered against calls that are false, and agreement of the shifts, a point a sample."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    calls, shifts = figure.subplots(1, 2, width_ratios=[3, 2])
    for i, estimate in enumerate(summary[0]):
        points = [(each[estimate]["share false"], each[estimate]["recovered"]) for each in summary]
        points = [point for point in points if None not in point]
        if points:
            calls.scatter(*zip(*points, strict=True), s=9, color=f"C{i}", alpha=0.5)
            calls.scatter(*np.mean(points, axis=0), s=70, marker="X", color=f"C{i}", label=estimate)
    calls.set(xlabel="share of the called genes that are false", ylabel="share of differential genes recovered")
    pair = (TRIAL, WILCOXON)
    for each in summary:
        shifts.plot([0, 1], [each[name]["Pearson"] for name in pair], color="0.6", marker="o", markersize=3)
    shifts.set_xticks([0, 1], ["trial", "sample's means"])
    shifts.set(xlim=(-0.3, 1.3), ylabel="Pearson with the other cells' shift")
    figure.legend(*calls.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7, frameon=False)
    return figure


if __name__ == "__main__":
    main()
