"""Train, export and judge variants of the settings on the same cells, over several seeds.

Every variant and seed is judged on the validation cells, to choose by, and on the test cells, to report on: effects
within strata (and of a combination that was held out of training), counterfactual cells against real target cells,
labels read where they should be and where they should not, and the quality of the presets that export measured.

    python tests/benchmarks/variants.py kang.h5ad --split kang.split.csv --concept stim --concept donor \\
        --concept cell_type --edge donor:cell_type --seed 0 --seed 1 --seed 2 --out variants \\
        --variant default: --variant expression:model.abduction=expression,objective.independence_cells=0

    python tests/benchmarks/variants.py kang.h5ad ... --hold-out "stim=stim,cell_type=B cells" --out unseen

Results are kept in ``--out``, a JSON file a variant and seed: a rerun goes on where it was, and runs of other seeds may
go on beside it. ``--models`` keeps the repositories too, so that ``causcell bench`` can time them. ``pbmc68k`` in place
of a file takes scanpy's bundled cells, with the demo's settings and three tenths held out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import anndata
import numpy as np

from causcell.counterfactual.interventions import parse_do
from causcell.evaluation.data import EvaluationData, read_evaluation_data
from causcell.evaluation.distances import energy_distance
from causcell.evaluation.embeddings import tabulate_own_labels
from causcell.evaluation.leakage import tabulate_leakage_within
from causcell.evaluation.metrics import mean_shift, mean_squared_error, pearson, squared_size
from causcell.evaluation.report import run_environment
from causcell.evaluation.shifts import (
    Case,
    compute_baseline_shifts,
    find_seen_cases,
    find_unseen_cases,
    predict_shifts,
    tabulate_effects,
)
from causcell.generator import Generator
from causcell_export import export
from causcell_export.demo import demo_cells, demo_config
from causcell_training import Run, fit
from causcell_training.config import load_config, parse_overrides
from causcell_training.data.split import PART, TEST, VALIDATION

QUALITY = ("energy_distance", "correlations", "variance_ratio", "nonzero", "nonzero_mean", "pcc", "mse")
MOST_CELLS = 512


def main() -> None:
    """Parse the command line, judge what is missing, print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--split")
    parser.add_argument("--concept", action="append", default=[])
    parser.add_argument("--edge", action="append", default=[])
    parser.add_argument("--hold-out", help="CONCEPT=LABEL,CONCEPT=LABEL whose cells are not trained on")
    parser.add_argument("--seed", type=int, action="append", default=[])
    parser.add_argument("--variant", action="append", required=True, help="NAME:SECTION.KEY=VALUE,...")
    parser.add_argument("--set", action="append", default=[], dest="settings", help="of all variants")
    parser.add_argument("--models", type=Path, help="folder to keep repositories in")
    parser.add_argument("--out", required=True, type=Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for variant in arguments.variant:
        name, _, settings = variant.partition(":")
        results = []
        for seed in arguments.seed or [0]:
            path = arguments.out / f"{name}-{seed}.json"
            if not path.exists():
                overrides = parse_overrides([*arguments.settings, *(each for each in settings.split(",") if each)])
                path.write_text(json.dumps(judge(arguments, name, overrides, seed), indent=1) + "\n")
            results.append(json.loads(path.read_text()))
        print_summary(f"{name} ({settings or 'defaults'})", results)


def judge(arguments: argparse.Namespace, name: str, overrides: dict[str, Any], seed: int) -> dict[str, Any]:
    """Train a variant with one seed, and judge it on both held-out parts."""
    bundled = arguments.data == "pbmc68k"
    cells = demo_cells() if bundled else anndata.read_h5ad(arguments.data)
    common = demo_config().model_dump(exclude_unset=True) | {"optimisation": {"batch_size": 64, "held_out": 0.3}}
    common = common if bundled else {"concept": arguments.concept, "edge": arguments.edge}
    config = load_config(overrides={**_flatten(common), **overrides, "seed": seed})
    held_out = parse_do(arguments.hold_out.split(",")) if arguments.hold_out else {}
    split: Any = arguments.split
    if held_out:
        carried = np.logical_and.reduce([cells.obs[each].astype(str) == label for each, label in held_out.items()])
        split = dict(zip(cells.obs_names, np.where(carried, "test", "train"), strict=True))
    with tempfile.TemporaryDirectory() as scratch:
        kept = Path(scratch) if arguments.models is None else arguments.models
        run = fit(cells, kept / f"{name}-{seed}-run", config=config, split=split)
        with Generator.open(export(run, kept / f"{name}-{seed}")) as generator:
            manifest = generator.manifest
            parts = {part: dict(judge_part(generator, cells, run, part, held_out)) for part in (VALIDATION, TEST)}
    quality = {preset: info.quality for preset, info in manifest.presets.items()}
    facts = {"variant": name, "seed": seed, "settings": overrides, "default preset": manifest.default_preset}
    training = {each: manifest.provenance[each] for each in ("seconds", "epochs", "device")}
    return run_environment() | facts | {"training": training, "quality of presets": quality, **parts}


def judge_part(
    generator: Generator, cells: anndata.AnnData, run: Run, part: str, held_out: Mapping[str, str]
) -> Iterator[tuple[str, Any]]:
    """Give measures of one held-out part, by name."""
    parts = run.held_out().obs[PART]
    rows = {each: np.flatnonzero(cells.obs_names.isin(parts.index[parts == each])) for each in (VALIDATION, TEST)}
    training = np.setdiff1d(np.arange(cells.n_obs), np.concatenate(list(rows.values())))
    if len(rows[part]) < 16 or (held_out and part != TEST):
        return
    data = read_evaluation_data(generator, cells, test_rows=rows[part], training_rows=training)
    cases = find_unseen_cases(data, held_out) if held_out else find_seen_cases(data)
    for table in tabulate_effects(data, cases, "Interventions"):
        yield table.name.rsplit(" (", 1)[0], _means(table.rows)
    yield "shifts", [describe_case(data, case) for case in cases]
    if not held_out:
        yield "labels", _means(tabulate_own_labels(data).rows)
        yield "leakage", _means(tabulate_leakage_within(data).rows)
    hidden = data.cells[data.test_rows].copy()
    for concept in generator.schema.names:
        hidden.obs[concept] = np.nan
    estimates = {"mean": data.mean_estimate, "mean, labels not told": generator.reconstruct(hidden, preset="mean").X}
    for each, estimate in estimates.items():
        real = data.test_expression
        yield each, {"pcc": pearson(real, estimate), "mse": mean_squared_error(real, estimate)}


def describe_case(data: EvaluationData, case: Case) -> dict[str, Any]:
    """Squared error of the predicted shift over the true shift's size, and counterfactual against real cells."""
    concept, rng = data.schema.concepts[case.concept], np.random.default_rng(0)
    source, target = (
        np.sort(rng.choice(rows, min(len(rows), MOST_CELLS), replace=False))
        for rows in (case.source_rows, case.target_rows)
    )
    real, variance = mean_shift(data.expression[case.source_rows], data.expression[case.target_rows])
    size = squared_size(real, variance)
    shifts = {"model": predict_shifts(data, case)["model, do"], **compute_baseline_shifts(data, case)}
    do = {concept.name: concept.labels[case.target]}
    made = data.predictor.predict(data.cells[source], do, estimate="sample")
    return {
        "do": f"{concept.name}={concept.labels[case.target]}",
        "from": concept.labels[case.source],
        "stratum": [data.schema.concepts[i].labels[code] for i, code in case.stratum],
        "cells": [len(case.source_rows), len(case.target_rows)],
        "squared error": {
            each: float((np.square(shift - real) - variance).sum() / size) if size else None
            for each, shift in shifts.items()
        },
        "energy distance to the real target cells": energy_distance(made, data.expression[target]),
        "that of the source cells": energy_distance(data.expression[source], data.expression[target]),
    }


def print_summary(title: str, results: list[dict[str, Any]]) -> None:
    """Print means and spreads over seeds, of both parts."""
    print(f"\n{title}, {np.mean([each['training']['seconds'] for each in results]):.0f} s to train", flush=True)
    for part in (VALIDATION, TEST):
        found = [each[part] for each in results if each.get(part)]
        for table in found[0] if found else ():
            if table.startswith("Interventions"):
                rows = [each[table]["model, do"] for each in found if table in each]
                _print_row(f"{part}, {table}", {m: [row[m] for row in rows if m in row] for m in rows[0]})
                errors = [
                    _median([c["squared error"]["model"] for c in each["shifts"] if _is_of(c, table)]) for each in found
                ]
                distances = [
                    np.mean([c["energy distance to the real target cells"] for c in each["shifts"] if _is_of(c, table)])
                    for each in found
                ]
                _print_row("", {"squared error": errors, "energy distance": distances})
            elif table.startswith("mean"):
                _print_row(f"{part}, {table}", {m: [each[table][m] for each in found] for m in found[0][table]})
            elif table == "labels":
                own = [row for row in found[0][table] if row.endswith("own reading")]
                _print_row(f"{part}, {table}", {row: [each[table][row]["accuracy"] for each in found] for row in own})
            elif table == "leakage":
                for row, measures in found[0][table].items():
                    told = {m: [e[table][row][m] for e in found if row in e[table]] for m in measures}
                    _print_row(row, {m: told[m] for m in measures if not m.startswith(("cells", "groups", "most"))})
    for preset, quality in results[0]["quality of presets"].items():
        if quality:
            rows = [each["quality of presets"][preset] for each in results]
            _print_row(f"test, {preset}", {m: [row[m] for row in rows] for m in QUALITY if m in quality})


def _median(values: list[float | None]) -> float:
    return float(np.median([each for each in values if each is not None] or [np.nan]))


def _is_of(case: dict[str, Any], table: str) -> bool:
    return bool(table.endswith(f": {case['do'].partition('=')[0]}"))


def _print_row(name: str, values: Mapping[str, list[float]]) -> None:
    columns = [f"{m} {np.mean(v):.3f}" + (f"+-{np.std(v):.3f}" if len(v) > 1 else "") for m, v in values.items() if v]
    print(f"  {name:<42}" + "  ".join(columns), flush=True)


def _means(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    return {
        name: {m: float(np.mean(values)) for m, values in row.items() if None not in values}
        for name, row in rows.items()
    }


def _flatten(settings: dict[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in settings.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


if __name__ == "__main__":
    main()
