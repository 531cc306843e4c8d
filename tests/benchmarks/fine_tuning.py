"""Training from a finished run on Kang's cells: what it takes, what old labels lose and new ones gain.

Two cases: the model was trained without two donors, or without one cell type, and then learns them from their cells
alone (``fit(..., start_from=run)``). Beside it stand the model before, and one trained from nothing on all cells, of
the same panel. Times are CPU seconds of this process on one thread, reading and writing included.

    python tests/benchmarks/fine_tuning.py kang.h5ad kang.split.csv --seeds 2 --out fine_tuning
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import torch
from jobs import Job, add_job_options, run_jobs
from trained_models import KANG_CONCEPTS, KANG_SETTINGS

from causcell.cells.panel import PanelReader
from causcell.evaluation.distances import energy_distance
from causcell.evaluation.metrics import mean_shift, shift_correlation, shift_size
from causcell_training import Run, TrainConfig, fit
from causcell_training.config import load_config, parse_overrides
from causcell_training.descent import draw_cells
from causcell_training.run_folder import is_finished

NEW = {"donors": ("donor", ("D1256", "D1488")), "cell type": ("cell_type", ("B cells",))}
"""Labels that the model has not seen, by case: concept and labels."""

LEAST = 16
"""Cells of a type that an energy distance or a shift is taken of."""


def main() -> None:
    """Train and measure every case and seed, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("split")
    parser.add_argument("--fine", action="append", default=[], help="KEY=VALUE of the trainings that start from a run")
    add_job_options(parser)
    arguments = parser.parse_args()
    common = {"data": arguments.data, "split": arguments.split, "settings": arguments.settings, "fine": arguments.fine}
    jobs = {
        f"{case}, seed {seed}": common | {"case": case, "seed": seed, "out": str(arguments.out)}
        for seed in range(arguments.seeds)
        for case in NEW
    }
    results = run_jobs(measure_case, jobs, arguments)
    for case in NEW:
        rows = [result for name, result in results.items() if name.startswith(case)]
        print(f"\n{case}\n{_table(rows)}")


def _table(results: list[dict[str, dict[str, float]]]) -> str:
    """Markdown of means over seeds, and their range where there are several: a model a column."""
    models = list(results[0])
    measures = dict.fromkeys(measure for result in results for model in models for measure in result[model])
    lines = [f"| | {' | '.join(models)} |", f"|---|{'---|' * len(models)}"]
    for measure in measures:
        cells = []
        for model in models:
            values = [result[model][measure] for result in results]
            text = f"{np.mean(values):.4g}"
            cells.append(text if len(values) == 1 else f"{text} ({min(values):.4g} to {max(values):.4g})")
        lines.append(f"| {measure} | {' | '.join(cells)} |")
    return "\n".join(lines)


def measure_case(job: Job) -> dict[str, dict[str, float]]:
    """Measures of the model before, after, and trained from nothing, by name."""
    cells = anndata.read_h5ad(job["data"])
    concept, labels = NEW[job["case"]]
    new = cells.obs[concept].isin(labels).to_numpy()
    tested = (pd.read_csv(job["split"], index_col=0).iloc[:, 0] == "test").reindex(cells.obs_names).to_numpy()
    settings = KANG_SETTINGS | parse_overrides(job["settings"]) | {"seed": job["seed"]}
    folder = Path(job["out"]) / f"{job['case']}-{job['seed']}".replace(" ", "_")
    folder.mkdir(parents=True, exist_ok=True)

    def train(name: str, chosen: np.ndarray, config: TrainConfig, **options: Any) -> Run:
        """Train, or take the run that is there."""
        if not is_finished(folder / name):
            started = time.process_time()
            fit(cells[chosen].copy(), folder / name, split=job["split"], config=config, overwrite=True, **options)
            (folder / f"{name}.seconds").write_text(str(time.process_time() - started))
        return Run.load(folder / name)

    before = train("before", ~new, load_config(overrides=settings))
    (folder / "panel.txt").write_text("\n".join(before.model.preprocessing.genes) + "\n")
    full = train("full", new | ~new, load_config(overrides=settings | {"genes": str(folder / "panel.txt")}))
    fine = load_config(overrides={"seed": job["seed"], **parse_overrides(job["fine"])})
    shutil.rmtree(folder / "after", ignore_errors=True)
    after = train("after", new, fine, start_from=before)
    found = {}
    for name, run in (("before", before), ("after", after), ("full", full)):
        found[name] = {
            "CPU seconds": float((folder / f"{name}.seconds").read_text()),
            "steps": run.provenance["steps"],
            **{f"old: {key}": value for key, value in judge(run, cells, ~new, tested, before).items()},
            **{f"new: {key}": value for key, value in judge(run, cells, new, tested, before).items()},
        }
    return found


@torch.no_grad()
def judge(run: Run, cells: anndata.AnnData, chosen: np.ndarray, tested: np.ndarray, before: Run) -> dict[str, float]:
    """Measures of some cells: their test cells, and do(stim=stim) of all of them."""
    model = run.model
    reader = PanelReader(model.preprocessing, list(cells.var_names))
    expression = reader.read(cells.X, cells.obs_names.to_numpy(dtype=object))
    obs = cells.obs[list(KANG_CONCEPTS)].astype(object)
    for concept in model.schema.concepts:
        obs.loc[~obs[concept.name].isin(concept.labels), concept.name] = np.nan
    codes = model.schema.encode(obs)
    types = cells.obs["cell_type"].cat.codes.to_numpy()
    rows = np.flatnonzero(chosen & tested)
    x, y = torch.from_numpy(expression[rows]), torch.from_numpy(codes[rows]).long()
    exogenous = model.encode(x)[0]
    found = {}
    told = model.label_logits(model.scm(exogenous))
    for i, (concept, known) in enumerate(zip(model.schema.concepts, before.model.schema.concepts, strict=True)):
        found[f"{concept.name} read"] = float((told[i].argmax(dim=1) == y[:, i]).float().mean())
        among_old = told[i][:, : len(known.labels)].argmax(dim=1)
        found[f"{concept.name} read among old labels"] = float((among_old == y[:, i]).float().mean())
    endogenous = model.scm(model.inform(exogenous, y))
    found["MSE of the mean"] = float(((model.mean_estimate(endogenous) - x) ** 2).mean())
    draws = draw_cells(model, endogenous, np.random.default_rng(1)).numpy()
    groups = [np.flatnonzero(types[rows] == code) for code in np.unique(types[rows])]
    groups = [group for group in groups if len(group) >= LEAST]
    distances = [energy_distance(draws[group], expression[rows][group]) for group in groups]
    found["energy distance of a draw"] = float(np.average(distances, weights=[len(group) for group in groups]))
    stimulated = (cells.obs["stim"] == "stim").to_numpy()
    return found | judge_stimulation(run, expression, codes, types, np.flatnonzero(chosen), stimulated)


def judge_stimulation(
    run: Run, expression: np.ndarray, codes: np.ndarray, types: np.ndarray, rows: np.ndarray, stimulated: np.ndarray
) -> dict[str, float]:
    """Pearson and size of do(stim=stim), mean over cell types."""
    model, rng = run.model, np.random.default_rng(0)
    concept = model.schema.index("stim")
    carriers = run.reference.labels[:, concept] == model.schema["stim"].code("stim")
    references = model.scm(torch.from_numpy(run.reference.exogenous[carriers]))[:, concept]
    correlations, sizes = [], []
    for code in np.unique(types[rows]):
        of_type = rows[types[rows] == code]
        target, source = of_type[stimulated[of_type]], of_type[~stimulated[of_type]]
        if min(len(source), len(target)) < LEAST:
            continue
        exogenous = model.encode(torch.from_numpy(expression[source]))[0]
        factual = model.scm(model.inform(exogenous, torch.from_numpy(codes[source]).long()))
        changed = factual.clone()
        changed[:, concept] = references[rng.integers(len(references), size=len(source))]
        shift = (model.mean_estimate(changed) - model.mean_estimate(factual)).mean(dim=0).numpy()
        real, variance = mean_shift(expression[source], expression[target])
        correlations.append(shift_correlation(shift, real))
        size = shift_size(shift, real, variance)
        sizes += [] if size is None else [size]
    return {"do(stim) Pearson": float(np.mean(correlations)), "do(stim) size": float(np.mean(sizes))}


if __name__ == "__main__":
    main()
