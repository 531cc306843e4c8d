"""Coverage of intervals of effects: on a simulator against its truth, on real cells against cells that were held out.

    python tests/benchmarks/interval_coverage.py simulator --seeds 4 --first-seed 4 --members 3 --out report
    python tests/benchmarks/interval_coverage.py real kang.h5ad --concept stim --concept cell_type --concept donor \\
        --edge donor:cell_type --do stim=stim --source ctrl --by cell_type --replicate donor --seeds 3 --out report

Simulator: average effects (of a population, and within strata) and effects of single cells, of combinations of labels
that were trained on and (cells treated and of type B left out of training) of some that were not; beside the intervals
what cells or draws alone would say, and what the spread of ``--members`` models of other seeds says.

Real cells: the predicted shift of held-out source cells against that of held-out target cells, whose own sampling
variance widens the interval: within strata of a random split; of each stratum whose target cells were never trained on;
and of each replicate (donor) that was never trained on. Writes ``result.json`` and ``result.md``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import anndata
import numpy as np
from scipy import stats
from trained_models import SIMULATOR_DO, simulator_config, trained

from causcell._internal.files import new_folder
from causcell.cells.panel_cells import Reading
from causcell.counterfactual.interventions import parse_do
from causcell.effects import simulated_trial
from causcell.errors import CausCellWarning, DataError
from causcell.evaluation.metrics import mean_shift
from causcell.evaluation.report import run_environment
from causcell.evaluation.simulator import SCHEMA, Noise, World
from causcell.generator import Generator
from causcell_training import TrainConfig
from causcell_training.config import load_config, parse_overrides

LEVEL = 0.9
QUANTILE = float(stats.norm.ppf((1 + LEVEL) / 2))
LEFT_OUT = {"treatment": "treated", "cell_type": "B"}
NEW_CELLS = 500
MIN_CELLS = 12
CLEAR = 0.25
"""Predicted effects beyond it (log scale) are counted apart too: most genes hardly move."""

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """A training and what is measured of it: a question by name, with its arguments."""

    question: str
    seed: int
    arguments: argparse.Namespace
    stratum: str | None = None


def main() -> None:
    """Parse, train and measure every case, write the rows and their averages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["simulator", "real"])
    parser.add_argument("data", nargs="?")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--cells", type=int, default=2000, help="simulator: training cells")
    parser.add_argument("--members", type=int, default=1, help="simulator: models of other seeds on the same cells")
    parser.add_argument("--concept", action="append", default=[])
    parser.add_argument("--edge", action="append", default=[])
    parser.add_argument("--do", help="real: CONCEPT=LABEL")
    parser.add_argument("--source", help="real: label of that concept whose cells are intervened on")
    parser.add_argument("--by", help="real: concept whose labels are the strata")
    parser.add_argument("--replicate", help="real: column of obs whose labels are held out in turn")
    parser.add_argument("--question", action="append", help="seen, unseen, replicates; default: all that can be asked")
    parser.add_argument("--jobs", type=int, default=1, help="processes, each with one thread")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    cases = list(list_cases(arguments))
    if arguments.jobs > 1:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(arguments.jobs, mp_context=context) as pool:
            found = list(pool.map(measure, cases))
    else:
        found = [measure(case) for case in cases]
    rows = [row for each in found for row in each]
    table = average(rows)
    with new_folder(arguments.out) as folder:
        content = {**run_environment(), "arguments": {**vars(arguments), "out": None, "data": None}, "rows": rows}
        (folder / "result.json").write_text(json.dumps(content, indent=1) + "\n")
        (folder / "result.md").write_text(table)
    print(table)


def list_cases(arguments: argparse.Namespace) -> Iterator[Case]:
    """List the trainings that the questions take."""
    asked = arguments.question or ["seen", "unseen", *(["replicates"] if arguments.replicate else [])]
    cells = anndata.read_h5ad(arguments.data, backed="r") if arguments.kind == "real" else None
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for question in asked:
            if cells is None or question == "seen":
                yield Case(question, seed, arguments)
                continue
            column = cells.obs[arguments.by if question == "unseen" else arguments.replicate]
            for label in sorted(column.dropna().astype(str).unique()):
                yield Case(question, seed, arguments, label)


def measure(case: Case) -> Rows:
    """Train and measure one case."""
    warnings.simplefilter("ignore", CausCellWarning)  # of combinations that no training cell carries: meant
    function = {"seen": seen, "unseen": unseen, "replicates": replicates}[case.question]
    try:
        rows = simulated(case) if case.arguments.kind == "simulator" else function(case)
    except DataError as error:  # a label that only the held-out cells carry
        print(f"{case.question} {case.stratum}: {error}", flush=True)
        return []
    print(case.question, case.seed, case.stratum or "", f"{len(rows)} rows", flush=True)
    return [{"question": case.question, "seed": case.seed, "stratum": case.stratum, **row} for row in rows]


def judge(
    name: str, effect: np.ndarray, half: dict[str, np.ndarray], real: np.ndarray, variance: np.ndarray | float = 0.0
) -> dict[str, Any]:
    """Coverage of intervals by name of what they hold; the variance of a measured effect widens them."""
    row: dict[str, Any] = {"what": name}
    clear = np.abs(effect) > CLEAR
    for holds, width in half.items():
        wide = np.sqrt(width**2 + QUANTILE**2 * variance)
        inside = np.abs(effect - real) <= wide
        row[f"coverage, {holds}"] = float(inside.mean())
        row[f"coverage of effects beyond {CLEAR}, {holds}"] = float(inside[clear].mean()) if clear.any() else None
        row[f"half width, {holds}"] = float(np.sqrt(np.mean(width**2)))
    square = float(np.mean((effect - real) ** 2 - variance))
    row["root mean square error"] = float(np.sqrt(max(square, 0)))
    row["root mean square effect"] = float(np.sqrt(max(float(np.mean(real**2 - variance)), 0)))
    return row


# -- the simulator -----------------------------------------------------------------------------------------------------


def simulated(case: Case) -> Rows:
    """Coverage on new cells of a simulated world, with or without a combination of labels in training."""
    arguments, seed = case.arguments, case.seed
    world = World.make(seed=seed)
    cells = world.cells(world.noise(arguments.cells, seed=seed + 100))
    if case.question == "unseen":
        absent = np.logical_and.reduce([(cells.obs[name] == label).to_numpy() for name, label in LEFT_OUT.items()])
        cells = cells[~absent].copy()
    overrides = parse_overrides(arguments.settings)
    noise = world.noise(NEW_CELLS, seed=seed + 200)
    with ExitStack() as stack:
        members = [
            stack.enter_context(
                trained(cells, simulator_config(arguments.cells, {**overrides, "seed": seed + 1000 * member}))
            )
            for member in range(arguments.members)
        ]
        rows = []
        for concept, label in SIMULATOR_DO.items():
            if case.question == "unseen" and concept not in LEFT_OUT:
                continue
            goal = LEFT_OUT[concept] if case.question == "unseen" else label
            rows += simulated_effects(world, noise, members, concept, goal, case.question == "unseen")
    return rows


def simulated_effects(
    world: World, noise: Noise, members: Sequence[Generator], concept: str, label: str, only_unseen: bool
) -> Rows:
    """Coverage of one intervention's effect on cells that do not carry the label: averages, and single cells."""
    codes = world.labels(noise)
    rows = codes[:, SCHEMA.index(concept)] != SCHEMA[concept].code(label)
    if only_unseen:
        ((other, value),) = ((name, each) for name, each in LEFT_OUT.items() if name != concept)
        rows &= codes[:, SCHEMA.index(other)] == SCHEMA[other].code(value)
    cells = world.cells(noise)
    cells.obs_names = [f"new_{name}" for name in cells.obs_names]
    true, cells = world.effect(noise, {concept: label})[rows], cells[rows].copy()
    place = f"do({concept} = {label})"
    found = [average_row(members, cells, true, concept, label, f"average, {place}")]
    if concept != "cell_type" and not only_unseen:
        for name in SCHEMA["cell_type"].labels:
            here = (cells.obs["cell_type"] == name).to_numpy()
            if here.sum() >= MIN_CELLS:
                what = f"average in a cell type, {place}"
                found.append(average_row(members, cells[here].copy(), true[here], concept, label, what))
    options: dict[str, Any] = {"preset": "mean", "draws": 16, "store": "summary", "interval": LEVEL}
    answers = [generator.counterfactual(cells, {concept: label}, **options) for generator in members]
    effect, lower, upper = (np.asarray(answers[0].layers[name]) for name in ("effect", "lower", "upper"))
    pairs = [generator.counterfactual(cells, [{}, {concept: label}], preset="mean", draws=16) for generator in members]
    drawn = [np.asarray(each.X).reshape(len(true), 2, 16, -1) for each in pairs]
    deviation = [(each[:, 1] - each[:, 0]).std(axis=1, ddof=1) for each in drawn]
    student = float(stats.t.ppf((1 + LEVEL) / 2, 15))
    half = {"draws alone": student * np.sqrt(17 / 16) * deviation[0], "draws and model": (upper - lower) / 2}
    if len(members) > 1:
        means = np.stack([np.asarray(each.layers["effect"]) for each in answers])
        spread = spread_over(means) ** 2 + np.mean(np.square(deviation), axis=0) * 17 / 16
        half["draws and members"] = QUANTILE * np.sqrt(spread)
        found.append(
            judge(
                f"single cells, mean of members, {place}",
                means.mean(axis=0),
                {"draws and members": half["draws and members"]},
                true,
            )
        )
    return [*found, judge(f"single cells, {place}", effect, half, true)]


def average_row(
    members: Sequence[Generator], cells: anndata.AnnData, true: np.ndarray, concept: str, label: str, name: str
) -> dict[str, Any]:
    """Coverage of the average effect on cells, each from the label that it carries to another one.

    A trial compares two labels over all cells; cells of several source labels are tried label by label.
    """
    effects, squares, widths = [], [], []
    for source in sorted(set(cells.obs[concept])):
        here = (cells.obs[concept] == source).to_numpy()
        if here.sum() < 2:
            continue
        trials = [
            simulated_trial(generator, cells[here].copy(), concept, baseline=source, draws=4, interval=LEVEL)[label]
            for generator in members
        ]
        effects.append([np.asarray(trial.layers["effect"][0], dtype=np.float64) for trial in trials])
        squares.append(np.asarray(trials[0].layers["standard_error"][0], dtype=np.float64))
        widths.append(np.asarray(trials[0].layers["upper"][0] - trials[0].layers["lower"][0], dtype=np.float64) / 2)
        effects[-1].append(true[here].mean(axis=0))
    stacked = np.array(effects)  # sources x (members, truth) x genes
    half = {"cells alone": QUANTILE * np.concatenate(squares), "cells and model": np.concatenate(widths)}
    if len(members) > 1:
        half["cells and members"] = QUANTILE * np.concatenate(spread_over(stacked[:, :-1].swapaxes(0, 1)))
    return judge(name, stacked[:, 0].ravel(), half, stacked[:, -1].ravel())


def spread_over(members: np.ndarray) -> np.ndarray:
    """Deviation over members [members x ...] as that of one more of them."""
    return np.asarray(members.std(axis=0, ddof=1) * np.sqrt(1 + 1 / len(members)))


# -- real cells --------------------------------------------------------------------------------------------------------


def seen(case: Case) -> Rows:
    """Held-out cells of a random split, within strata that were trained on."""
    cells = anndata.read_h5ad(case.arguments.data)
    rng = np.random.default_rng(case.seed)
    split = dict(zip(cells.obs_names, rng.choice(["train", "test"], cells.n_obs, p=[0.7, 0.3]), strict=True))
    tested = np.array([split[name] == "test" for name in cells.obs_names])
    with trained(cells, settings(case), split) as generator:
        strata = sorted(cells.obs[case.arguments.by].dropna().astype(str).unique())
        return [row for name in strata for row in real_row(case, generator, cells, tested, tested, name)]


def unseen(case: Case) -> Rows:
    """A stratum whose target cells were never trained on; its source cells were."""
    cells = anndata.read_h5ad(case.arguments.data)
    ((concept, label),) = parse_do([case.arguments.do]).items()
    here = (cells.obs[case.arguments.by].astype(str) == case.stratum).to_numpy()
    absent = here & (cells.obs[concept].astype(str) == label).to_numpy()
    split = dict(zip(cells.obs_names, np.where(absent, "test", "train"), strict=True))
    with trained(cells, settings(case), split) as generator:
        return real_row(case, generator, cells, here & ~absent, absent, str(case.stratum))


def replicates(case: Case) -> Rows:
    """A replicate (donor, patient) of which no cell was trained on: its label is unknown to the model."""
    arguments = case.arguments
    cells = anndata.read_h5ad(arguments.data)
    away = (cells.obs[arguments.replicate].astype(str) == case.stratum).to_numpy()
    with trained(cells[~away].copy(), settings(case)) as generator:
        new = cells[away].copy()
        for concept in generator.schema.concepts:
            new.obs[concept.name] = (
                new.obs[concept.name].astype(object).where(new.obs[concept.name].isin(concept.labels))
            )
        every = np.full(new.n_obs, True)
        rows = real_row(case, generator, new, every, every, None)
        for name in (
            sorted(new.obs[arguments.by].dropna().astype(str).unique()) if arguments.by != arguments.replicate else []
        ):
            rows += real_row(case, generator, new, every, every, name)
    return rows


def settings(case: Case) -> TrainConfig:
    """Settings of a training on real cells."""
    given = {"concept": case.arguments.concept, "edge": case.arguments.edge, "seed": case.seed}
    return load_config(overrides={**given, **parse_overrides(case.arguments.settings)})


def real_row(
    case: Case, generator: Generator, cells: anndata.AnnData, sources: np.ndarray, targets: np.ndarray, name: str | None
) -> Rows:
    """Coverage of a stratum's real shift (all strata for `None`) from source cells to target cells; none if few."""
    arguments = case.arguments
    ((concept, label),) = parse_do([arguments.do]).items()
    of = cells.obs[concept].astype(str).to_numpy()
    here = np.full(cells.n_obs, True) if name is None else (cells.obs[arguments.by].astype(str) == name).to_numpy()
    groups = [np.flatnonzero(here & sources & (of == arguments.source)), np.flatnonzero(here & targets & (of == label))]
    if min(map(len, groups)) < MIN_CELLS:
        return []
    source, target = (read(generator, cells[rows].copy()) for rows in groups)
    real, variance = mean_shift(source, target)
    options: dict[str, Any] = {"baseline": arguments.source, "draws": 8, "interval": LEVEL}
    trial = simulated_trial(generator, cells[groups[0]].copy(), concept, **options)[label]
    effect, error, lower, upper = (
        np.asarray(trial.layers[each][0], dtype=np.float64) for each in ("effect", "standard_error", "lower", "upper")
    )
    half = {"cells alone": QUANTILE * error, "cells and model": (upper - lower) / 2}
    what = {"seen": "held-out cells", "unseen": "target cells never seen", "replicates": "new replicate"}[case.question]
    row = judge(what + (", all strata" if name is None else ", in a stratum"), effect, half, real, variance)
    return [row | {"place": name, "source cells": len(source), "target cells": len(target)}]


def read(generator: Generator, cells: anndata.AnnData) -> np.ndarray:
    """Panel expression of cells, log scale, float64 [n x G]."""
    reading = Reading()
    with generator.bind(reading.open(cells), **reading.bind_options) as bound:
        return np.asarray(bound.read(slice(0, len(bound))).expression, dtype=np.float64)


# -- the table ---------------------------------------------------------------------------------------------------------


def average(rows: Rows) -> str:
    """Averages over seeds and strata as a Markdown table, with the lowest and the highest coverage."""
    lines = [
        "| combinations | what | interval | n | coverage | lowest, highest | coverage of effects beyond "
        f"{CLEAR} | half width | error (root mean square) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str], Rows] = {}
    for row in rows:
        groups.setdefault((row["question"], row["what"]), []).append(row)
    for (question, what), members in groups.items():
        for key in [key for key in members[0] if key.startswith("coverage, ")]:
            holds = key.removeprefix("coverage, ")
            values = [each[key] for each in members]
            clear = [v for each in members if (v := each[f"coverage of effects beyond {CLEAR}, {holds}"]) is not None]
            width, error = (
                float(np.sqrt(np.mean([each[name] ** 2 for each in members])))
                for name in (f"half width, {holds}", "root mean square error")
            )
            lines.append(
                f"| {question} | {what} | {holds} | {len(members)} | {np.mean(values):.3f} | {min(values):.2f}, "
                f"{max(values):.2f} | {np.mean(clear) if clear else float('nan'):.3f} | {width:.3f} | {error:.3f} |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
