"""Self-test of measures of cells: cheats' target cells, beside a real half, against the other half of the real ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from causcell.concepts import UNLABELLED
from causcell.evaluation.cases import Case
from causcell.evaluation.data import EvaluationData
from causcell.evaluation.distances import median_distance
from causcell.evaluation.halves import CHEATS, HALF, RESPONSE, cheat_cells
from causcell.evaluation.registry import Metric, registered_metrics
from causcell.evaluation.scores import Role, distance_from_best
from causcell.evaluation.self_test import NAME, name_cheats
from causcell.evaluation.table import SELF_TEST, Table

_MOST_CASES = 4
_MOST_CELLS = 64
_SPLITS = 3


def tabulate_cell_self_test(data: EvaluationData, cases: Sequence[Case], *, seed: int = 0) -> Table:
    """Measure the cells of cheats: of the four cases of most cells, at most 64 cells of a half.

    Parameters
    ----------
    data
        The cells.
    cases
        Source and target cells; see `causcell.evaluation.cases`.
    seed
        Of the choice and the halving of cells.

    Returns
    -------
    A table with the real half and the cheats of `causcell.evaluation.halves.cheat_cells`, and the mean of the target
    label's cells among those learned from (the mean response); ``distrusted`` names the measures that a cheat wins.
    Without a case it is empty.
    """
    rng = np.random.default_rng((seed, 8))
    largest = sorted(cases, key=lambda case: -min(len(case.source_rows), len(case.target_rows)))[:_MOST_CASES]
    metrics = registered_metrics("cells", "distribution", "label", "summary")
    values: dict[str, dict[str, list[list[float | None]]]] = {}
    distances: dict[str, dict[str, list[list[float]]]] = {}
    for case in largest:
        for into in (values, distances):
            for row in (HALF, *CHEATS):
                for metric in metrics:
                    into.setdefault(row, {}).setdefault(metric.title, []).append([])
        for _ in range(_SPLITS):
            source, target, other = _halve(data, case, rng)
            generated = {HALF: target, **cheat_cells(source, target, rng)}
            response = _mean_of_label(data, case)
            if response is not None:
                generated[RESPONSE] = np.tile(response, (len(target), 1))
            bandwidth = median_distance(other)
            for row in (HALF, *CHEATS):
                for metric in metrics:
                    value = _measure(metric, other, generated[row], bandwidth) if row in generated else None
                    real = _measure(metric, other, other, bandwidth) if metric.better == "real" else None
                    values[row][metric.title][-1].append(value)
                    distances[row][metric.title][-1].append(
                        np.nan if value is None else distance_from_best(value, metric.better, real)
                    )
    roles: dict[str, Role] = {HALF: "replicate", **dict.fromkeys(CHEATS, "cheat")}
    distrusted = {}
    for metric in metrics if largest else ():
        found = {row: np.array(each[metric.title]).T for row, each in distances.items()}
        winners = name_cheats([found.pop(HALF)], found)
        if winners:
            distrusted[metric.title] = winners
    return Table.of(
        f"{NAME}: cells of one label",
        {row: {title: _average(each) for title, each in found.items()} for row, found in values.items()},
        interpretation="What cheats reach, beside a real half, held against the other half of the real target cells: "
        "source cells pasted, the mean of the target label's cells, cells under permuted labels, cells moved on by the "
        "effect once more, cells whose distance from their mean is doubled. A measure that ranks one of them above the "
        "real half is not to be trusted on these data. Measures of matched cells take cells in any order here.",
        limitations="Whether a measure would be won by a cheat that is not tried here.",
        roles=roles,
        distrusted=distrusted,
        kind=SELF_TEST,
    )


def _halve(data: EvaluationData, case: Case, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Choose source cells, one half of the target cells, and as many of the other half, [n x G] each."""
    target = rng.permutation(case.target_rows)
    count = min(_MOST_CELLS, len(target) // 2)
    source = rng.permutation(case.source_rows)[:_MOST_CELLS]
    return data.expression[source], data.expression[target[:count]], data.expression[target[count : 2 * count]]


def _mean_of_label(data: EvaluationData, case: Case) -> np.ndarray | None:
    """Average the cells learned from that carry the target label, whatever else they are, [G]."""
    rows = data.baseline_rows[data.baseline_labels[:, case.concept] == case.target]
    return data.expression[rows].mean(axis=0) if len(rows) and case.target != UNLABELLED else None


def _measure(metric: Metric, real: np.ndarray, generated: np.ndarray, bandwidth: float) -> float | None:
    if metric.kind == "summary":
        return metric.function(generated)
    if metric.kind == "distribution":
        return metric.function(real, generated, bandwidth)
    return metric.function(real, generated)


def _average(values: Sequence[Sequence[float | None]]) -> float | None:
    taken = [value for case in values for value in case if value is not None]
    return float(np.mean(taken)) if taken else None
