"""Effects on cells that were not trained on, by setting: Kang's seen types, and the combination that is left out.

    python tests/benchmarks/held_out_effects.py --data DATA --out build/effects --seeds 3 --variant before: \
        --variant head:optimisation.head_decay=4

The case is ``kang`` of `peers/cases.py`. In seen types, do(stim) either way is asked of all cells that were not trained
on (validation cells among them) and held against those of the other label, averaged over types; noise is taken off
(`causcell.evaluation.metrics`). Errors of levels: of the mean factual, and the mean counterfactual, against the mean of
the real cells that they stand for, over the squared effect. Unseen: do(stim=stim) of all control B cells. Draws: energy
distance in the 50 first principal components of the tested cells.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from jobs import Job, add_job_options, run_jobs, write_result

sys.path.append(str(Path(__file__).parent / "peers"))

from cases import Case, make_case

from causcell import Generator
from causcell.errors import CausCellWarning
from causcell.evaluation.distances import energy_distance
from causcell.evaluation.metrics import (
    mean_shift,
    shared_noise,
    shift_correlation,
    shift_error,
    shift_size,
    squared_size,
)
from causcell_export import export
from causcell_training import fit
from causcell_training.config import load_config, parse_overrides

COMPONENTS = 50


def train(case: Case, job: Job, folder: Path) -> Path:
    """Train and export a model of the case under a job's settings."""
    cells = case.training
    settings = {
        "concept": list(case.concepts),
        "edge": list(case.edges),
        "genes": "all",
        "totals": "total",
        "seed": job["seed"],
        **parse_overrides([*job["settings"], *job["variant"]]),
    }
    part = np.where(cells.obs["validation"], "validation", "train")
    split = dict(zip(cells.obs_names, part, strict=True))
    return export(fit(cells, folder / "run", config=load_config(overrides=settings), split=split), folder / "models")


def measure(case: Case, generator: Generator) -> dict[str, float]:
    """Measure effects in seen types and on the unseen one, and draws."""
    cells, obs = case.cells, case.cells.obs
    x = np.asarray(cells.layers["log1p"].todense(), dtype=np.float64)
    part, stim, of = (obs[name].astype(str).to_numpy() for name in ("part", "stim", "cell_type"))
    unseen = (of == "B cells") & (stim == "stim")

    def predict(rows: np.ndarray, do: dict[str, str] | None, preset: str = "mean") -> np.ndarray:
        found = generator.counterfactual(cells[rows], do, totals="total", preset=preset)
        return np.asarray(found.X, dtype=np.float64)

    seen: dict[str, list[float]] = {}
    for name, (label, other) in ((n, way) for n in np.unique(of) for way in (("ctrl", "stim"), ("stim", "ctrl"))):
        source, target = (np.flatnonzero((part != "train") & (of == name) & (stim == each)) for each in (label, other))
        if name == "B cells" or min(len(source), len(target)) < 2:
            continue
        for key, value in measure_shift(x, source, target, predict(source, None), predict(source, {"stim": other})):
            seen.setdefault(key, []).append(value)
    found = {f"seen types: {key}": float(np.mean(values)) for key, values in seen.items()}
    source, target = np.flatnonzero((of == "B cells") & (stim == "ctrl")), np.flatnonzero(unseen)
    shift = measure_shift(x, source, target, predict(source, None), predict(source, {"stim": "stim"}))
    found |= {f"unseen B cells: {key}": value for key, value in shift if not key.startswith("level")}
    tested = np.flatnonzero((part == "test") & ~unseen)
    real, drawn = x[tested], predict(tested, None, "draw")
    axes = np.linalg.svd(real - real.mean(axis=0), full_matrices=False)[2][:COMPONENTS]
    found["draws: energy distance"] = energy_distance(
        (drawn - real.mean(axis=0)) @ axes.T, (real - real.mean(axis=0)) @ axes.T
    )
    return found | {"mean: MSE": float(((predict(tested, None) - real) ** 2).mean())}


def measure_shift(
    x: np.ndarray, source: np.ndarray, target: np.ndarray, factual: np.ndarray, acted: np.ndarray
) -> list[tuple[str, float]]:
    """Measure a predicted shift, and the levels that it is the difference of."""
    shifts, (real, variance) = acted - factual, mean_shift(x[source], x[target])
    square, shared = squared_size(real, variance), shared_noise(shifts, x[source])
    assert square is not None, "the real effect is not told from its noise"
    predicted = shifts.mean(axis=0)
    off, noise = factual - x[source], [each.var(axis=0, ddof=1).sum() / len(each) for each in (acted, x[target])]
    levels = {
        "factual": (off.mean(axis=0) ** 2).sum() - off.var(axis=0, ddof=1).sum() / len(off),
        "counterfactual": ((acted.mean(axis=0) - x[target].mean(axis=0)) ** 2).sum() - sum(noise),
    }
    return [
        ("Pearson", shift_correlation(predicted, real, shared)),
        ("size", shift_size(predicted, real, variance, shared) or np.nan),
        ("squared error", shift_error(predicted, real, variance, shared) or np.nan),
        *((f"level, {name}", float(value / square)) for name, value in levels.items()),
    ]


def ask(job: Job) -> dict[str, Any]:
    """Train, and measure."""
    case = make_case("kang", Path(job["data"]), job["seed"])
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", CausCellWarning)  # of the combination that is left out: meant
        with Generator.open(train(case, job, Path(folder)), threads=1) as generator:
            return measure(case, generator)


def main() -> None:
    """Run the jobs and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the h5ad files")
    parser.add_argument("--variant", action="append", required=True, help="NAME:SECTION.KEY=VALUE,...")
    add_job_options(parser)
    arguments = parser.parse_args()
    jobs: dict[str, Job] = {
        f"{name} seed {seed}": {
            "variant": [each for each in settings.split(",") if each],
            "seed": seed,
            "data": str(arguments.data),
            "settings": arguments.settings,
        }
        for name, _, settings in (variant.partition(":") for variant in arguments.variant)
        for seed in range(arguments.seeds)
    }
    results = run_jobs(ask, jobs, arguments)
    for name, result in results.items():
        print(name, *(f"{key} {value:.3f}" for key, value in result.items()), sep="\n  ")
    write_result(arguments.out, {"results": results})


if __name__ == "__main__":
    main()
