"""A concept's signature follows the graph: scores of gene sets under interventions, with CausCell_IND beside.

    python tests/benchmarks/signatures.py simulator --seeds 3 --workers 6 --out simulator
    python tests/benchmarks/signatures.py kang kang.h5ad --split kang.split.csv --seeds 3 --workers 6 --out kang

``simulator``: the genes that the state alone moves, in resting control cells under do(treatment = treated), the state
free to follow or held resting, by cell type; in truth types A and B are activated and type C is not.
``kang``: interferon-stimulated genes in held-out cells under do(stim), by cell type and by what the cells really are,
and under do(donor), which is not to move them; and genes of monocytes under do(donor = ...), whose share of monocytes
the edge donor:cell_type carries. Scores are means over a set's genes of log expression (each in its direction), of mean
estimates over draws. Tests: Wilcoxon's signed-rank test over cells, and over donors' means where there are donors, with
the number of pairs and the mean difference over its deviation (d). Writes ``result.json`` and ``figure.png``.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jobs import Job, add_job_options, run_jobs, write_result
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import mannwhitneyu, wilcoxon
from trained_models import KANG_SETTINGS, mean_estimates, read_kang, simulator_config, trained

from causcell.evaluation.known_truth import find_state_genes, log_normalise
from causcell.evaluation.simulator import SCHEMA, World
from causcell_training.config import load_config, parse_overrides

INTERFERON = (
    "ISG15", "ISG20", "IFIT1", "IFIT2", "IFIT3", "OAS3", "IFI6", "IFITM1", "IFITM3", "IRF7", "RSAD2", "HERC5", "DDX58",
    "EIF2AK2", "CMPK2", "TRIM22", "CXCL10",
)  # fmt: skip
"""Interferon-stimulated genes that the file has, chosen before any model."""
DRAWS = 4
MONOCYTE_GENES = 20
MODELS = {"CausCell": {}, "CausCell_IND": {"model.graph": "independent"}}
Scores = dict[str, Any]


def main() -> None:
    """Train both models with every seed, score, compare, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("where", choices=["simulator", "kang"])
    parser.add_argument("data", nargs="?", help="kang: the cells")
    parser.add_argument("--split", help="kang: the split")
    parser.add_argument("--cells", type=int, default=1000, help="simulator: training cells")
    add_job_options(parser)
    arguments = parser.parse_args()
    common: Job = {"settings": parse_overrides(arguments.settings)}
    if arguments.where == "kang" and not (arguments.data and arguments.split):
        parser.error("kang takes the cells and --split")
    extra = {"data": arguments.data, "split": arguments.split}
    common |= {"cells": arguments.cells} if arguments.where == "simulator" else extra
    jobs = {
        f"{model}, seed {seed}": common | {"model": model, "seed": seed}
        for seed in range(arguments.seeds)
        for model in MODELS
    }
    score, compare, draw = (
        (score_simulator, compare_simulator, draw_simulator)
        if arguments.where == "simulator"
        else (score_kang, compare_kang, draw_kang)
    )
    found = run_jobs(score, jobs, arguments)
    tests = {name: compare(scores) for name, scores in found.items()}
    merged = over_seeds(tests, jobs)
    write_result(arguments.out, {"by seed": tests, "over seeds": merged})
    (arguments.out / "table.md").write_text(format_table(merged))
    draw({model: found[f"{model}, seed 0"] for model in MODELS}).savefig(arguments.out / "figure.png", dpi=90)
    print(format_table(merged))


def paired_test(before: np.ndarray, after: np.ndarray) -> dict[str, float | int | None]:
    """Mean difference of pairs [n], the mean over its deviation, and the p-value of Wilcoxon's signed-rank test."""
    difference = np.asarray(after) - np.asarray(before)
    told = len(difference) > 1 and bool(np.ptp(difference) > 0)
    return {
        "n": len(difference),
        "difference": float(difference.mean()),
        "d": float(difference.mean() / difference.std(ddof=1)) if told else None,
        "p": float(wilcoxon(difference).pvalue) if told else None,
    }


def over_seeds(tests: Mapping[str, Any], jobs: Mapping[str, Job]) -> dict[str, dict[str, dict[str, Any]]]:
    """Summarise every comparison: the differences by seed, the smallest n, the range of d, the largest p; by model."""
    merged: dict[str, dict[str, dict[str, Any]]] = {}
    for model in MODELS:
        each = [tests[name] for name, job in jobs.items() if job["model"] == model and name in tests]
        rows = {}
        for comparison in each[0]:
            found = [one[comparison] for one in each if comparison in one]
            effects = [one["d"] for one in found if one["d"] is not None]
            rows[comparison] = {
                "difference": [round(one["difference"], 4) for one in found],
                "n": min(one["n"] for one in found),
                "d": [round(d, 2) for d in effects],
                "largest p": max((one["p"] for one in found if one["p"] is not None), default=None),
            }
        merged[model] = rows
    return merged


def format_table(merged: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Markdown: a row a comparison; of each model the mean difference over seeds, d, and the largest p."""
    models = list(merged)
    lines = ["| | n | " + " | ".join(f"{model}: difference | d | largest p" for model in models) + " |"]
    lines.append("|---" * (2 + 3 * len(models)) + "|")
    for comparison, row in merged[models[0]].items():
        texts = []
        for model in models:
            found = merged[model][comparison]
            texts.append(f"{np.mean(found['difference']):.3f} ± {np.std(found['difference']):.3f}")
            texts.append(f"{np.mean(found['d']):.2f}" if found["d"] else "")
            texts.append("" if found["largest p"] is None else f"{found['largest p']:.1g}")
        lines.append(f"| {comparison} | {row['n']} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


# -- simulator ---------------------------------------------------------------------------------------------------------

AS_IT_IS, FREE, HELD = "as it is", "do(treated)", "do(treated), state held resting"


def score_simulator(job: Job) -> Scores:
    """Scores of the state's genes in resting control cells, of the model and in truth, by arm; their cell types."""
    seed = job["seed"]
    world = World.make(seed=seed)
    noise = world.noise(2000, seed=seed + 200)
    before, signs = world.labels(noise), find_state_genes(world)
    chosen = (before[:, 0] == 0) & (before[:, 3] == SCHEMA["state"].code("resting"))
    cells = world.cells(noise)[chosen]
    cells.obs_names = [f"new_{name}" for name in cells.obs_names]
    treated = {"treatment": "treated"}
    arms: dict[str, dict[str, str] | None] = {AS_IT_IS: None, FREE: treated, HELD: treated | {"state": "resting"}}
    config = simulator_config(job["cells"], MODELS[job["model"]] | job["settings"] | {"seed": seed})

    def score(x: np.ndarray) -> list[float]:
        return [round(float(value), 4) for value in x @ signs / np.abs(signs).sum()]

    with trained(world.cells(world.noise(job["cells"], seed=seed + 100)), config) as generator:
        model = {arm: score(mean_estimates(generator, cells, do, draws=DRAWS)) for arm, do in arms.items()}
    truth = {arm: score(world.expected(noise, do)[chosen]) for arm, do in arms.items()}
    return {
        "genes": int(np.abs(signs).sum()),
        "cell_type": cells.obs["cell_type"].astype(str).tolist(),
        "model": model,
        "truth": truth,
    }


def compare_simulator(scores: Scores) -> dict[str, dict[str, float | int | None]]:
    """Compare each arm with the cells as they are, by cell type, of model and truth."""
    types = np.array(scores["cell_type"])
    return {
        f"{whose}, type {name}, {arm}": paired_test(
            np.array(scores[whose][AS_IT_IS])[types == name], np.array(scores[whose][arm])[types == name]
        )
        for whose in ("model", "truth")
        for arm in (FREE, HELD)
        for name in sorted(set(scores["cell_type"]))
    }


def draw_simulator(found: Mapping[str, Scores]) -> Figure:
    """Scores by cell type and arm: the truth, and each model."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    panels = figure.subplots(1, 1 + len(found), sharey=True)
    first = next(iter(found.values()))
    for ax, (title, scores, whose) in zip(
        panels, [("truth", first, "truth"), *((name, each, "model") for name, each in found.items())], strict=True
    ):
        draw_boxes(ax, scores[whose], np.array(scores["cell_type"]))
        ax.set(title=title, xlabel="cell type of resting control cells")
    panels[0].set_ylabel(f"score of the state's {first['genes']} genes")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8, frameon=False
    )
    return figure


def draw_boxes(ax: Axes, arms: Mapping[str, Any], strata: np.ndarray | Mapping[str, np.ndarray]) -> None:
    """Boxes of every arm's scores [n] by stratum; strata of all arms, or of each."""
    names: list[str] = []
    for i, (arm, scores) in enumerate(arms.items()):
        labels = strata[arm] if isinstance(strata, Mapping) else strata
        names = names or sorted(set(labels))
        ax.boxplot(
            [np.array(scores)[labels == name] for name in names],
            positions=np.arange(len(names)) + 0.8 * (i + 0.5) / len(arms) - 0.4,
            widths=0.7 / len(arms),
            showfliers=False,
            patch_artist=True,
            boxprops={"facecolor": f"C{i}", "alpha": 0.6},
            medianprops={"color": "black"},
        )
        ax.bar([0], [0], color=f"C{i}", alpha=0.6, label=arm)
    ax.set_xticks(range(len(names)), names, fontsize=7)


# -- Kang --------------------------------------------------------------------------------------------------------------

REAL_CTRL, REAL_STIM = "real ctrl cells", "real stim cells"
CTRL, CTRL_DO, STIM, STIM_DO = "ctrl cells", "ctrl cells, do(stim)", "stim cells", "stim cells, do(ctrl)"
CTRL_DONOR = "ctrl cells, do(another donor)"


def score_kang(job: Job) -> Scores:
    """Scores of held-out cells: interferon genes by arm, and genes of monocytes under do(donor) by donor."""
    cells, tested, panel = read_kang(job["data"], job["split"], INTERFERON)
    x = log_normalise(cells)[:, [cells.var_names.get_loc(name) for name in panel]]
    chosen = np.isin(panel, INTERFERON)
    types = cells.obs["cell_type"].astype(str).to_numpy()
    learned = [x[~tested & (types == "Monocytes") == is_one] for is_one in (True, False)]
    monocyte = np.zeros(len(panel), dtype=bool)
    monocyte[np.argsort(-(learned[0].mean(axis=0) - learned[1].mean(axis=0)))[:MONOCYTE_GENES]] = True
    monocyte &= ~chosen
    test = cells[tested].copy()
    parts = {name: test[(test.obs["stim"] == name).to_numpy()].copy() for name in ("ctrl", "stim")}
    donor = str(cells.obs["donor"][~tested].value_counts().index[0])
    overrides = {**KANG_SETTINGS, **MODELS[job["model"]], **job["settings"], "seed": job["seed"]}
    with trained(cells, load_config(overrides=overrides), job["split"], panel) as generator:
        interventions: dict[str, tuple[str, dict[str, str] | None]] = {
            CTRL: ("ctrl", None), CTRL_DO: ("ctrl", {"stim": "stim"}), CTRL_DONOR: ("ctrl", {"donor": donor}),
            STIM: ("stim", None), STIM_DO: ("stim", {"stim": "ctrl"}),
        }  # fmt: skip
        arms = {
            arm: (parts[part].obs, mean_estimates(generator, parts[part], do, draws=DRAWS))
            for arm, (part, do) in interventions.items()
        }
        donors = sorted(test.obs["donor"].astype(str).unique())
        by_donor = {
            name: mean_estimates(generator, test, {"donor": name}, draws=DRAWS)[:, monocyte].mean() for name in donors
        }
    for arm, part in ((REAL_CTRL, "ctrl"), (REAL_STIM, "stim")):
        arms[arm] = parts[part].obs, x[tested & (cells.obs["stim"] == part).to_numpy()]
    of_donor = test.obs["donor"].astype(str).to_numpy()
    return {
        "interferon genes": [name for name in panel if name in INTERFERON],
        "monocyte genes": [name for name, one in zip(panel, monocyte, strict=True) if one],
        "donor set": donor,
        "arms": {
            arm: [round(float(v), 4) for v in values[:, chosen].mean(axis=1)] for arm, (_, values) in arms.items()
        },
        "cell_type": {arm: obs["cell_type"].astype(str).tolist() for arm, (obs, _) in arms.items()},
        "donor": {arm: obs["donor"].astype(str).tolist() for arm, (obs, _) in arms.items()},
        "monocyte score by donor": {
            name: {"real": float(x[tested][of_donor == name][:, monocyte].mean()), "do": float(by_donor[name])}
            for name in donors
        },
    }


def compare_kang(scores: Scores) -> dict[str, dict[str, float | int | None]]:
    """Compare arms over cells by cell type, and over donors; and monocyte scores under do(donor) with the real."""
    arms = {arm: np.array(values) for arm, values in scores["arms"].items()}
    found = {}
    for before, after in ((CTRL, CTRL_DO), (STIM, STIM_DO), (CTRL, CTRL_DONOR)):
        types, donors = (np.array(scores[what][before]) for what in ("cell_type", "donor"))
        for name in sorted(set(types)):
            found[f"{after}, {name}"] = paired_test(arms[before][types == name], arms[after][types == name])
        means = [pd.Series(arms[arm]).groupby(donors).mean().to_numpy() for arm in (before, after)]
        found[f"{after}, means of donors"] = paired_test(*means)
    real = [pd.Series(arms[arm]).groupby(np.array(scores["donor"][arm])).mean() for arm in (REAL_CTRL, REAL_STIM)]
    both = real[0].index.intersection(real[1].index)
    found["real stim less real ctrl, means of donors"] = paired_test(real[0][both].to_numpy(), real[1][both].to_numpy())
    for name in sorted(set(scores["cell_type"][REAL_CTRL])):
        ctrl, stim = (arms[arm][np.array(scores["cell_type"][arm]) == name] for arm in (REAL_CTRL, REAL_STIM))
        deviation = np.sqrt((ctrl.var(ddof=1) + stim.var(ddof=1)) / 2)
        found[f"real stim less real ctrl, {name}"] = {
            "n": len(ctrl) + len(stim),
            "difference": float(stim.mean() - ctrl.mean()),
            "d": float((stim.mean() - ctrl.mean()) / deviation),
            "p": float(mannwhitneyu(ctrl, stim).pvalue),
        }
    pairs = np.array([[each["real"], each["do"]] for each in scores["monocyte score by donor"].values()])
    centred = pairs - pairs.mean(axis=0)
    found["monocyte score by donor: slope of do(donor) on the real, correlation as d"] = {
        "n": len(pairs),
        "difference": float(centred[:, 0] @ centred[:, 1] / (centred[:, 0] @ centred[:, 0])),
        "d": float(np.corrcoef(pairs.T)[0, 1]),
        "p": None,
    }
    return found


def draw_kang(found: Mapping[str, Scores]) -> Figure:
    """Interferon scores by cell type and arm, of both models, and monocyte scores by donor, real and under do."""
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    *panels, last = figure.subplots(1, 1 + len(found), width_ratios=[3] * len(found) + [2])
    for ax, (title, scores) in zip(panels, found.items(), strict=True):
        shown = (REAL_CTRL, CTRL, CTRL_DONOR, CTRL_DO, REAL_STIM, STIM_DO)
        draw_boxes(
            ax,
            {arm: scores["arms"][arm] for arm in shown},
            {arm: np.array(scores["cell_type"][arm]) for arm in shown},
        )
        ax.set(title=title, ylabel=f"score of {len(scores['interferon genes'])} interferon genes")
    for i, (title, scores) in enumerate(found.items()):
        pairs = np.array([[each["real"], each["do"]] for each in scores["monocyte score by donor"].values()])
        last.scatter(*pairs.T, color=f"C{i}", label=title)
    last.axline(tuple(pairs.mean(axis=0)), slope=1, color="0.8", linewidth=0.8, zorder=0)
    last.legend(fontsize=7, frameon=False)
    last.set(xlabel="monocyte score of a donor's real cells", ylabel="all cells under do(that donor)")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=8, frameon=False
    )
    return figure


if __name__ == "__main__":
    main()
