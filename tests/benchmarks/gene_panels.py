"""Which genes a panel should have: ways to choose them, compared by what the trained models then tell.

Every way chooses as many genes from the same training cells; a model is trained on each panel for each seed. Panels
differ, and so does what can be measured on each alone: all are judged on the same genes and the same held-out cells,

``shared``   the genes that are on every panel: each model predicts all of them;
``union``    the genes that are on any panel;
``file``     all genes of the file.

Of a gene that its panel lacks a model says nothing: its effect is taken for 0, its expression for the mean of the
training cells. ``shared`` asks what a panel costs the genes that all would have had; it favours no panel, but leaves
out what the panels differ by. ``file`` is what a user gets. Beside them: what no model is needed for, the share of the
held-out cells' differential genes (Wilcoxon, Benjamini-Hochberg 5 %, among all genes of the file) and of the square of
their shift (its noise taken off) that the panel has; each stratum's training shift, the ceiling from halves.

    python tests/benchmarks/gene_panels.py kang.h5ad --split kang.split.csv --concept stim --concept donor \\
        --concept cell_type --edge donor:cell_type --do stim=stim --source ctrl --by cell_type --genes 2000 --seeds 3 \\
        --gene ISG15 --gene IFIT1 --jobs 16 --work work --out panels

    python tests/benchmarks/gene_panels.py pbmc68k --do 'bulk_labels=CD14+ Monocyte' --source Dendritic --genes 200 ...

``--judge validation`` (the default) leaves the test cells of the split out altogether and judges on a fifth of the
others: by it a way is chosen. ``--judge test`` judges on the test cells: by it the choice is reported. Without
``--split`` a quarter of the cells, the same for every seed, are the test cells. ``--work`` keeps each training's
predictions: the same command goes on where it was. ``--panels-only`` trains nothing. Writes ``result.json`` and
``result.md`` into a new folder.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, get_args

import anndata
import numpy as np

from causcell import Generator
from causcell._internal.files import new_file, new_folder
from causcell.cells.collection import Cells
from causcell.counterfactual.interventions import parse_do
from causcell.errors import RuntimeUnavailableError
from causcell.evaluation.metrics import (
    differential_genes,
    effect_agreement,
    mean_shift,
    mean_squared_error,
    pearson,
    ranking_score,
    shift_correlation,
)
from causcell.evaluation.report import run_environment
from causcell_export import export
from causcell_export.demo import demo_cells, demo_config
from causcell_training import TrainConfig, fit
from causcell_training.config import GeneSelection, load_config, parse_overrides
from causcell_training.data.cells import prepare
from causcell_training.data.gene_ranking import require_packages
from causcell_training.data.reading import make_unit_preprocessing, read_panel
from causcell_training.data.split import read_split

MIN_CELLS = 8
MEASURES = ("pcc", "spearman", "top_overlap", "size", "norm_ratio", "calibration", "AUC", "relative error")
SETS = ("shared", "union", "file")
Truth = dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Question:
    """What every model is asked: cells, who is held out, and shifts to predict.

    ``expression`` is that of all genes of the file on the log scale, float32 [n x genes]; ``labels`` are those of the
    concept that is intervened on and of the strata, str [n] each; ``source`` cells are asked for
    ``do(concept = target)``.
    """

    cells: anndata.AnnData
    held_out: np.ndarray
    expression: np.ndarray
    labels: tuple[np.ndarray, np.ndarray]
    source: str
    target: str
    concept: str

    def strata(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Held-out source and target rows of each stratum that has enough of both."""
        status, stratum = self.labels
        found = {}
        for name in sorted(set(stratum)):
            here = self.held_out & (stratum == name)
            rows = tuple(np.flatnonzero(here & (status == label)) for label in (self.source, self.target))
            if min(map(len, rows)) >= MIN_CELLS:
                found[name] = (rows[0], rows[1])
        return found


def main() -> None:
    """Parse, train what is missing, judge, write."""
    arguments = parse()
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # of the workers
    question, settings = ask(arguments)
    asked = arguments.selection or get_args(GeneSelection)
    absent = [each for each in asked if not can_choose(each, load_config(overrides=settings))]
    tasks = [(each, seed) for each in asked if each not in absent for seed in range(arguments.seeds)]
    if arguments.panels_only:
        found = {task: {"panel": choose(question, settings, *task)} for task in tasks}
    else:
        arguments.work.mkdir(parents=True, exist_ok=True)
        missing = [task for task in tasks if not place(arguments.work, *task).exists()]
        with ProcessPoolExecutor(max(1, min(arguments.jobs, len(missing))), get_context("spawn")) as pool:
            waiting = {pool.submit(predict, question, settings, *task, arguments.work): task for task in missing}
            for done in as_completed(waiting):
                print("trained", *waiting[done], f"{done.result():.0f} s", flush=True)
        found = {task: dict(np.load(place(arguments.work, *task), allow_pickle=False)) for task in tasks}
    write(arguments, judge(question, found, arguments.gene), absent)


def can_choose(selection: GeneSelection, config: TrainConfig) -> bool:
    """Tell whether the package is there, and the counts, that a way to choose genes takes."""
    with suppress(RuntimeUnavailableError):
        require_packages(selection)
        return selection != "seurat_v3" or config.expression == "counts"
    return False


def write(arguments: argparse.Namespace, result: dict[str, Any], absent: list[str]) -> None:
    """Write the result with the command, and print it."""
    words = (re.sub(r"/\S*/", "", word) for word in sys.argv[1:])  # files by their names alone
    command = " ".join(["python", "tests/benchmarks/gene_panels.py", *words])
    facts = {
        **run_environment(),
        "command": command,
        "judged on": arguments.judge,
        "not run, for want of a package": absent,
    }
    text = describe(result)
    with new_folder(arguments.out) as folder:
        (folder / "result.json").write_text(json.dumps(facts | result, indent=1) + "\n")
        (folder / "result.md").write_text(f"`{command}`\n\n{text}")
    print(text)


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a file, or pbmc68k: scanpy's bundled cells with the demo's settings")
    parser.add_argument("--split")
    parser.add_argument("--judge", choices=("validation", "test"), default="validation")
    parser.add_argument("--concept", action="append", default=[])
    parser.add_argument("--edge", action="append", default=[])
    parser.add_argument("--do", required=True, help="CONCEPT=LABEL")
    parser.add_argument("--source", required=True, help="label of that concept whose cells are intervened on")
    parser.add_argument("--by", help="concept whose labels are the strata; one stratum, if not given")
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--selection", action="append", choices=get_args(GeneSelection), help="all, if not given")
    parser.add_argument("--gene", action="append", default=[], help="gene to look for on the panels; repeat")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--panels-only", action="store_true", help="train nothing: tell what the panels hold")
    parser.add_argument("--work", type=Path, default=Path("gene_panels_work"))
    parser.add_argument("--out", required=True)
    return parser.parse_args()


def ask(arguments: argparse.Namespace) -> tuple[Question, dict[str, Any]]:
    """Settle cells, who is held out, and the settings that all trainings share."""
    settings: dict[str, Any] = {"concept": arguments.concept, "edge": arguments.edge}
    if arguments.data == "pbmc68k":
        cells = demo_cells()
        demo = demo_config()
        settings = {"concept": demo.concept, "edge": demo.edge, "expression": "log1p"}
        settings |= {"model.width": demo.model.width, "model.encoder_width": demo.model.encoder_width}
        settings["optimisation.batch_size"] = demo.optimisation.batch_size
    else:
        cells = anndata.read_h5ad(arguments.data)
    settings |= {"genes": arguments.genes, "optimisation.accelerator": "cpu"} | parse_overrides(arguments.settings)
    held_out = np.random.default_rng(0).random(cells.n_obs) < 0.25
    if arguments.split:
        parts = read_split(arguments.split)
        held_out = np.array([parts[name] in ("test", "report") for name in cells.obs_names])
    if arguments.judge == "validation":
        cells = cells[~held_out].copy()
        held_out = np.random.default_rng(1).random(cells.n_obs) < 0.2
    ((concept, target),) = parse_do([arguments.do]).items()
    status = cells.obs[concept].astype(str).to_numpy()
    stratum = cells.obs[arguments.by].astype(str).to_numpy() if arguments.by else np.full(cells.n_obs, "all")
    expression = read_expression(cells, load_config(overrides=settings))
    question = Question(cells, held_out, expression, (status, stratum), arguments.source, target, concept)
    return question, settings


def read_expression(cells: anndata.AnnData, config: TrainConfig) -> np.ndarray:
    """Read all genes of the file as a model of them would: log scale, float32 [n x genes]."""
    with Cells(cells) as opened:
        genes = opened.genes
        unit = make_unit_preprocessing(genes, config.expression, genes if config.expression == "counts" else [])
        return np.asarray(read_panel(opened, unit).toarray())


def split_of(question: Question) -> dict[str, str]:
    """Part of every cell, as training takes it."""
    names = question.cells.obs_names.astype(str)
    return dict(zip(names, np.where(question.held_out, "test", "train"), strict=True))


def choose(question: Question, settings: dict[str, Any], selection: str, seed: int) -> np.ndarray:
    """The panel that a training would choose."""
    config = load_config(overrides=settings | {"gene_selection": selection, "seed": seed})
    return np.array(prepare(question.cells, config, split_of(question)).preprocessing.genes, dtype=str)


def place(work: Path, selection: str, seed: int) -> Path:
    """File of one training's predictions."""
    return work / f"{selection}-{seed}.npz"


def predict(question: Question, settings: dict[str, Any], selection: str, seed: int, work: Path) -> float:
    """Train, and keep what the model says of the held-out cells; the seconds that training took."""
    config = load_config(overrides=settings | {"gene_selection": selection, "seed": seed})
    cells = question.cells
    test = cells[question.held_out].copy()
    with tempfile.TemporaryDirectory() as folder:
        run = fit(cells, Path(folder) / "run", config=config, split=split_of(question))
        with Generator.open(export(run, Path(folder) / "models"), threads=1) as generator:
            kept: dict[str, Any] = {"panel": np.array(generator.preprocessing.genes, dtype=str)}
            kept["mean estimate"] = np.asarray(generator.reconstruct(test, preset="mean").X)
            read = generator.embed(test).obs
            for name in generator.schema.names:
                truth = test.obs[name]
                right = read[f"{name}_predicted"].astype(str).to_numpy() == truth.astype(str).to_numpy()
                kept[f"read {name}"] = right[truth.notna()].mean()
            for stratum, (source, _) in question.strata().items():
                given = cells[source].copy()
                options: dict[str, Any] = {"preset": "mean", "seed": seed}
                acted = generator.counterfactual(given, {question.concept: question.target}, **options)
                factual = generator.reconstruct(given, **options)
                kept[f"shift {stratum}"] = np.asarray(acted.X - factual.X, dtype=np.float64).mean(axis=0)
    with new_file(place(work, selection, seed), overwrite=True) as staging, staging.open("wb") as file:
        np.savez(file, **kept)
    return float(run.provenance["seconds"])


def judge(question: Question, found: dict[tuple[str, int], dict[str, Any]], followed: list[str]) -> dict[str, Any]:
    """Measure all predictions on the same genes; means and deviations over seeds."""
    genes = question.cells.var_names.astype(str).tolist()
    panels = {task: set(kept["panel"].tolist()) for task, kept in found.items()}
    sets = {
        "shared": np.array([all(gene in panel for panel in panels.values()) for gene in genes]),
        "union": np.array([any(gene in panel for panel in panels.values()) for gene in genes]),
        "file": np.ones(len(genes), dtype=bool),
    }
    truth = real_shifts(question)
    rows: dict[str, list[dict[str, Any]]] = {}
    for (selection, _), kept in found.items():
        on_panel = np.isin(genes, kept["panel"])
        measured: dict[str, Any] = measure_coverage(truth, on_panel)
        measured |= {name: float(value) for name, value in kept.items() if name.startswith("read ")}
        rows.setdefault(selection, []).append(measured)
        if "mean estimate" not in kept:
            continue
        shifts = {stratum: spread_out(kept[f"shift {stratum}"], kept["panel"], genes, 0.0) for stratum in truth}
        average = question.expression[~question.held_out].mean(axis=0)
        estimate = spread_out(kept["mean estimate"], kept["panel"], genes, average)
        real = question.expression[question.held_out]
        for name, chosen in sets.items():
            measured |= {f"{name}: {m}": v for m, v in measure_shifts(shifts, truth, chosen).items()}
            measured[f"{name}: mean estimate PCC"] = pearson(real[:, chosen], estimate[:, chosen])
            measured[f"{name}: mean estimate MSE"] = mean_squared_error(real[:, chosen], estimate[:, chosen])
    trivial = trivial_shifts(question, list(truth))
    for name, shifts in trivial.items():
        on_sets = {f"{s}: {m}": v for s, c in sets.items() for m, v in measure_shifts(shifts, truth, c).items()}
        rows[name] = [on_sets]
    ceiling = {f"{name}: pcc": ceiling_of(question, chosen) for name, chosen in sets.items()}
    rows["noise-free prediction (ceiling)"] = [ceiling]
    first = {selection: panels[selection, 0] for selection, seed in found if seed == 0}
    return {
        "genes judged on": {name: int(chosen.sum()) for name, chosen in sets.items()},
        "held-out cells of each stratum": {name: list(map(len, both)) for name, both in question.strata().items()},
        "differential genes": {name: int(each[2].sum()) for name, each in truth.items()},
        "followed genes on the panel": {
            selection: [gene for gene in followed if gene in panel] for selection, panel in first.items()
        },
        "followed genes that the file lacks": [gene for gene in followed if gene not in set(genes)],
        "genes in common": {a: {b: len(first[a] & first[b]) for b in first} for a in first},
        "measures": {name: summarise(each) for name, each in rows.items()},
    }


def real_shifts(question: Question) -> Truth:
    """Measure every stratum: the held-out cells' shift, its sampling variance, and which genes differ, [genes] each."""
    x = question.expression
    return {
        name: (*mean_shift(x[source], x[target]), differential_genes(x[source], x[target]))
        for name, (source, target) in question.strata().items()
    }


def measure_coverage(truth: Truth, on_panel: np.ndarray) -> dict[str, float]:
    """Share of the differential genes, and of the square of the shift without its noise, that a panel has."""
    found = [d[on_panel].sum() / d.sum() for _, _, d in truth.values() if d.any()]
    squares = [shift**2 - variance for shift, variance, _ in truth.values()]
    covered = {"squared shift on the panel": float(np.mean([each[on_panel].sum() / each.sum() for each in squares]))}
    return covered | ({"differential genes on the panel": float(np.mean(found))} if found else {})


def measure_shifts(shifts: dict[str, np.ndarray], truth: Truth, chosen: np.ndarray) -> dict[str, float]:
    """Measure predicted shifts on some genes: means over strata in which a measure can be taken."""
    found: dict[str, list[float]] = {}
    for stratum, shift in shifts.items():
        real, variance, differ = (each[chosen] for each in truth[stratum])
        measured = effect_agreement(shift[chosen], real, variance=variance)
        measured["AUC"] = ranking_score(np.abs(shift[chosen]), differ)
        true_square = float((real**2 - variance).sum())
        error = float(((shift[chosen] - real) ** 2 - variance).sum())
        measured["relative error"] = error / true_square if true_square > 0 else None
        for name, value in measured.items():
            if value is not None:
                found.setdefault(name, []).append(value)
    return {name: float(np.mean(found[name])) for name in MEASURES if name in found}


def spread_out(values: np.ndarray, panel: np.ndarray, genes: list[str], absent: Any) -> np.ndarray:
    """Values of panel genes [... x panel] as values of all genes [... x genes], ``absent`` for those off the panel."""
    columns = {gene: i for i, gene in enumerate(genes)}
    spread = np.broadcast_to(np.asarray(absent, dtype=np.float64), (*values.shape[:-1], len(genes))).copy()
    spread[..., [columns[gene] for gene in panel.tolist()]] = values
    return spread


def trivial_shifts(question: Question, strata: list[str]) -> dict[str, dict[str, np.ndarray]]:
    """The training cells' own shift on all genes of the file: one for all strata, and each stratum's."""
    status, stratum = question.labels

    def shift(here: np.ndarray) -> np.ndarray:
        rows = [here & ~question.held_out & (status == label) for label in (question.source, question.target)]
        means = [question.expression[each].mean(axis=0, dtype=np.float64) for each in rows]
        return np.asarray(means[1] - means[0])

    everywhere = shift(np.ones(len(status), dtype=bool))
    apart = {name: shift(stratum == name) for name in strata}
    one = dict.fromkeys(strata, everywhere)
    return {"training cells' shift, one for all": one, "training cells' shift, per stratum": apart}


def ceiling_of(question: Question, chosen: np.ndarray) -> float:
    """Pearson of a prediction without noise with the real shift, from halves of the held-out cells."""
    rng, found = np.random.default_rng(0), []
    for both in question.strata().values():
        for _ in range(5):
            parts = [np.array_split(rng.permutation(rows), 2) for rows in both]
            means = [[question.expression[half].mean(axis=0) for half in part] for part in parts]
            halves = [means[1][i] - means[0][i] for i in (0, 1)]
            found.append(shift_correlation(halves[0][chosen], halves[1][chosen]))
    half = max(0.0, float(np.mean(found)))
    return float(np.sqrt(2 * half / (1 + half)))


def summarise(repetitions: list[dict[str, float]]) -> dict[str, list[float]]:
    """Mean, and deviation over seeds where there are several, of every measure."""
    names = dict.fromkeys(name for each in repetitions for name in each)
    values = {name: [each[name] for each in repetitions if name in each] for name in names}
    return {
        name: [round(float(np.mean(v)), 4), *([round(float(np.std(v, ddof=1)), 4)] if len(v) > 1 else [])]
        for name, v in values.items()
    }


def describe(result: dict[str, Any]) -> str:
    """Tables of the measures: what panels hold and labels read, then each set of genes."""
    measures = result["measures"]
    plain = list(dict.fromkeys(name for each in measures.values() for name in each if ": " not in name))
    tables = {"panels, and labels read by the models": plain}
    for name in SETS:
        wanted = [f"{name}: {m}" for m in (*MEASURES, "mean estimate PCC", "mean estimate MSE")]
        tables[f"{name}, {result['genes judged on'][name]} genes"] = wanted
    lines = [f"{name}: {json.dumps(result[name])}" for name in result if name != "measures"]
    for title, columns in tables.items():
        heads = [column.split(": ")[-1] for column in columns]
        shown = {
            row: [" +- ".join(f"{value:.3f}" for value in each.get(column, [])) for column in columns]
            for row, each in measures.items()
        }
        if any(any(cells) for cells in shown.values()):
            lines += ["", f"| {title} | {' | '.join(heads)} |", "|---" * (len(columns) + 1) + "|"]
            lines += [f"| {row} | {' | '.join(cells)} |" for row, cells in shown.items() if any(cells)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
