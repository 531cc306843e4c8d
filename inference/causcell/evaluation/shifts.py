"""Tables about interventions: predicted mean shifts against those of real cells."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from causcell.concepts import UNLABELLED, ConceptSchema
from causcell.errors import DataError
from causcell.evaluation.data import EvaluationData
from causcell.evaluation.intervals import standard_errors
from causcell.evaluation.metrics import differential_genes, mean_shift
from causcell.evaluation.quality import measure_effect
from causcell.evaluation.registry import metric_titles
from causcell.evaluation.table import Table

_MIN_CELLS = 8
_SPLITS = 5
_INTERPRETATION = (
    "Within each stratum, the mean counterfactual less the mean factual (mean estimates) against the mean real target "
    "cells less the mean real source cells, over genes: Pearson, Spearman, the overlap of the 50 strongest genes; "
    "three sizes, each best at 1: calibration (what a predicted effect of 1 really is, on average), size (the "
    "prediction along the true shift, over it) and norm ratio (length over length), the real shift's noise taken off; "
    "and the area under the ROC curve of the strength of a gene's shift for the genes that differ between real source "
    "and target cells (Wilcoxon, Benjamini-Hochberg 5 %). Averages over strata."
)
_LIMITATIONS = (
    "Whether single cells respond as predicted, and whether source and target cells differ by the intervention alone: "
    "no cell was measured under both. Real shifts have noise, so a perfect prediction does not reach 1 (ceiling)."
)


@dataclass(frozen=True)
class Case:
    """Source cells to intervene on, and real target cells that show what should come out.

    Attributes
    ----------
    concept
        Index of the concept that is intervened on.
    source, target
        Label codes: ``do(concept = target)`` on cells that carry ``source``.
    stratum
        Pairs of a concept's index and a label code that source and target cells share.
    source_rows, target_rows
        Rows of the evaluation's cells, int, ascending.
    """

    concept: int
    source: int
    target: int
    stratum: tuple[tuple[int, int], ...]
    source_rows: np.ndarray
    target_rows: np.ndarray


def find_seen_cases(data: EvaluationData) -> list[Case]:
    """Find cases of each concept's most frequent label against every other, within labels of the stratifying concept.

    A concept that has the stratifying one among its effects is compared over all cells: within strata its total effect
    does not show. Source and target cells are test cells, at least eight each.
    """
    cases = []
    for concept in range(len(data.schema.concepts)):
        codes = data.test_labels[:, concept]
        if (codes == UNLABELLED).all():
            continue
        source = int(np.bincount(codes[codes != UNLABELLED]).argmax())
        others = [int(code) for code in np.unique(codes[codes != UNLABELLED]) if code != source]
        for target, stratum in itertools.product(others, _list_strata(data, concept)):
            rows = [
                data.test_rows[_find_carriers(data.test_labels, {concept: code, **dict(stratum)})]
                for code in (source, target)
            ]
            if min(map(len, rows)) >= _MIN_CELLS:
                cases.append(Case(concept, source, target, stratum, *rows))
    return cases


def _list_strata(data: EvaluationData, concept: int) -> list[tuple[tuple[int, int], ...]]:
    if data.stratum_concept in data.schema.descendants({concept}) | {concept}:
        return [()]
    codes = data.test_labels[:, data.stratum_concept]
    return [((data.stratum_concept, int(code)),) for code in np.unique(codes[codes != UNLABELLED])]


def find_unseen_cases(data: EvaluationData, held_out: Mapping[str, str]) -> list[Case]:
    """Find cases whose target cells carry a combination of labels that was held out of training.

    For each concept of the combination, source cells carry its other labels and the most frequent other label of that
    concept; they may be trained on, the target cells are not.

    Raises
    ------
    DataError
        The combination has no case with at least eight source and target cells.
    """
    schema, labels = data.schema, data.labels
    codes = {schema.index(concept): schema[concept].code(label) for concept, label in held_out.items()}
    cases = []
    for concept, target in codes.items():
        stratum = {index: code for index, code in codes.items() if index != concept}
        near = _find_carriers(labels, stratum) & (labels[:, concept] != UNLABELLED) & (labels[:, concept] != target)
        if not near.any():
            continue
        source = int(np.bincount(labels[near, concept]).argmax())
        rows = [
            np.flatnonzero(_find_carriers(labels, {**stratum, concept: source})),
            data.test_rows[_find_carriers(data.test_labels, codes)],
        ]
        if min(map(len, rows)) >= _MIN_CELLS:
            cases.append(Case(concept, source, target, tuple(stratum.items()), *rows))
    if not cases:
        raise DataError(
            f"the held-out combination {format_combination(schema, codes)} can't be judged: it needs at least "
            f"{_MIN_CELLS} cells, and as many that differ from it in one concept alone"
        )
    return cases


def format_combination(schema: ConceptSchema, codes: Mapping[int, int]) -> str:
    """Format label codes by concept index as ``concept=label,concept=label``."""
    return ",".join(f"{schema.names[i]}={schema.concepts[i].labels[code]}" for i, code in codes.items())


def _find_carriers(labels: np.ndarray, codes: Mapping[int, int]) -> np.ndarray:
    """Find the cells that carry all of these labels (codes by concept index), bool [n]."""
    carried = np.ones(len(labels), dtype=bool)
    for concept, code in codes.items():
        carried &= labels[:, concept] == code
    return carried


def tabulate_effects(
    data: EvaluationData, cases: Iterable[Case], title: str, *, seed: int = 0, replicate: str | None = None
) -> list[Table]:
    """Make a table for each concept intervened on: the model's modes, trivial baselines, ceiling.

    Parameters
    ----------
    data
        The model and its cells.
    cases
        Shifts to predict; a table holds the averages over its concept's cases.
    title
        Beginning of the tables' names.
    seed
        Seed of generated cells, of the halves that ceilings are taken from, and of the samples of standard errors.
    replicate
        Column of ``obs`` whose labels (donors, patients) are independent of each other: standard errors, and the noise
        of the real shift, are taken over them, in place of over cells.
    """
    titles = metric_titles("effect", "size", "genes")
    by_concept: dict[int, list[Case]] = {}
    for case in cases:
        by_concept.setdefault(case.concept, []).append(case)
    tables = []
    for concept, found in by_concept.items():
        measured: dict[str, dict[str, list[float]]] = {}
        variances: dict[str, dict[str, list[float]]] = {}
        for case in found:
            rows, errors = _measure_case(data, case, seed, replicate)
            for into, values in ((measured, rows), (variances, errors)):
                for name, measures in values.items():
                    for measure, value in measures.items():
                        if value is not None:
                            into.setdefault(name, {}).setdefault(titles[measure], []).append(value)
        name = f"{title}: {data.schema.names[concept]} ({len(found)} shifts)"
        tables.append(
            Table.of(
                name,
                {name: {m: float(np.mean(v)) for m, v in each.items()} for name, each in measured.items()},
                interpretation=f"{_INTERPRETATION} Intervals: 90 %, over {replicate or 'cells'}.",
                limitations=_LIMITATIONS,
                errors={
                    name: {m: float(np.sqrt(np.sum(np.square(v))) / len(v)) for m, v in each.items()}
                    for name, each in variances.items()
                },
            )
        )
    return tables


def _measure_case(
    data: EvaluationData, case: Case, seed: int, replicate: str | None
) -> tuple[dict[str, dict[str, float | None]], dict[str, dict[str, float]]]:
    """Take all measures of one case, and standard errors of some: values by row and measure."""
    source, target = data.expression[case.source_rows], data.expression[case.target_rows]
    replicates = None
    if replicate is not None:
        of_cells = data.cells.obs[replicate].astype(str).to_numpy()
        replicates = of_cells[case.source_rows], of_cells[case.target_rows]
    real, variance = mean_shift(source, target, replicates)
    differ = differential_genes(source, target)
    shifts: dict[str, np.ndarray] = predict_cell_shifts(data, case, seed) | compute_baseline_shifts(data, case)
    rows = {
        name: measure_effect(shift.mean(axis=0) if shift.ndim == 2 else shift, real, variance, differ)
        for name, shift in shifts.items()
    }
    errors = standard_errors(shifts, source, target, np.random.default_rng((seed, 6)), replicates=replicates)
    return rows | _measure_ceilings(source, target, np.random.default_rng(seed)), errors


def predict_shifts(data: EvaluationData, case: Case, seed: int = 0) -> dict[str, np.ndarray]:
    """Predict the mean shift of the source cells under the intervention, float64 [G], by mode."""
    return {mode: shift.mean(axis=0) for mode, shift in predict_cell_shifts(data, case, seed).items()}


def predict_cell_shifts(data: EvaluationData, case: Case, seed: int = 0) -> dict[str, np.ndarray]:
    """Predict the shift of each source cell under the intervention, float64 [n x G], by mode."""
    concept = data.schema.concepts[case.concept]
    do = {concept.name: concept.labels[case.target]}
    factual = data.predict_means(case.source_rows, {}, seed=seed)
    shifts = {}
    for mode in data.predictor.modes:
        acted = data.predict_means(case.source_rows, do, mode=mode, seed=seed)
        if acted is not None and factual is not None:
            shifts[f"model, {mode}"] = np.asarray(acted - factual, dtype=np.float64)
    return shifts


def compute_baseline_shifts(data: EvaluationData, case: Case) -> dict[str, np.ndarray]:
    """Compute trivial predictions, float64 [G]: no shift, and the training cells' own, of all and of the stratum."""
    x, labels = data.training_expression, data.training_labels
    shifts = {"no change": np.zeros(x.shape[1])}
    for name, stratum in (
        ("shift of the cells learned from, one for all", {}),
        ("shift of the cells learned from, per stratum (where seen)", dict(case.stratum)),
    ):
        members = [_find_carriers(labels, {case.concept: code, **stratum}) for code in (case.source, case.target)]
        if all(each.any() for each in members):
            shifts[name] = x[members[1]].mean(axis=0, dtype=np.float64) - x[members[0]].mean(axis=0, dtype=np.float64)
    return shifts


def _measure_ceilings(
    source: np.ndarray, target: np.ndarray, rng: np.random.Generator
) -> dict[str, dict[str, float | None]]:
    """Measure the shift of one half of the real cells against that of the other: what a noise-free prediction has.

    Of a half's reliability r the whole's is 2 r / (1 + r) (Spearman-Brown), and the correlation of the truth with a
    measurement is the root of its reliability.
    """
    found: dict[str, list[float]] = {}
    for _ in range(_SPLITS):
        halves = [[x[part] for part in np.array_split(rng.permutation(len(x)), 2)] for x in (source, target)]
        (a, _), (b, variance) = (mean_shift(halves[0][i], halves[1][i]) for i in (0, 1))
        for measure, value in measure_effect(a, b, variance, differential_genes(halves[0][1], halves[1][1])).items():
            if value is not None:
                found.setdefault(measure, []).append(value)
    half: dict[str, float | None] = {measure: float(np.mean(values)) for measure, values in found.items()}
    reliability = max(0.0, half["pcc"] or 0.0)
    whole = 2 * reliability / (1 + reliability)
    return {
        "real cells, one half against the other": half,
        "noise-free prediction (ceiling)": {"pcc": float(np.sqrt(whole))},
    }
