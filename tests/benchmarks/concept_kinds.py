"""Values that no training cell has, beside trivial answers: a time bin, pairs of perturbations, a line left out.

    python tests/benchmarks/concept_kinds.py --data DATA --out build/kinds --seeds 1

``time``: worm embryo, a middle bin of its time left out, the bins' middles in minutes (`MINUTES`) being an ordinal and,
in jobs of their own, a continuous concept; asked of the cells of the bins beside it, each type's own. Beside it: each
type's linear interpolation of the means of these bins.
``pairs``: perturbench, each pair whose members are there alone left out (``perturbation`` as a set); asked of control
cells. Beside it: control plus both members' shifts.
``line``: perturbench, three lines that share nine perturbations; a training leaves one out of each line, three others,
so that nine trainings ask for all 27; asked of that line's control cells. Beside it: the mean of the other lines'
shifts.

An answer is the mean of the cells' mean estimates with the concept's embedding at its prior's mean; the truth is the
mean of the cells left out. An error is the squared difference summed over genes (log1p of 10,000 a cell), less the
sampling variance of the true mean. A quotient below 1 is better than trivial. No change: the source cells' mean.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import anndata
import numpy as np
from jobs import Job, add_job_options, run_jobs, write_result

MINUTES = {
    "210-270": 240,
    "270-330": 300,
    "330-390": 360,
    "390-450": 420,
    "450-510": 480,
    "510-580": 545,
    "580-650": 615,
    "> 650": 680,
}
"""Middle of each bin of the worm's time; of the last, which has no end, 30 minutes after its beginning."""

FEWEST = 20
"""Cells of a type in the bin left out, for it to be asked."""

WORM, PERTURBENCH = "worm_embryo_neurons.h5ad", "perturbench_norman_mcfaline_500genes.h5ad"


def log1p(counts: Any) -> np.ndarray:
    """Counts as log1p of 10,000 a cell."""
    dense = np.asarray(counts.todense() if hasattr(counts, "todense") else counts, dtype=np.float64)
    return np.log1p(dense / np.maximum(dense.sum(axis=1, keepdims=True), 1) * 1e4)


def train(
    adata: anndata.AnnData, job: Job, folder: Path, concepts: list[str], controls: list[str], **others: Any
) -> Any:
    """Train on cells given as log1p values, with other settings by name."""
    from causcell_training import fit
    from causcell_training.config import load_config, parse_overrides

    settings = {
        "expression": "log1p",
        "genes": "all",
        "concept": concepts,
        "set_control": controls,
        "seed": job["seed"],
        **others,
    }
    config = load_config(overrides=settings | parse_overrides(job["settings"]))
    return fit(adata, folder / "run", config=config).model


def answer(model: Any, cells: anndata.AnnData, values: dict[str, Any]) -> np.ndarray:
    """Mean over cells of the mean estimate, with the concepts of ``values`` at their priors' means."""
    import torch

    with torch.no_grad():
        x = torch.from_numpy(np.asarray(cells.X, dtype=np.float32))
        own = torch.from_numpy(model.schema.encode_values(cells.obs)[1])
        z = model.scm(model.inform(model.encode(x)[0], torch.empty(0), own)).clone()
        for name, value in values.items():
            i = model.schema.index(name)
            asked = torch.full_like(own, torch.nan)
            asked[:, model.schema.value_slices[i]] = torch.from_numpy(model.schema[name].parse_value(value))
            z[:, i] = model.prior(asked)[0][:, i]
        return model.mean_estimate(z).numpy().mean(axis=0)


def compare(truth: np.ndarray, model: np.ndarray, trivial: np.ndarray, unchanged: np.ndarray) -> dict[str, float]:
    """Squared errors of means over genes, less the noise of the true cells' mean."""
    mean, noise = truth.mean(axis=0), float((truth.var(axis=0, ddof=1) / len(truth)).sum())
    errors = {
        name: float(((each - mean) ** 2).sum()) - noise
        for name, each in (("model", model), ("trivial", trivial), ("unchanged", unchanged))
    }
    return {**errors, "cells": len(truth), "noise": noise}


def leave_time_out(job: Job) -> dict[str, Any]:
    """A bin of the worm's time that no training cell has."""
    adata = anndata.read_h5ad(job["data"])
    x = log1p(adata.X)
    obs = adata.obs[["cell_type"]].copy()
    obs["time"] = adata.obs["time_bin"].astype(str).map(MINUTES).astype(int)
    time, times = obs["time"].to_numpy(), list(MINUTES.values())
    left_out, place = MINUTES[job["bin"]], times.index(MINUTES[job["bin"]])
    before_it, after_it = times[place - 1], times[place + 1]
    share = (left_out - before_it) / (after_it - before_it)
    panel = np.argsort(-x[time != left_out].var(axis=0))[: job["genes"]]
    cells = anndata.AnnData(x[:, panel].astype(np.float32), obs=obs, var=adata.var.iloc[panel][[]])
    seen = cells[time != left_out].copy()
    with tempfile.TemporaryDirectory() as folder:
        model = train(seen, job, Path(folder), ["cell_type", f"time:{job['kind']}"], [])
    found = {}
    for name in obs["cell_type"].unique():
        own = (obs["cell_type"] == name).to_numpy()
        before, after, true = (own & (time == each) for each in (before_it, after_it, left_out))
        if true.sum() < FEWEST or before.sum() < FEWEST or after.sum() < FEWEST:
            continue
        beside = cells[before | after].copy()
        means = [np.asarray(cells.X[rows]).mean(axis=0) for rows in (before, after)]
        told = answer(model, beside, {"time": left_out})
        between = (1 - share) * means[0] + share * means[1]
        found[str(name)] = compare(np.asarray(cells.X[true]), told, between, means[0])
    return found


def perturbench(path: str) -> anndata.AnnData:
    """Log1p values of the panel, with perturbation and line."""
    adata = anndata.read_h5ad(path)
    obs = adata.obs[["perturbation", "cell_type"]].astype(str)
    return anndata.AnnData(log1p(adata.X).astype(np.float32), obs=obs, var=adata.var[[]])


def leave_pair_out(job: Job) -> dict[str, Any]:
    """A pair of perturbations that no training cell has."""
    adata = perturbench(job["data"])
    cells = adata[(adata.obs["cell_type"] == "k562").to_numpy()].copy()
    cells.obs = cells.obs[["perturbation"]]
    own, (one, other) = cells.obs["perturbation"].to_numpy(), job["pair"].split("+")
    with tempfile.TemporaryDirectory() as folder:
        seen = cells[own != job["pair"]].copy()
        model = train(seen, job, Path(folder), ["perturbation:set"], ["perturbation=control"])
    mean = {label: np.asarray(cells.X[own == label]).mean(axis=0) for label in (one, other, "control")}
    told = answer(model, cells[own == "control"].copy(), {"perturbation": job["pair"]})
    additive = mean[one] + mean[other] - mean["control"]
    return {job["pair"]: compare(np.asarray(cells.X[own == job["pair"]]), told, additive, mean["control"])}


def leave_lines_out(job: Job) -> dict[str, Any]:
    """Perturbations that one line's training cells do not have, another one in each line."""
    adata = perturbench(job["data"])
    cells = adata[(adata.obs["cell_type"] != "k562").to_numpy()].copy()
    own, line = cells.obs["perturbation"].to_numpy(), cells.obs["cell_type"].to_numpy()
    away = np.zeros(len(own), dtype=bool)
    for name, label in job["left_out"].items():
        away |= (own == label) & (line == name)
    with tempfile.TemporaryDirectory() as folder:
        concepts = ["cell_type", "perturbation:set"]
        model = train(cells[~away].copy(), job, Path(folder), concepts, ["perturbation=control"])

    def mean(label: str, name: str) -> np.ndarray:
        return np.asarray(cells.X[(own == label) & (line == name)]).mean(axis=0)

    found = {}
    for name, label in job["left_out"].items():
        control = mean("control", name)
        others = [other for other in job["left_out"] if other != name]
        shift = np.mean([mean(label, other) - mean("control", other) for other in others], axis=0)
        source = cells[(own == "control") & (line == name)].copy()
        told = answer(model, source, {"perturbation": label})
        true = np.asarray(cells.X[(own == label) & (line == name)])
        found[f"{label} in {name}"] = compare(true, told, control + shift, control)
    return found


QUESTIONS = {"time": leave_time_out, "pairs": leave_pair_out, "line": leave_lines_out}


def ask(job: Job) -> dict[str, Any]:
    """Answer a job's question."""
    return QUESTIONS[job["question"]](job)


def make_jobs(arguments: argparse.Namespace) -> dict[str, Job]:
    """Make all jobs of the questions asked for."""
    jobs: dict[str, Job] = {}
    for seed in range(arguments.seeds):
        base = {"seed": seed, "settings": arguments.settings}
        if "time" in arguments.questions:
            data = str(arguments.data / WORM)
            for left_out, kind in itertools.product(("390-450", "450-510"), ("ordinal", "continuous")):
                job = {**base, "question": "time", "data": data, "bin": left_out, "kind": kind}
                jobs[f"time {left_out} {kind} seed {seed}"] = {**job, "genes": arguments.genes}
        adata = anndata.read_h5ad(arguments.data / PERTURBENCH, backed="r")
        data = str(arguments.data / PERTURBENCH)
        human = adata.obs[["perturbation", "cell_type"]].astype(str)
        in_k562 = set(human.loc[human["cell_type"] == "k562", "perturbation"])
        if "pairs" in arguments.questions:
            for pair in sorted(p for p in in_k562 if "+" in p and set(p.split("+")) <= in_k562):
                jobs[f"pairs {pair} seed {seed}"] = {**base, "question": "pairs", "data": data, "pair": pair}
        if "line" in arguments.questions:
            lines = ("A172", "T98G", "U87MG")
            labels = sorted(set(human.loc[human["cell_type"] == lines[0], "perturbation"]) - {"control"})
            for first in range(len(labels)):
                step = len(labels) // len(lines)
                left_out = {line: labels[(first + i * step) % len(labels)] for i, line in enumerate(lines)}
                job = {**base, "question": "line", "data": data, "left_out": left_out}
                jobs[f"line {first} seed {seed}"] = job
    return jobs


def main() -> None:
    """Run the jobs and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the h5ad files")
    parser.add_argument("--questions", nargs="+", choices=list(QUESTIONS), default=list(QUESTIONS))
    parser.add_argument("--genes", type=int, default=1000, help="panel of the worm")
    add_job_options(parser)
    arguments = parser.parse_args()
    results = run_jobs(ask, make_jobs(arguments), arguments)
    print("| job | what | cells | error, model | trivial | no change | model / trivial |")
    for name, result in results.items():
        for what, each in result.items():
            ratio = each["model"] / each["trivial"] if each["trivial"] > 0 else float("nan")
            shown = " | ".join(f"{each[key]:.2f}" for key in ("model", "trivial", "unchanged"))
            print(f"| {name} | {what} | {each['cells']} | {shown} | {ratio:.2f} |")
    write_result(arguments.out, {"results": json.loads(json.dumps(results))})


if __name__ == "__main__":
    main()
