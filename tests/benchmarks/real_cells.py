"""What a model shows on real cells: three questions, each of which trains, exports, intervenes and compares.

``strata``: the effect of a label within every label of another concept (cell types, patients), on held-out cells.
``unseen``: the same where cells of one stratum with that label were held out of training altogether.
``course``: held-out cells moved along an ordered concept, against the real cells there.

    python tests/benchmarks/real_cells.py strata kang.h5ad --split kang.split.csv --concept stim --concept donor \\
        --concept cell_type --edge donor:cell_type --do stim=stim --source ctrl --by cell_type \\
        --gene ISG15 --gene IFIT1 --out strata

    python tests/benchmarks/real_cells.py unseen kang.h5ad ... --stratum "B cells" --out unseen
    python tests/benchmarks/real_cells.py course worm.h5ad --concept batch --concept time_bin --concept cell_type \\
        --edge batch:time_bin --edge time_bin:cell_type --over time_bin --by cell_type --out course

Each writes ``result.json`` (with the command, versions and hardware) and ``figure.png`` into a folder. What a small
sample recovers of the whole is asked by ``small_samples.py``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import anndata
import numpy as np
from jobs import write_result
from matplotlib.figure import Figure
from trained_models import trained

from causcell.counterfactual.interventions import parse_do
from causcell.evaluation.data import EvaluationData, read_evaluation_data
from causcell.evaluation.metrics import differential_genes, effect_agreement, mean_shift, ranking_score
from causcell.evaluation.shifts import Case, compute_baseline_shifts, predict_shifts
from causcell_training import TrainConfig
from causcell_training.config import load_config, parse_overrides

MIN_CELLS = 8
AVERAGED = ("pcc", "size", "norm_ratio", "calibration")
MODEL, GLOBAL, WITHIN = (
    "model, do",
    "shift of the cells learned from, one for all",
    "shift of the cells learned from, per stratum (where seen)",
)


def main() -> None:
    """Parse, run the question, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", choices=list(QUESTIONS))
    parser.add_argument("data")
    parser.add_argument("--split")
    parser.add_argument("--concept", action="append", required=True)
    parser.add_argument("--edge", action="append", default=[])
    parser.add_argument("--do", help="CONCEPT=LABEL")
    parser.add_argument("--source", help="label of that concept whose cells are intervened on")
    parser.add_argument("--by", required=True, help="concept whose labels are the strata")
    parser.add_argument("--stratum", help="unseen: label of --by whose cells with the target label are held out")
    parser.add_argument("--over", help="course: the ordered concept")
    parser.add_argument("--gene", action="append", default=[], help="gene to follow")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    overrides = {"concept": arguments.concept, "edge": arguments.edge, "seed": arguments.seed}
    config = load_config(overrides=overrides | parse_overrides(arguments.settings))
    cells = anndata.read_h5ad(arguments.data)
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    result = QUESTIONS[arguments.question](cells, config, arguments, figure)
    write_result(arguments.out, result)
    figure.savefig(arguments.out / "figure.png", dpi=90)
    print(json.dumps(result, indent=1))


def stratum_case(
    data: EvaluationData, arguments: argparse.Namespace, stratum: str, *, source_tested: bool = True
) -> Case | None:
    """Cells of one stratum: sources to intervene on, and test cells that carry the target label."""
    schema = data.schema
    ((name, label),) = parse_do([arguments.do]).items()
    concept, by = schema.index(name), schema.index(arguments.by)
    source, target = schema[name].code(arguments.source), schema[name].code(label)
    code = schema[arguments.by].code(stratum)
    here = data.labels[:, by] == code
    tested = np.isin(np.arange(len(here)), data.test_rows)
    rows = [
        np.flatnonzero(here & (data.labels[:, concept] == source) & (tested if source_tested else True)),
        np.flatnonzero(here & (data.labels[:, concept] == target) & tested),
    ]
    return Case(concept, source, target, ((by, code),), *rows) if min(map(len, rows)) >= MIN_CELLS else None


def measured(data: EvaluationData, case: Case, genes: list[str]) -> dict[str, Any]:
    """Agreement of the model's and the trivial shifts with the real one, and where the followed genes stand."""
    source, target = data.expression[case.source_rows], data.expression[case.target_rows]
    real, variance = mean_shift(source, target)
    differ = differential_genes(source, target)
    shifts = {**predict_shifts(data, case), **compute_baseline_shifts(data, case)}
    panel = list(data.genes)
    ranks = {"real": rank_of(real)} | {name: rank_of(shift) for name, shift in shifts.items() if shift.any()}
    followed = {
        gene: {
            "real": round(float(real[panel.index(gene)]), 3),
            "model": round(float(shifts[MODEL][panel.index(gene)]), 3),
            **{f"rank, {name}": int(rank[panel.index(gene)]) for name, rank in ranks.items()},
        }
        for gene in genes
        if gene in panel
    }
    agreement = {
        name: rounded(effect_agreement(shift, real, variance=variance) | {"AUC": ranking_score(np.abs(shift), differ)})
        for name, shift in shifts.items()
        if shift.any()
    }
    counts = {"source cells": len(source), "target cells": len(target), "differential genes": int(differ.sum())}
    absent = [gene for gene in genes if gene not in panel]
    return counts | {"agreement": agreement, "genes": followed, "genes not on the panel": absent}


def rank_of(shift: np.ndarray) -> np.ndarray:
    """Place of every gene from most raised (1) to most lowered, [G]."""
    order = np.argsort(-shift, kind="stable")
    rank = np.empty(len(shift), dtype=np.int64)
    rank[order] = np.arange(1, len(shift) + 1)
    return rank


def averaged(agreements: list[dict[str, Any]]) -> dict[str, float]:
    """Means over the shifts that a measure could be taken of."""
    measures = {m: [each[m] for each in agreements if each[m] is not None] for m in AVERAGED}
    return rounded({m: float(np.mean(values)) for m, values in measures.items() if values})


def rounded(values: dict[str, Any]) -> dict[str, Any]:
    """Floats to four digits."""
    return {name: value if value is None else round(value, 4) for name, value in values.items()}


def strata(
    cells: anndata.AnnData, config: TrainConfig, arguments: argparse.Namespace, figure: Figure
) -> dict[str, Any]:
    """Effects per stratum on held-out cells."""
    if arguments.split is None:
        config = config.model_copy(update={"optimisation": config.optimisation.model_copy(update={"held_out": 0.3})})
    with trained(cells, config, arguments.split) as generator:
        data = read_evaluation_data(generator, cells)
        found = {}
        for label in generator.schema[arguments.by].labels:
            case = stratum_case(data, arguments, label)
            if case is not None:
                found[label] = measured(data, case, arguments.gene)
    draw_agreement(figure, found)
    names = list(next(iter(found.values()))["agreement"])
    average = {name: averaged([each["agreement"][name] for each in found.values()]) for name in names}
    return {"average over strata": average, "strata": found}


def unseen(
    cells: anndata.AnnData, config: TrainConfig, arguments: argparse.Namespace, figure: Figure
) -> dict[str, Any]:
    """The effect in a stratum whose target cells were never trained on."""
    ((name, label),) = parse_do([arguments.do]).items()
    held_out = ((cells.obs[name] == label) & (cells.obs[arguments.by] == arguments.stratum)).to_numpy()
    split = dict(zip(cells.obs_names, np.where(held_out, "test", "train"), strict=True))
    with trained(cells, config, split) as generator:
        data = read_evaluation_data(
            generator, cells, test_rows=np.flatnonzero(held_out), training_rows=np.flatnonzero(~held_out)
        )
        case = stratum_case(data, arguments, arguments.stratum, source_tested=False)
        assert case is not None, "too few cells"
        result = measured(data, case, arguments.gene)
        shift = predict_shifts(data, case)[MODEL]
        real = data.expression[case.target_rows].mean(axis=0) - data.expression[case.source_rows].mean(axis=0)
        genes = np.array(generator.preprocessing.genes)
    ax = figure.subplots()
    ax.scatter(real, shift, s=5, color="0.6")
    for i in np.argsort(-np.abs(real))[:12]:
        ax.annotate(genes[i], (real[i], shift[i]), fontsize=7)
    ax.axline((0, 0), slope=1, color="0.8", linewidth=0.8, zorder=0)
    ax.set(
        xlabel="real shift (never trained on)", ylabel="model's shift", title=f"do({arguments.do}), {arguments.stratum}"
    )
    return {"held out": f"{arguments.do}, {arguments.by}={arguments.stratum}", **result}


def course(
    cells: anndata.AnnData, config: TrainConfig, arguments: argparse.Namespace, figure: Figure
) -> dict[str, Any]:
    """Held-out cells set to every label of an ordered concept, within strata, against the real cells there."""
    config = config.model_copy(update={"optimisation": config.optimisation.model_copy(update={"held_out": 0.3})})
    with trained(cells, config) as generator:
        data = read_evaluation_data(generator, cells)
        schema = data.schema
        over, by = schema.index(arguments.over), schema.index(arguments.by)
        found = []
        for stratum, label in enumerate(schema[arguments.by].labels):
            here = data.labels[:, by] == stratum
            counts = np.bincount(
                data.test_labels[data.test_labels[:, by] == stratum, over], minlength=len(schema[arguments.over].labels)
            )
            if counts.max() < MIN_CELLS:
                continue
            source = int(counts.argmax())
            rows = np.intersect1d(data.test_rows, np.flatnonzero(here & (data.labels[:, over] == source)))
            for target in np.flatnonzero(counts >= MIN_CELLS):
                if target != source:
                    there = np.intersect1d(data.test_rows, np.flatnonzero(here & (data.labels[:, over] == target)))
                    case = Case(over, source, int(target), ((by, stratum),), rows, there)
                    described = {
                        arguments.by: label,
                        "from": schema[arguments.over].labels[source],
                        "to": schema[arguments.over].labels[target],
                    }
                    found.append(described | measured(data, case, arguments.gene))
    draw_agreement(figure, {f"{each[arguments.by]} {each['from']} to {each['to']}": each for each in found})
    names = sorted({name for each in found for name in each["agreement"]})
    average = {
        name: averaged([each["agreement"][name] for each in found if name in each["agreement"]]) for name in names
    }
    return {"average over shifts": average, "shifts": found}


def draw_agreement(figure: Figure, found: dict[str, dict[str, Any]]) -> None:
    """Pearson of every shift: the model, and the trivial shifts."""
    ax = figure.subplots()
    places = np.arange(len(found))
    for i, (name, colour) in enumerate(((MODEL, "C0"), ("model, isolated", "C2"), (GLOBAL, "0.6"), (WITHIN, "0.8"))):
        heights = [each["agreement"].get(name, {}).get("pcc", np.nan) for each in found.values()]
        ax.bar(places + 0.2 * i, heights, width=0.2, label=name, color=colour)
    ax.set_xticks(places + 0.3, list(found), rotation=30, ha="right", fontsize=7)
    ax.set_ylabel("Pearson with the real shift")
    figure.legend(loc="outside lower center", ncols=2, fontsize=7, frameon=False)


QUESTIONS = {"strata": strata, "unseen": unseen, "course": course}


if __name__ == "__main__":
    main()
