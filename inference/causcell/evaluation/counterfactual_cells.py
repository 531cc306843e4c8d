"""Counterfactual cells as a distribution: how far from real target cells, and from what copying seen cells reaches."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from causcell._internal.batching import choose_at_most
from causcell.concepts import UNLABELLED
from causcell.evaluation.cases import Case
from causcell.evaluation.data import EvaluationData
from causcell.evaluation.halves import HALF
from causcell.evaluation.quality import measure_counterfactual

_MIN_CELLS = 16
_MOST_CELLS = 256

Values = dict[str, dict[str, float | None]]
"""Values by row and metric."""


def measure_counterfactual_cells(
    data: EvaluationData, case: Case, shifts: Mapping[str, np.ndarray], seed: int = 0
) -> Values:
    """Measure samples of counterfactual cells, beside source cells moved by given shifts, and beside real cells.

    Parameters
    ----------
    data
        Whose samples, and the cells.
    case
        The intervention, its source cells and the real target cells.
    shifts
        Trivial predictions by name, [G]: the source cells are moved by each, and clipped at zero.
    seed
        Of samples, and of the choice of at most 256 cells of each kind.

    Returns
    -------
    Values by row: of the predictor's first mode, if it has samples; of each shift; of one half of the real target cells
    against the other. None where there are fewer than 16 source or target cells, or nothing trained on to compare with.
    """
    rng = np.random.default_rng((seed, 8))
    if min(len(case.source_rows), len(case.target_rows)) < _MIN_CELLS:
        return {}
    nearest = _find_nearest_group(data, case)
    if nearest is None:
        return {}
    groups = (case.source_rows, case.target_rows, nearest)
    rows, target_rows, copied = (choose_at_most(each, _MOST_CELLS, rng) for each in groups)
    source, target = data.expression[rows], data.expression[target_rows]
    seen = data.baseline_expression[copied]
    found: Values = {}
    concept = data.schema.concepts[case.concept]
    mode = data.predictor.modes[0]
    made = data.predictor.predict(
        data.cells[rows], {concept.name: concept.labels[case.target]}, estimate="sample", mode=mode, seed=seed
    )
    if made is not None:
        found[f"model, {mode}"] = measure_counterfactual(made, target, seen)
    for name, shift in shifts.items():
        moved = np.maximum(source + shift, 0).astype(np.float32)
        found[name] = measure_counterfactual(moved, target, seen)
    halves = np.array_split(rng.permutation(len(target)), 2)
    found[HALF] = measure_counterfactual(target[halves[0]], target[halves[1]], seen)
    return found


def _find_nearest_group(data: EvaluationData, case: Case) -> np.ndarray | None:
    """Find the training cells (rows, int) of the labels whose mean is nearest to the target cells', but not of theirs.

    Groups carry one label of the concept and of the stratum's each, and have at least 16 cells.
    """
    concepts = [case.concept, *(concept for concept, _ in case.stratum)]
    own = (case.target, *(code for _, code in case.stratum))
    codes, members = np.unique(data.baseline_labels[:, concepts], axis=0, return_inverse=True)
    target = data.expression[case.target_rows].mean(axis=0, dtype=np.float64)
    distances: dict[int, float] = {}
    for group, labels in enumerate(map(tuple, codes.tolist())):
        rows = np.flatnonzero(members.ravel() == group)
        if labels != own and UNLABELLED not in labels and len(rows) >= _MIN_CELLS:
            mean = data.baseline_expression[rows].mean(axis=0, dtype=np.float64)
            distances[group] = float(((mean - target) ** 2).sum())
    if not distances:
        return None
    return np.flatnonzero(members.ravel() == min(distances, key=distances.__getitem__))
