"""A dose between those trained on, and a drug known by its features alone, where the truth is known.

    python tests/benchmarks/value_truth.py --out build/value_truth --seeds 3

``dose``: `causcell.evaluation.value_simulator` (state is caused by dose and cell type). No training cell has a dose
within `GAP`, in the middle of which the state turns. Asked of 300 new cells of dose 0: do(dose=d) for `DOSES`, the
effect on each cell's expected expression, and the mean effect in each cell type. Beside it, by cell type: means of
training cells by bins of the dose, interpolated linearly, at d less those at 0.
``features``: `DRUGS` drugs whose effects on genes are a nonlinear map of four features, `LEFT_OUT` of them without a
training cell, `--label-features`. Asked of new control cells: do(drug=d). Beside it: the shift of the drug with the
nearest features, and ridge of shifts on features (its penalty by leaving drugs out).

``fine_tuning``: the model of ``dose`` learns `LEARNED` cells whose doses lie in the gap (``fit(start_from=)``); before
and after, measures of its own test cells and of other cells of the gap, and errors of doses in the gap and outside.

Errors are squared differences of effects summed over genes (log1p of 10,000 a cell) over those of no effect. The
model's embedding of the concept is its prior's mean; or the cell's own, moved by the difference of the prior's means.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import anndata
import numpy as np
from concept_kinds import log1p, train
from jobs import Job, add_job_options, run_jobs, write_result
from scipy import sparse

from causcell.evaluation.simulator import draw_counts, expect_expression, make_cells
from causcell.evaluation.value_simulator import CELL_TYPES, EDGES, KINDS, ValueNoise, ValueWorld

CELLS, ASKED, GENES = 4000, 300, 80
GAP = (3.5, 6.5)
DOSES = (4.0, 4.5, 5.0, 5.5, 6.0)
OUTSIDE = (1.0, 2.0, 3.0, 7.0, 8.0, 9.0)
LEARNED = 1000
BINS = np.array([0.0, 0.01, 1.75, 3.51, 6.49, 8.25, 10.01])
"""Edges of bins of the dose; the first is dose 0, the fourth the gap, which no cell is in."""

DRUGS, LEFT_OUT, FEATURES, CELLS_A_DRUG = 24, 6, 4, 120
DISPERSION, LIBRARY = 0.3, 200.0


def as_log1p(cells: anndata.AnnData) -> anndata.AnnData:
    """Cells with log1p values in place of counts."""
    return anndata.AnnData(log1p(cells.X).astype(np.float32), obs=cells.obs, var=cells.var)


def intervene(
    model: Any, cells: anndata.AnnData, concept: str | None, value: Any, *, keep_own: bool = False
) -> np.ndarray:
    """Mean estimates, [n x G], of cells under do(concept=value), as with ``target="own"`` where they keep their own.

    As they are without a concept.
    """
    import torch

    with torch.no_grad():
        own = torch.from_numpy(model.schema.encode_values(cells.obs)[1])
        exogenous = model.inform(model.encode(torch.from_numpy(cells.X))[0], torch.empty(0), own)
        if concept is None:
            return np.asarray(model.mean_estimate(model.scm(exogenous)))
        i = model.schema.index(concept)
        asked = torch.full_like(own, torch.nan)
        asked[:, model.schema.value_slices[i]] = torch.from_numpy(model.schema[concept].parse_value(value))
        forced, mask = torch.zeros_like(exogenous), torch.zeros(exogenous.shape[:2])
        forced[:, i], mask[:, i] = model.prior(asked)[0][:, i], 1
        if keep_own:
            forced[:, i] += (model.scm(exogenous) - torch.nn.functional.pad(model.prior(own)[0], (0, 0, 0, 1)))[:, i]
        return np.asarray(model.mean_estimate(model.scm(exogenous, forced, mask)))


def without_gap(noise: ValueNoise, rng: np.random.Generator) -> ValueNoise:
    """The same noise, doses of the gap moved out of it."""
    dose = noise.assigned[:, 1]
    inside = (dose > GAP[0]) & (dose < GAP[1])
    outside = np.where(
        rng.random(len(dose)) < 0.5, rng.uniform(0.01, GAP[0], len(dose)), rng.uniform(GAP[1], 10, len(dose))
    )
    noise.assigned[:, 1] = np.where(inside, np.round(outside, 2), dose)
    return noise


def interpolate(x: np.ndarray, dose: np.ndarray, at: float) -> np.ndarray:
    """Means by bins of the dose, interpolated linearly, [G]."""
    place = np.digitize(dose, BINS)
    middles, means = zip(
        *((dose[place == b].mean(), x[place == b].mean(axis=0)) for b in np.unique(place)), strict=True
    )
    return np.array([np.interp(at, middles, gene) for gene in np.stack(means, axis=1)])


def make_dose_cells(seed: int) -> tuple[ValueWorld, anndata.AnnData, ValueNoise]:
    """Make a world, training cells without doses in the gap, and the noise of undosed cells that are asked."""
    world, rng = ValueWorld.make(GENES, seed=seed), np.random.default_rng((seed, 20))
    seen = as_log1p(world.cells(without_gap(world.noise(CELLS, seed=seed), rng)))
    noise = world.noise(ASKED, seed=seed + 1000)
    noise.assigned[:, 1] = 0
    return world, seen, noise


def train_on_doses(seen: anndata.AnnData, job: Job, folder: Path) -> Any:
    """Train on all concepts of the world, with its true edges."""
    kinds = [name if kind == "labels" else f"{name}:{kind}" for name, kind in KINDS.items()]
    edges = [f"{cause}:{effect}" for cause, effect in EDGES]
    return train(seen, job, folder, kinds, ["perturbation=control"], edge=edges)


def measure_doses(
    model: Any, world: ValueWorld, seen: anndata.AnnData, noise: ValueNoise, asked: tuple[float, ...]
) -> dict[str, float]:
    """Sum errors over doses, of single cells and means of types, model and interpolation."""
    cells, factual = as_log1p(world.cells(noise)), world.expected(noise)
    own = intervene(model, cells, None, None)
    names = ("model", "model_own", "trivial", "unchanged")
    sums = dict.fromkeys((*names, *(f"{name}_types" for name in names)), 0.0)
    for dose in asked:
        truth = world.expected(noise, {"dose": dose})
        told, kept = (intervene(model, cells, "dose", dose, keep_own=keep) for keep in (False, True))
        for name in CELL_TYPES:
            of_type = (cells.obs["cell_type"] == name).to_numpy()
            training = (seen.obs["cell_type"] == name).to_numpy()
            x, doses = np.asarray(seen.X)[training], seen.obs["dose"].to_numpy()[training]
            true, trivial = (truth - factual)[of_type], interpolate(x, doses, dose) - interpolate(x, doses, 0)
            guesses = {
                "model": (told - own)[of_type],
                "model_own": (kept - own)[of_type],
                "trivial": trivial,
                "unchanged": 0,
            }
            for key, guess in guesses.items():
                sums[key] += float(((guess - true) ** 2).sum())
                sums[f"{key}_types"] += float((np.mean(guess - true, axis=0) ** 2).sum())
    return sums


def ask_doses(job: Job) -> dict[str, Any]:
    """Errors over the doses of the gap."""
    world, seen, noise = make_dose_cells(job["seed"])
    with tempfile.TemporaryDirectory() as folder:
        model = train_on_doses(seen, job, Path(folder))
    return measure_doses(model, world, seen, noise, DOSES)


def ask_fine_tuning(job: Job) -> dict[str, Any]:
    """Measures and errors before and after cells of the gap were learned, and what that took."""
    from causcell_training import Run, fit
    from causcell_training.config import load_config
    from causcell_training.run_data import measure_test_cells

    world, seen, noise = make_dose_cells(job["seed"])
    inside = world.noise(LEARNED + ASKED, seed=job["seed"] + 5000)
    inside.assigned[:, 1] = np.round(np.random.default_rng(3).uniform(*GAP, LEARNED + ASKED), 2)
    new = as_log1p(world.cells(inside))
    new.obs_names = [f"new_{name}" for name in new.obs_names]
    tested = new[LEARNED:].copy()
    tested.obs["causcell:part"] = "report"
    tested.X = sparse.csr_matrix(tested.X)
    with tempfile.TemporaryDirectory() as folder:
        train_on_doses(seen, job, Path(folder))
        before = Run.load(Path(folder) / "run")
        started = time.process_time()
        after = fit(
            new[:LEARNED].copy(),
            Path(folder) / "after",
            start_from=before,
            config=load_config(overrides={"seed": job["seed"]}),
        )
        found: dict[str, Any] = {"CPU seconds": time.process_time() - started}
        old = before.held_out()
        for name, run in (("before", before), ("after", after)):
            found[name] = {
                "steps": run.provenance["steps"],
                "old cells": measure_test_cells(run.model, old),
                "new cells": measure_test_cells(run.model, tested),
                "gap": _quotients(measure_doses(run.model, world, seen, noise, DOSES)),
                "outside": _quotients(measure_doses(run.model, world, seen, noise, OUTSIDE)),
            }
    return found


def _quotients(sums: dict[str, float]) -> dict[str, float]:
    """Errors over those of no effect."""
    return {
        key: value / sums["unchanged_types" if key.endswith("_types") else "unchanged"]
        for key, value in sums.items()
        if not key.startswith("unchanged")
    }


def ask_features(job: Job) -> dict[str, Any]:
    """Errors of the mean of drugs left out: model, nearest drug, ridge on features."""
    rng = np.random.default_rng((job["seed"], 21))
    features = rng.normal(size=(DRUGS, FEATURES))
    hidden = np.tanh(features @ rng.normal(size=(FEATURES, 6)))
    effects = hidden @ (rng.normal(size=(6, GENES)) * (rng.random((6, GENES)) < 0.3))
    base, types = rng.normal(0, 1.5, GENES), rng.normal(size=(3, GENES)) * (rng.random((3, GENES)) < 0.25)

    def simulate(drug: np.ndarray) -> tuple[anndata.AnnData, np.ndarray, np.ndarray]:
        """Cells of drugs by place, -1 for control, and what sets their rates."""
        kind, library = rng.integers(3, size=len(drug)), LIBRARY * rng.lognormal(0, 0.3, len(drug))
        rate = base + types[kind] + rng.normal(0, 0.3, (len(drug), 1)) * effects.mean(axis=0)
        share = np.exp(rate + np.where(drug[:, None] < 0, 0, effects[drug]))
        mean = library[:, None] * share / share.sum(axis=1, keepdims=True)
        counts = draw_counts(mean, rng.random(mean.shape), DISPERSION, int(base.argmax()))
        obs = {
            "drug": np.where(drug < 0, "control", np.char.add("d", drug.astype(str))),
            "cell_type": np.array(CELL_TYPES)[kind],
        }
        return as_log1p(make_cells(counts, obs)), rate, library

    trained = np.arange(DRUGS - LEFT_OUT)
    seen, _, _ = simulate(np.repeat(np.concatenate([[-1, -1], trained]), CELLS_A_DRUG))
    control, rate, library = simulate(np.full(ASKED, -1))
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "drugs.csv"
        with table.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["drug", *(f"feature_{i}" for i in range(FEATURES))])
            writer.writerow(["control", *[0.0] * FEATURES])
            writer.writerows([f"d{i}", *row] for i, row in enumerate(features.tolist()))
        model = train(seen, job, Path(folder), ["cell_type", "drug"], [], label_features=[f"drug={table}"])
    x, label = np.asarray(seen.X), seen.obs["drug"].to_numpy().astype(str)
    rest = x[label == "control"].mean(axis=0)
    shifts = np.stack([x[label == f"d{i}"].mean(axis=0) for i in trained]) - rest
    weights = min(
        (_ridge(features[trained], shifts, penalty) for penalty in (0.01, 0.1, 1.0, 10.0)), key=lambda each: each[1]
    )[0]
    sums = dict.fromkeys(("model", "nearest", "ridge", "unchanged"), 0.0)

    def expect(added: np.ndarray) -> np.ndarray:
        share = np.exp(rate + added)
        mean = library[:, None] * share / share.sum(axis=1, keepdims=True)
        return expect_expression(mean, library, DISPERSION).mean(axis=0)

    before = expect(np.zeros(GENES))
    own = intervene(model, control, "drug", "control").mean(axis=0)
    for i in range(DRUGS - LEFT_OUT, DRUGS):
        true = expect(effects[i]) - before
        nearest = shifts[((features[trained] - features[i]) ** 2).sum(axis=1).argmin()]
        told = {
            "model": intervene(model, control, "drug", f"d{i}").mean(axis=0) - own,
            "nearest": nearest,
            "ridge": features[i] @ weights,
            "unchanged": 0 * true,
        }
        for key, each in told.items():
            sums[key] += float(((each - true) ** 2).sum())
    return sums


def _ridge(features: np.ndarray, shifts: np.ndarray, penalty: float) -> tuple[np.ndarray, float]:
    """Weights of shifts on features, no intercept (control has features 0), and the error of drugs left out in turn."""

    def solve(rows: np.ndarray) -> np.ndarray:
        a = features[rows]
        return np.asarray(np.linalg.solve(a.T @ a + penalty * np.eye(a.shape[1]), a.T @ shifts[rows]))

    every = np.arange(len(features))
    left_out = sum(((features[i] @ solve(every[every != i]) - shifts[i]) ** 2).sum() for i in every)
    return solve(every), float(left_out)


QUESTIONS = {"dose": ask_doses, "features": ask_features, "fine_tuning": ask_fine_tuning}


def ask(job: Job) -> dict[str, Any]:
    """Answer a job's question."""
    return QUESTIONS[job["question"]](job)


def main() -> None:
    """Run the jobs and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", nargs="+", choices=list(QUESTIONS), default=list(QUESTIONS))
    add_job_options(parser)
    arguments = parser.parse_args()
    jobs: dict[str, Job] = {
        f"{question} seed {seed}": {"question": question, "seed": seed, "settings": arguments.settings}
        for question in arguments.questions
        for seed in range(arguments.seeds)
    }
    results = run_jobs(ask, jobs, arguments)
    for name, result in results.items():
        if "unchanged" not in result:
            print(name, json.dumps(result, indent=1))
            continue
        for key, value in _quotients(result).items():
            print(f"{name}: {key} {value:.3f} of no change")
    write_result(arguments.out, {"results": json.loads(json.dumps(results))})


if __name__ == "__main__":
    main()
