"""Train on labelled cells, export, generate counterfactuals, and hold them against the real cells of a held-out split.

For each cell type the mean shift under an intervention is compared with the real one (Pearson over genes), beside the
shifts of the training cells (one for all, one per type) and the noise ceiling; and the mean estimate of held-out cells
is compared with the cells (PCC, MSE), beside cell-type means and PCA. What export measured of each preset's samples
follows. Normalisation and genes are the model's for all.

    python tests/benchmarks/stimulation.py CELLS.h5ad --split SPLIT.csv --concept stim --concept donor \\
        --concept cell_type --edge donor:cell_type --do stim=stim --source ctrl --by cell_type --seeds 3
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path

import anndata
import numpy as np
from sklearn.decomposition import PCA

from causcell import Generator
from causcell.interventions import parse_do
from causcell.metrics import mean_squared_error, pearson
from causcell_export import export
from causcell_training import TrainConfig, fit
from causcell_training.config import load_config, parse_overrides
from causcell_training.data import TrainingData, prepare


def main() -> None:
    """Parse the command line, run every seed, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--split", required=True)
    parser.add_argument("--concept", action="append", required=True)
    parser.add_argument("--edge", action="append", default=[])
    parser.add_argument("--do", required=True, help="CONCEPT=LABEL")
    parser.add_argument("--source", required=True, help="label of that concept whose cells are intervened on")
    parser.add_argument("--by", required=True, help="concept whose labels are compared one by one")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    arguments = parser.parse_args()
    overrides = parse_overrides(arguments.settings)
    config = load_config(overrides={"concept": arguments.concept, "edge": arguments.edge, **overrides})
    data = prepare(arguments.data, config, arguments.split)
    print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, Python {platform.python_version()}")
    print(f"{Path(arguments.data).name}: {len(data.names)} cells, {data.expression.shape[1]} genes")
    print_baselines(data, arguments)
    with tempfile.TemporaryDirectory() as folder:
        panel = (
            Path(folder) / "panel.txt"
        )  # one panel for all seeds: highly variable genes depend on the cells held out
        panel.write_text("\n".join(data.preprocessing.genes))
        configs = [config.model_copy(update={"seed": seed, "genes": str(panel)}) for seed in range(arguments.seeds)]
        rows = [run_seed(data, arguments, each) for each in configs]
    for row in rows:
        print("  " + "  ".join(f"{name} {value:.3f}" for name, value in row.items()))
    print("mean and deviation over seeds:")
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        print(f"  {name:<28} {values.mean():8.3f} +- {values.std():.3f}")


def parts(data: TrainingData) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Expression and labels of the cells not reported on, and of those that are."""
    report = data.part == "report"
    x = data.expression.toarray()
    return x[~report], data.labels[~report], x[report], data.labels[report]


def type_shifts(x: np.ndarray, labels: np.ndarray, data: TrainingData, arguments: argparse.Namespace) -> np.ndarray:
    """Real mean shift of each label of ``by``, from source to target cells, [labels x G]."""
    ((concept, target),) = parse_do([arguments.do]).items()
    column, by = data.schema.index(concept), data.schema.index(arguments.by)
    codes = [data.schema[concept].code(label) for label in (arguments.source, target)]
    shifts = []
    for label in range(len(data.schema[arguments.by].labels)):
        here = labels[:, by] == label
        source, treated = (x[here & (labels[:, column] == code)].mean(axis=0) for code in codes)
        shifts.append(treated - source)
    return np.stack(shifts)


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson over genes for each row, then the mean."""
    return float(np.mean([np.corrcoef(u, v)[0, 1] for u, v in zip(a, b, strict=True)]))


def print_baselines(data: TrainingData, arguments: argparse.Namespace) -> None:
    """Cell-type means, PCA, and shifts of the training cells."""
    x, labels, y, truth = parts(data)
    by = data.schema.index(arguments.by)
    means = np.stack([x[labels[:, by] == code].mean(axis=0) for code in range(labels[:, by].max() + 1)])
    estimates = {f"{arguments.by} mean": means[truth[:, by]]}
    for size in (32, 128):
        pca = PCA(size, random_state=0).fit(x)
        estimates[f"PCA-{size}"] = np.maximum(pca.inverse_transform(pca.transform(y)), 0)
    for name, estimate in estimates.items():
        print(f"  {name:<28} PCC {pearson(y, estimate):.3f}  MSE {mean_squared_error(y, estimate):.3f}")
    ((concept, target),) = parse_do([arguments.do]).items()
    column = data.schema.index(concept)
    codes = [data.schema[concept].code(label) for label in (arguments.source, target)]
    source, treated = (x[labels[:, column] == code].mean(axis=0) for code in codes)
    real, seen = type_shifts(y, truth, data, arguments), type_shifts(x, labels, data, arguments)
    print(f"  one shift for all            shift PCC {agreement(np.tile(treated - source, (len(real), 1)), real):.3f}")
    print(f"  training shift per type      shift PCC {agreement(seen, real):.3f}")


def run_seed(data: TrainingData, arguments: argparse.Namespace, config: TrainConfig) -> dict[str, float]:
    """Train, export, generate; the measures."""
    ((concept, _),) = parse_do([arguments.do]).items()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        run = fit(arguments.data, Path(folder) / "run", config=config, split=arguments.split)
        seconds = time.perf_counter() - started
        with Generator.open(export(run, Path(folder) / "models")) as generator:
            source = anndata.read_h5ad(arguments.data)
            source = source[source.obs_names.isin(data.names[data.part == "report"])]
            estimate = generator.reconstruct(source, preset="mean")
            control = source[(source.obs[concept] == arguments.source).to_numpy()]
            factual = generator.reconstruct(control, preset="mean")
            counterfactual = generator.counterfactual(
                control, do=parse_do([arguments.do]), seed=config.seed, preset="mean"
            )
            presets = generator.manifest.presets
            told = generator.embed(source).obs
    row = {name: i for i, name in enumerate(data.names)}
    real = data.expression[[row[name] for name in source.obs_names]].toarray()
    by = control.obs[arguments.by].astype(str).to_numpy()
    moved = counterfactual.X - factual.X
    shifts = np.stack([moved[by == label].mean(axis=0) for label in data.schema[arguments.by].labels])
    _, _, y, truth = parts(data)
    measures = {
        "PCC": pearson(real, estimate.X),
        "MSE": mean_squared_error(real, estimate.X),
        "shift PCC": agreement(shifts, type_shifts(y, truth, data, arguments)),
    }
    for name in data.schema.names:
        measures[f"{name} predicted"] = float((told[f"{name}_predicted"].astype(str) == told[name].astype(str)).mean())
    for name, preset in presets.items():
        for measure in ("energy_distance", "correlations", "variance_ratio", "nonzero", "nonzero_mean"):
            measures[f"{name} {measure}"] = (preset.quality or {}).get(measure, np.nan)
            if name == next(iter(presets)) and measure != "variance_ratio":
                measures[f"real {measure}"] = (preset.quality or {}).get(f"{measure}_real", np.nan)
    return measures | {"training seconds": seconds}


if __name__ == "__main__":
    main()
