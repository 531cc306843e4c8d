"""Measures of a system's predictions of a case, taken by the product's own evaluation, in a form that can be kept."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
from cases import Case

from causcell.cells.panel_cells import Reading
from causcell.errors import CausCellWarning
from causcell.evaluation import cases as shifts_of
from causcell.evaluation.data import EvaluationData, gather_evaluation_data
from causcell.evaluation.evaluate import evaluate, tabulate_interventions
from causcell.evaluation.metrics import mean_shift
from causcell.evaluation.prediction_data import Method, open_predictions
from causcell.evaluation.predictions import PredictionReading
from causcell.evaluation.shifts import predict_shifts
from causcell.evaluation.simulator import SCHEMA, effect_error
from causcell.evaluation.table import Table

TESTED, TRAINED_SOURCES = "tested cells", "trained sources"
"""Views: only cells that were not trained on are judged; or the left-out combination from all of its source cells."""

READING = Reading(expression="counts", totals="total", round_counts=True)
DIGITS = 5
MIN_CELLS = 8
"""Source cells that a combination is judged by at least."""

_NO_SHIFT, _OF_NO_SHIFT = 1e-4, {"size", "norm ratio", "squared error", "MMD ratio", "energy ratio"}
"""Length of a predicted shift that is none but for rounding, and the measures that one still has."""


def judge(case: Case, folder: Path) -> dict[str, Any]:
    """Measure the predictions in a folder.

    Returns
    -------
    ``tables`` by view, ``references`` (trivial baselines and replicates of the same tables), ``not answered``,
    ``shifts`` (real and predicted mean shifts over genes, by combination) and ``truth`` (the simulator's).
    """
    files = [folder / name for name in ("mean.h5ad", "sample.h5ad") if (folder / name).exists()]
    if not files:
        return {"tables": {}, "references": {}, "not answered": ["everything: there are no predictions"]}
    parts = case.cells.obs["part"].astype(str)
    method = Method(concepts=case.concepts, edges=case.edges, split=parts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausCellWarning)  # of scales: the facts of the report say them
        evaluation = evaluate(
            case.cells, predictions=files, method=method, totals="total", round_counts=True, scale="counts", maps="none"
        )
        tables = {TESTED: evaluation.tables}
        shifts: list[dict[str, Any]] = []
        if case.cells.obs["source"].any():
            tables[TRAINED_SOURCES], shifts = judge_left_out(case, files, method)
    found: dict[str, Any] = {
        "tables": {view: {_title(t): _rows(t, ("model",)) for t in each} for view, each in tables.items()},
        "references": {
            view: {_title(t): _rows(t, ("trivial", "replicate", "other")) for t in each}
            for view, each in tables.items()
        },
        "not answered": evaluation.facts["not answered"],
        "shifts": shifts,
    }
    if case.truth is not None:
        found["truth"] = dict(compare_with_truth(case, files))
    return found


def judge_left_out(case: Case, files: Sequence[Path], method: Method) -> tuple[list[Table], list[dict[str, Any]]]:
    """Judge the combinations that were left out, from source cells that may have been trained on."""
    with open_predictions(list(files), case.cells, method, READING, PredictionReading()) as predictions:
        part = case.cells.obs["part"].astype(str).to_numpy()
        data = gather_evaluation_data(
            predictions,
            case.cells,
            READING,
            test_rows=np.flatnonzero((part == "test") | case.cells.obs["source"].to_numpy()),
            training_rows=np.flatnonzero(part == "train"),
            rng=np.random.default_rng(0),
        )
        cases = list(_list_left_out(case, data))
        return tabulate_interventions(data, cases, "Interventions"), [_describe(data, each) for each in cases]


def _list_left_out(case: Case, data: EvaluationData) -> Iterator[shifts_of.Case]:
    if not case.held_out:
        yield from (each for each in shifts_of.find_seen_cases(data) if shifts_of.is_unseen(data, each))
    for combination in case.held_out:
        for each in shifts_of.find_unseen_cases(data, combination):
            rows = data.keep_predicted(each.source_rows, each.concept, each.target)
            if len(rows) >= MIN_CELLS:
                yield replace(each, source_rows=rows)


def _describe(data: EvaluationData, case: shifts_of.Case) -> dict[str, Any]:
    """Give the real and the predicted mean shift of a combination, over genes."""
    real = mean_shift(data.expression[case.source_rows], data.expression[case.target_rows])[0]
    codes = {case.concept: case.target, **dict(case.stratum)}
    return {
        "of": shifts_of.format_combination(data.schema, codes),
        "cells": [len(case.source_rows), len(case.target_rows)],
        "real": np.round(real, 3).tolist(),
        "predicted": [np.round(each, 3).tolist() for each in predict_shifts(data, case).values()][0:1],
    }


def compare_with_truth(case: Case, files: Sequence[Path]) -> Iterator[tuple[str, dict[str, float]]]:
    """Give the errors of each intervention's effect on the simulator's new cells: of single cells, of the average.

    Cells that carry the label are left out. A system without an estimate of the cell itself has the cell's own values
    taken off.
    """
    assert case.truth is not None
    world, noise = case.truth
    asked = case.asked
    before = world.labels(noise)
    rows = {path.stem: anndata.read_h5ad(path) for path in files}
    for each in case.interventions:
        ((concept, label),) = each["do"].items()
        moved = before[:, SCHEMA.index(concept)] != SCHEMA[concept].code(label)
        true = world.effect(noise, each["do"])[moved]
        found: dict[str, float] = {}
        for estimate, predicted in rows.items():
            acted = _select(predicted, asked, f"{concept}={label}")
            factual = _select(predicted, asked, "factual")
            if acted is None:
                continue
            own = np.asarray(asked.layers["log1p"].todense()) if factual is None else factual
            effect = (acted - own)[moved].astype(np.float64)
            title = "" if estimate == "mean" else ", samples"
            found[f"error of single cells{title}"] = round(effect_error(effect, true), DIGITS)
            average = effect_error(effect.mean(axis=0)[None], true.mean(axis=0)[None])
            found[f"error of the average{title}"] = round(average, DIGITS)
        yield f"do({concept} = {label})", found


def _select(predicted: anndata.AnnData, asked: anndata.AnnData, intervention: str) -> np.ndarray | None:
    chosen = ((predicted.obs["intervention"] == intervention) & (predicted.obs["draw"] == 0)).to_numpy()
    if not chosen.any():
        return None
    rows = predicted[chosen]
    places = rows.obs["source_cell"].astype(str).tolist()
    return np.asarray(rows.X)[[places.index(name) for name in asked.obs_names]]


def _title(table: Table) -> str:
    """Name a table without what differs from case to case."""
    return table.name.split(" (")[0]


def _rows(table: Table, roles: Sequence[str]) -> dict[str, dict[str, Any]]:
    found = {}
    for row, values in table.rows.items():
        if table.roles.get(row, "other") not in roles:
            continue
        kept = set(values)
        if values.get("norm ratio", (1.0,))[0] < _NO_SHIFT:
            kept &= _OF_NO_SHIFT
        found[row] = {measure: _entry(table, row, measure) for measure in values if measure in kept}
    return found


def _entry(table: Table, row: str, measure: str) -> list[float | None]:
    """Give a value and its score, if it has one."""
    value = float(table.rows[row][measure][0])
    scores = table.scores.get(row, {}).get(measure, ())
    score = scores[0].value if scores else None
    return [_short(value), *([] if score is None else [_short(score)])]


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
