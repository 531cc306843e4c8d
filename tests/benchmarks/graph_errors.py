"""What a graph error costs: effects under the given graph, without it, with an edge or a concept wrong or missing.

    python tests/benchmarks/graph_errors.py simulator --seeds 3 --workers 16 --out simulator
    python tests/benchmarks/graph_errors.py kang kang.h5ad --split kang.split.csv --seeds 3 --workers 16 --out kang

On the simulator errors are against the truth, on new cells; on Kang against the held-out cells, and what is right there
is not known: only which graph is the plausible one. One graph of each has a concept of random labels, which has no
effect. Each writes ``result.json`` (every seed, command, versions) and ``table.md``.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import anndata
import numpy as np
import pandas as pd
from jobs import Job, add_job_options, run_jobs, write_result
from trained_models import (
    KANG_CONCEPTS,
    KANG_SETTINGS,
    SIMULATOR_DO,
    SIMULATOR_EDGES,
    predict_effects,
    read_kang,
    simulator_config,
    trained,
)

from causcell import Generator
from causcell.effects import simulated_trial
from causcell.errors import CausCellWarning
from causcell.evaluation.known_truth import compute_mean_shifts, log_normalise
from causcell.evaluation.metrics import effect_agreement, mean_shift, squared_size
from causcell.evaluation.simulator import SCHEMA, World, effect_error
from causcell_training.config import load_config, parse_overrides

RANDOM = "random"
"""Concept of the negative control: two labels, drawn at random."""
DRAWS = 8
NEW_CELLS = 1000
MIN_CELLS = 8


def main() -> None:
    """Run every graph with every seed, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("where", choices=["simulator", "kang"])
    parser.add_argument("data", nargs="?", help="kang: the cells")
    parser.add_argument("--split", help="kang: the split")
    parser.add_argument("--cells", type=int, default=1000, help="simulator: training cells")
    parser.add_argument("--graph", action="append", help="only the graph of this name; may be repeated")
    add_job_options(parser)
    arguments = parser.parse_args()
    graphs = simulator_graphs() if arguments.where == "simulator" else kang_graphs()
    common = {"settings": parse_overrides(arguments.settings)}
    if arguments.where == "simulator":
        common["cells"] = arguments.cells
    else:
        if not (arguments.data and arguments.split):
            parser.error("kang takes the cells and --split")
        common |= {"data": arguments.data, "split": arguments.split}
    jobs = {
        f"{name}, seed {seed}": common | {"seed": seed, "graph": name}
        for seed in range(arguments.seeds)
        for name in arguments.graph or graphs
    }
    measure = measure_on_simulator if arguments.where == "simulator" else measure_on_kang
    found = run_jobs(measure, jobs, arguments)
    by_graph: dict[str, list[Any]] = {}
    for name, result in found.items():
        by_graph.setdefault(jobs[name]["graph"], []).append(result)
    write_result(arguments.out, {"graphs": graphs, "results": by_graph})
    (arguments.out / "table.md").write_text(format_tables(by_graph))
    print(format_tables(by_graph))


# -- graphs ------------------------------------------------------------------------------------------------------------


def simulator_graphs() -> dict[str, dict[str, Any]]:
    """Settings of the training by what is wrong with the graph; the truth is ``given``."""
    graphs: dict[str, dict[str, Any]] = {"given": {}, "none (CausCell_IND)": {"model.graph": "independent"}}
    for edge in SIMULATOR_EDGES:
        others = tuple(other for other in SIMULATOR_EDGES if other != edge)
        graphs[f"{edge} reversed"] = {"edge": (*others, ":".join(reversed(edge.split(":"))))}
        graphs[f"{edge} missing"] = {"edge": others}
    for edge in ("donor:treatment", "treatment:cell_type", "donor:state"):
        graphs[f"{edge} added"] = {"edge": (*SIMULATOR_EDGES, edge)}
    for name in SCHEMA.names:
        edges = tuple(edge for edge in SIMULATOR_EDGES if name not in edge.split(":"))
        graphs[f"concept {name} missing"] = {
            "concept": tuple(other for other in SCHEMA.names if other != name),
            "edge": edges,
        }
    without = graphs["concept cell_type missing"]
    graphs["concept cell_type missing, donor:state in its place"] = {
        **without,
        "edge": (*without["edge"], "donor:state"),
    }
    graphs["random labels beside"] = {"concept": (*SCHEMA.names, RANDOM)}
    graphs["random labels, random:state added"] = {
        "concept": (*SCHEMA.names, RANDOM),
        "edge": (*SIMULATOR_EDGES, f"{RANDOM}:state"),
    }
    return graphs


def kang_graphs() -> dict[str, dict[str, Any]]:
    """Settings of the training by graph; ``given`` is the plausible one, donors differ in their cells."""
    given = KANG_SETTINGS["edge"]
    return {
        "given": {},
        "none (CausCell_IND)": {"model.graph": "independent"},
        "donor:cell_type reversed": {"edge": ("cell_type:donor",)},
        "stim:cell_type added": {"edge": (*given, "stim:cell_type")},
        "cell_type:stim added": {"edge": (*given, "cell_type:stim")},
        "donor:stim added": {"edge": (*given, "donor:stim")},
        "concept donor missing": {"concept": ("stim", "cell_type"), "edge": ()},
        "concept cell_type missing": {"concept": ("stim", "donor"), "edge": ()},
        "random labels beside": {"concept": (*KANG_CONCEPTS, RANDOM)},
        "random labels, random:cell_type added": {
            "concept": (*KANG_CONCEPTS, RANDOM),
            "edge": (*given, f"{RANDOM}:cell_type"),
        },
    }


def add_random_labels(cells: anndata.AnnData, seed: int) -> anndata.AnnData:
    """Give each cell a label that says nothing."""
    labels = np.random.default_rng((seed, 77)).permutation(np.resize(["r1", "r2"], cells.n_obs))
    cells.obs[RANDOM] = labels
    return cells


# -- simulator ---------------------------------------------------------------------------------------------------------


def measure_on_simulator(job: Job) -> dict[str, Any]:
    """Errors of each intervention that a graph's model knows, against the truth; trivial predictions beside."""
    seed = job["seed"]
    world = World.make(seed=seed)
    cells = add_random_labels(world.cells(world.noise(job["cells"], seed=seed + 100)), seed)
    noise = world.noise(NEW_CELLS, seed=seed + 200)
    new = add_random_labels(world.cells(noise), seed + 1)
    new.obs_names = [f"new_{name}" for name in new.obs_names]
    before = world.labels(noise)
    config = simulator_config(job["cells"], simulator_graphs()[job["graph"]] | job["settings"] | {"seed": seed})
    found: dict[str, Any] = {}
    with trained(cells, config) as generator:
        for concept, label in SIMULATOR_DO.items():
            do = {concept: label}
            moved = before[:, SCHEMA.index(concept)] != SCHEMA[concept].code(label)
            true = world.effect(noise, do)[moved]
            estimates = compute_mean_shifts(cells, new[moved], do) | {"no change": np.zeros_like(true)}
            if concept in generator.schema.names:
                estimates["model"] = predict_effects(generator, new[moved], do, draws=DRAWS)
            found[f"do({concept})"] = {name: errors(effect, true) for name, effect in estimates.items()}
        if RANDOM in generator.schema.names:
            reference = world.effect(noise, {"treatment": "treated"})[before[:, 0] == 0]
            found["negative control"] = negative_control(generator, new, reference, new.obs[list(SCHEMA.names)], DRAWS)
    return found


def errors(effect: np.ndarray, true: np.ndarray) -> dict[str, float | None]:
    """Squared errors over the true effect's square, of the average and of single cells [n x G]; the average's sizes."""
    average, wanted = effect.mean(axis=0), true.mean(axis=0)
    agreement = effect_agreement(average, wanted)
    return {
        "average": effect_error(average[None], wanted[None]),
        "single cells": effect_error(effect, true),
        "size": agreement["size"],
        "calibration": agreement["calibration"],
    }


def negative_control(
    generator: Generator, cells: anndata.AnnData, reference: np.ndarray, labels: pd.DataFrame, draws: int
) -> dict[str, float]:
    """Effect of do(random label), whose truth is none, in shares of the squared reference effect [n x G].

    A label that stands for something else of the cell moves cells that lack it one way and those that have it the
    other: so it is averaged within every label of every other concept, and the largest is kept.
    """
    moved = (cells.obs[RANDOM] == "r2").to_numpy()
    effect = predict_effects(generator, cells[moved], {RANDOM: "r1"}, draws=draws)
    wanted = float((reference.mean(axis=0) ** 2).sum())
    strata = {
        f"{name} = {label}": float((effect[(labels[name][moved] == label).to_numpy()].mean(axis=0) ** 2).sum()) / wanted
        for name in labels
        for label in labels[name].unique()
        if (labels[name][moved] == label).sum() >= MIN_CELLS
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausCellWarning)
        trial = simulated_trial(generator, cells, RANDOM, baseline="r2", draws=draws)["r1"]
    return {
        "average": float((effect.mean(axis=0) ** 2).sum()) / wanted,
        "average, largest of a stratum": max(strata.values()),
        "single cells": float((effect**2).sum(axis=1).mean() / (reference**2).sum(axis=1).mean()),
        "genes called changed": int(trial.layers["changed"].sum()),
        "largest effect of a gene (trial)": float(np.abs(trial.layers["effect"]).max()),
    }


# -- Kang --------------------------------------------------------------------------------------------------------------


def measure_on_kang(job: Job) -> dict[str, Any]:
    """Agreement of each intervention's mean shift with that of held-out cells, pooled over strata and labels."""
    cells, tested, panel = read_kang(job["data"], job["split"])
    cells = add_random_labels(cells, job["seed"])
    overrides = {**KANG_SETTINGS, **kang_graphs()[job["graph"]], **job["settings"], "seed": job["seed"]}
    x = log_normalise(cells)[:, [cells.var_names.get_loc(name) for name in panel]]
    found: dict[str, Any] = {}
    with trained(cells, load_config(overrides=overrides), job["split"], panel) as generator:
        for concept in KANG_CONCEPTS:
            pairs: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
            for source, target, stratum in list_contrasts(cells.obs, tested, concept):
                rows = [np.flatnonzero(tested & stratum & (cells.obs[concept] == label)) for label in (source, target)]
                estimates = trivial_shifts(cells.obs, x, ~tested, stratum, (concept, source, target))
                if concept in generator.schema.names:
                    estimates["model"] = predict_effects(generator, cells[rows[0]], {concept: target}, draws=2).mean(
                        axis=0
                    )
                real = mean_shift(x[rows[0]], x[rows[1]])
                for name, shift in estimates.items():
                    pairs.setdefault(name, []).append((shift, *real))
                halves = halved(x[rows[0]], x[rows[1]], job["seed"])
                pairs.setdefault("one half of the real cells for the other", []).append(halves)
            found[f"do({concept})"] = {name: pooled(each) for name, each in pairs.items()}
        if RANDOM in generator.schema.names:
            test = cells[tested].copy()
            control = test[(test.obs["stim"] == "ctrl").to_numpy()]
            reference = predict_effects(generator, control, {"stim": "stim"}, draws=DRAWS)
            found["negative control"] = negative_control(
                generator, test, reference, test.obs[list(KANG_CONCEPTS)], DRAWS
            )
    return found


def list_contrasts(obs: pd.DataFrame, tested: np.ndarray, concept: str) -> Iterable[tuple[str, str, np.ndarray]]:
    """Source label, target label and stratum (bool) of every contrast with enough held-out cells.

    The most frequent label against every other; stim within cell types, the others over all cells: total effects.
    """
    source = "ctrl" if concept == "stim" else str(obs[concept][tested].value_counts().index[0])
    everything = np.ones(len(obs), dtype=bool)
    strata = [(obs["cell_type"] == name).to_numpy() for name in sorted(obs["cell_type"].unique())]
    for target in sorted(set(obs[concept].unique()) - {source}):
        for stratum in strata if concept == "stim" else [everything]:
            counts = [(tested & stratum & (obs[concept] == label)).sum() for label in (source, target)]
            if min(counts) >= MIN_CELLS:
                yield source, target, stratum


def trivial_shifts(
    obs: pd.DataFrame, x: np.ndarray, learned: np.ndarray, stratum: np.ndarray, contrast: tuple[str, str, str]
) -> dict[str, np.ndarray]:
    """Differences of the training cells' means, of all and of the stratum [G], and no change."""
    concept, source, target = contrast
    shifts = {"no change": np.zeros(x.shape[1])}
    for name, rows in (("training shift, one for all", learned), ("training shift of the stratum", learned & stratum)):
        parts = [x[rows & (obs[concept] == label).to_numpy()] for label in (source, target)]
        shifts[name] = parts[1].mean(axis=0) - parts[0].mean(axis=0)
    return shifts


def halved(source: np.ndarray, target: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shift of one half of the cells, and that of the other with its variance, [G] each."""
    rng = np.random.default_rng((seed, 5))
    parts = [np.array_split(rng.permutation(len(x)), 2) for x in (source, target)]
    one, other = (mean_shift(source[parts[0][i]], target[parts[1][i]]) for i in (0, 1))
    return one[0], *other


def pooled(pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> dict[str, float | None]:
    """Measures of predicted shifts, real ones and their variances [G], the real ones' noise taken off.

    Squares and products are summed over contrasts before they are divided; Pearson is the mean over contrasts.
    """
    noise = sum(float(variance.sum()) for _, _, variance in pairs)
    real = sum(float(r @ r) for _, r, _ in pairs) - noise
    wrong = sum(float((p - r) @ (p - r)) for p, r, _ in pairs) - noise
    along = sum(float(p @ r) for p, r, _ in pairs)
    length = sum(float(p @ p) for p, _, _ in pairs)
    agreements = [effect_agreement(p, r)["pcc"] for p, r, _ in pairs if p.any()]
    told = [squared_size(r, variance) is not None for _, r, variance in pairs]
    return {
        "error": wrong / real,
        "Pearson": float(np.mean(agreements)) if agreements else None,
        "size": along / real,
        "calibration": along / length if length else None,
        "contrasts": len(pairs),
        "of them told from noise": sum(told),
    }


# -- tables ------------------------------------------------------------------------------------------------------------


def format_tables(by_graph: Mapping[str, list[Any]]) -> str:
    """Markdown: a table an intervention, a row a graph; trivial predictions are those of the first graph's cells."""
    lines = []
    first = next(iter(by_graph.values()))
    for intervention in [key for key in first[0] if key.startswith("do(")]:
        rows = {name: [each[intervention].get("model") for each in found] for name, found in by_graph.items()}
        for trivial in first[0][intervention]:
            if trivial != "model":
                rows[f"*{trivial}*"] = [each[intervention][trivial] for each in first]
        lines += [f"### {intervention}", "", *format_rows(rows), ""]
    controls = {name: [each.get("negative control") for each in found] for name, found in by_graph.items()}
    if any(values[0] for values in controls.values()):
        lines += ["### do(random label), in truth none", "", *format_rows(controls), ""]
    return "\n".join(lines)


def format_rows(rows: Mapping[str, list[dict[str, float | None] | None]]) -> list[str]:
    """Rows of mean and spread over seeds; one without any value is left out."""
    kept = {name: [each for each in values if each] for name, values in rows.items()}
    kept = {name: values for name, values in kept.items() if values}
    measures = list(next(iter(kept.values()))[0])
    lines = ["| | " + " | ".join(measures) + " |", "|---" * (len(measures) + 1) + "|"]
    for name, values in kept.items():
        cells = []
        for measure in measures:
            numbers = [each[measure] for each in values if each[measure] is not None]
            cells.append(f"{np.mean(numbers):.2g} ± {np.std(numbers):.1g}" if numbers else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    main()
