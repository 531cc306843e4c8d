"""Tables about interventions: predicted mean shifts against those of real cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from causcell._internal.stages import Report, at_intervals
from causcell.concepts import ConceptSchema
from causcell.evaluation.baselines import MEAN_RESPONSE, ONE_FOR_ALL, TrivialShifts, trivial_roles
from causcell.evaluation.cases import Case as Case
from causcell.evaluation.cases import find_seen_cases as find_seen_cases
from causcell.evaluation.cases import find_unseen_cases as find_unseen_cases
from causcell.evaluation.cases import format_combination as format_combination
from causcell.evaluation.counterfactual_cells import measure_counterfactual_cells
from causcell.evaluation.data import EvaluationData
from causcell.evaluation.gene_shifts import GeneShifts
from causcell.evaluation.halves import CHEATS, DRAWN_HALF, HALF, Halves, measure_halves
from causcell.evaluation.intervals import standard_errors
from causcell.evaluation.metrics import differential_genes, mean_shift, shared_noise
from causcell.evaluation.quality import measure_effect
from causcell.evaluation.registry import Metric, registered_metrics
from causcell.evaluation.scores import Role, Score, average_scores, distance_from_best, score_halves, score_rows
from causcell.evaluation.self_test import name_cheats
from causcell.evaluation.table import EFFECTS, Table
from causcell.plot.shared import stored_colours

CEILING = "noise-free prediction (ceiling)"

_INTERPRETATION = (
    "Within each stratum, the mean counterfactual less the mean factual (mean estimates) against the mean real target "
    "cells less the mean real source cells, over genes: Pearson, Spearman, the overlap of the 50 strongest genes; "
    "three sizes, each best at 1: calibration (what a predicted effect of 1 really is, on average), size (the "
    "prediction along the true shift, over it) and norm ratio (length over length), the real shift's noise taken off; "
    "the squared error over the squared true shift, best at 0, without that noise too (nor, in these and in Pearson, "
    "the chance deviations of the source cells that predictions of them follow); "
    "the area under the ROC curve of the strength of a gene's shift for the genes that differ between real source "
    "and target cells (Wilcoxon, Benjamini-Hochberg 5 %), and how many of those that rise, or fall, are among as many "
    "genes that are predicted to rise, or fall, most (recall, which is precision too). MMD and energy ratio: how far "
    "samples of counterfactual cells (of trivial predictions: source cells moved by the shift) are from real target "
    "cells, over how far the nearest cells learned from with other labels are: 1 is copying those, 0 is as good as "
    "real. Averages over strata."
)
_SCORES = (
    "Scores: 0 is the best trivial shift, 1 a replicate (the better of half of these real cells, as it is or drawn "
    "towards the best trivial shift by as much as its noise asks for, and of the cells learned from in the stratum "
    "itself), all held against the other half of the real cells, five times; what stands behind is how far the "
    "replicate varies."
)
_LIMITATIONS = (
    "Whether single cells respond as predicted, and whether source and target cells differ by the intervention alone: "
    "no cell was measured under both. Real shifts have noise, so a perfect prediction does not reach 1 (ceiling)."
)


@dataclass(frozen=True)
class _CaseMeasures:
    """Values of one case by row and metric, standard errors of some, values against halves, and what figures show."""

    values: dict[str, dict[str, float | None]]
    errors: dict[str, dict[str, float]]
    halves: Halves
    roles: dict[str, Role]
    shift: GeneShifts | None = None


def tabulate_effects(
    data: EvaluationData,
    cases: Iterable[Case],
    title: str,
    *,
    seed: int = 0,
    replicate: str | None = None,
    quick: bool = False,
    report: Report | None = None,
) -> list[Table]:
    """Make a table for each concept intervened on: the model's modes, trivial baselines, replicates, cheats.

    Parameters
    ----------
    data
        The model and its cells.
    cases
        Shifts to predict; a table holds the averages over its concept's cases.
    title
        Beginning of the tables' names.
    seed
        Seed of generated cells, of the halves that replicates are taken from, and of the samples of standard errors.
    replicate
        Column of ``obs`` whose labels (donors, patients) are independent of each other: standard errors, and the noise
        of the real shift, are taken over them, in place of over cells.
    quick
        Measure mean shifts alone: no standard errors, and no samples of counterfactual cells.
    """
    trivial = TrivialShifts(data.baseline_expression, data.baseline_labels)
    by_concept: dict[int, list[Case]] = {}
    for case in cases:
        by_concept.setdefault(case.concept, []).append(case)
    tables = []
    for concept, found in by_concept.items():
        name = data.schema.names[concept]
        tell, measured = at_intervals(report), []
        for number, case in enumerate(found, start=1):
            tell(f"effects of {name}, {number} of {len(found)} shifts")
            measured.append(_measure_case(data, case, trivial, seed, replicate, quick))
        table = _tabulate_concept(measured, f"{title}: {name} ({len(found)} shifts)", name, replicate)
        names = [_name_case(data.schema, case) for case in found]
        shifts = tuple(each.shift for each in measured if each.shift is not None)
        tables.append(replace(table, weakest=_find_weakest(measured, names, table), shifts=shifts))
    return tables


def _name_case(schema: ConceptSchema, case: Case) -> str:
    """Name a case: the target, and the stratum if there is one."""
    target = format_combination(schema, {case.concept: case.target})
    return f"{target} in {format_combination(schema, dict(case.stratum))}" if case.stratum else target


def _find_weakest(
    measured: Sequence[_CaseMeasures], names: Sequence[str], table: Table
) -> tuple[tuple[float, str], ...]:
    """Return the lowest average score of a single case, of the first row of the model's, and the name of that case."""
    rows = table.rows_of("model")[:1]
    if not rows or len(measured) < 2:
        return ()
    found = []
    for case, name in zip(measured, names, strict=True):
        scores = []
        for metric in registered_metrics("effect", "size", "genes", "directions"):
            if metric.title not in table.distrusted:
                distances = _collect_distances([case.halves.predictions], metric)
                scores += [score for row, score in score_halves(distances, case.roles).items() if row == rows[0]]
        average = average_scores(scores)
        if average is not None:
            found.append((average[0], name))
    return (min(found),) if len(found) > 1 else ()


def _tabulate_concept(measured: Sequence[_CaseMeasures], name: str, concept: str, replicate: str | None) -> Table:
    """Average the measures of a concept's cases, score them, and find the measures that cheats win."""
    metrics = registered_metrics("effect", "size", "genes", "directions", "counterfactual")
    roles: dict[str, Role] = {row: role for case in measured for row, role in case.roles.items()}
    values: dict[str, dict[str, float]] = {}
    errors: dict[str, dict[str, float]] = {}
    scores: dict[str, dict[str, Score]] = {}
    distrusted: dict[str, str] = {}
    for metric in metrics:
        for into, average, found in (
            (values, np.mean, [case.values for case in measured]),
            (errors, _error_of_mean, [case.errors for case in measured]),
        ):
            for row in dict.fromkeys(row for each in found for row in each):
                taken = [value for each in found if (value := each.get(row, {}).get(metric.name)) is not None]
                if taken:
                    into.setdefault(row, {})[metric.title] = float(average(taken))
        distances = _collect_distances([case.halves.predictions for case in measured], metric)
        cheats = _collect_distances([case.halves.cheats for case in measured], metric)
        for row, score in score_halves(distances | cheats, roles).items():
            scores.setdefault(row, {})[metric.title] = score
        winners = name_cheats([distances[row] for row in (HALF, DRAWN_HALF) if row in distances], cheats)
        if winners:
            distrusted[metric.title] = winners
    of_cells = {metric.title: metric.better for metric in metrics if metric.kind == "counterfactual"}
    for row, found_scores in score_rows(values, roles, of_cells).items():
        scores.setdefault(row, {}).update(found_scores)
    return Table.of(
        name,
        values,
        interpretation=f"{_INTERPRETATION} Intervals: 90 %, over {replicate or 'cells'}. {_SCORES}",
        limitations=_LIMITATIONS,
        errors=errors,
        roles=roles,
        scores=scores,
        distrusted=distrusted,
        kind=EFFECTS,
        concept=concept,
    )


def _error_of_mean(errors: Sequence[float]) -> float:
    return float(np.sqrt(np.sum(np.square(errors))) / len(errors))


def _collect_distances(cases: Sequence[Mapping[str, Any]], metric: Metric) -> dict[str, np.ndarray]:
    """Collect the distances from the best value by row, [halvings x cases]; NaN where there is no value."""
    rows = dict.fromkeys(row for case in cases for row in case)
    halvings = max(len(values) for case in cases for row in case.values() for values in row.values())
    found = {}
    for row in rows:
        columns = [case.get(row, {}).get(metric.name, [None] * halvings) for case in cases]
        found[row] = np.array(
            [[np.nan if v is None else distance_from_best(v, metric.better) for v in column] for column in columns]
        ).T
    return found


def _measure_case(
    data: EvaluationData, case: Case, trivial: TrivialShifts, seed: int, replicate: str | None, quick: bool
) -> _CaseMeasures:
    """Take all measures of one case."""
    source, target = data.expression[case.source_rows], data.expression[case.target_rows]
    replicates = None
    if replicate is not None:
        of_cells = data.cells.obs[replicate].astype(str).to_numpy()
        replicates = of_cells[case.source_rows], of_cells[case.target_rows]
    real, variance = mean_shift(source, target, replicates)
    with np.errstate(invalid="ignore"):  # of genes that are the same in all of these cells
        differ = differential_genes(source, target)
    predicted, known = predict_cell_shifts(data, case, seed), trivial.predict(case)
    means = {name: shift.mean(axis=0) for name, shift in predicted.items()} | known
    roles: dict[str, Role] = {**dict.fromkeys(predicted, "model"), **trivial_roles(case)}
    roles |= {**dict.fromkeys((HALF, DRAWN_HALF), "replicate"), **dict.fromkeys(CHEATS, "cheat")}
    guesses = {name: shift for name, shift in known.items() if roles[name] == "trivial"}
    response = guesses.get(MEAN_RESPONSE, guesses.get(ONE_FOR_ALL))
    of_sources = None if replicates is None else replicates[0]
    shared = {name: shared_noise(shift, source, of_sources) for name, shift in predicted.items()}
    halves = measure_halves(means, guesses, source, target, seed, response=response, shared=shared)
    values: dict[str, dict[str, float | None]] = {
        name: measure_effect(shift, real, variance, differ, shared.get(name, 0.0)) for name, shift in means.items()
    }
    for name in (HALF, DRAWN_HALF):
        values[name] = _average_halvings(halves.predictions[name])
    values[CEILING] = {"pcc": _noise_free_correlation(values[HALF]["pcc"])}
    values |= {name: _average_halvings(each) for name, each in halves.cheats.items()}
    errors: dict[str, dict[str, float]] = {}
    if not quick:
        for name, each in measure_counterfactual_cells(data, case, known, seed).items():
            values[name] = values.get(name, {}) | each
        rng = np.random.default_rng((seed, 6))
        errors = standard_errors(predicted | known, source, target, rng, replicates=replicates)
    kept = None
    if predicted:
        first = next(iter(predicted))
        kept = _keep_shifts(data, case, real, variance, means[first], values[first]["pcc"] or 0.0)
    return _CaseMeasures(values, errors, halves, roles, kept)


def _keep_shifts(
    data: EvaluationData, case: Case, real: np.ndarray, variance: np.ndarray, predicted: np.ndarray, correlation: float
) -> GeneShifts:
    """Keep what figures show of a case."""
    concept = data.schema.concepts[case.concept]
    target = concept.labels[case.target]
    column, label = concept.name, target
    if case.stratum:
        index, code = case.stratum[0]
        column, label = data.schema.names[index], data.schema.concepts[index].labels[code]
    return GeneShifts(
        data.genes,
        data.gene_symbols,
        concept.name,
        concept.labels[case.source],
        target,
        format_combination(data.schema, dict(case.stratum)),
        len(case.source_rows),
        len(case.target_rows),
        real.astype(np.float32),
        np.sqrt(variance).astype(np.float32),
        predicted.astype(np.float32),
        float(correlation),
        stored_colours(data.cells, column).get(label, ""),
    )


def _average_halvings(values: Mapping[str, Sequence[float | None]]) -> dict[str, float | None]:
    taken = {measure: [value for value in each if value is not None] for measure, each in values.items()}
    return {measure: float(np.mean(each)) if each else None for measure, each in taken.items()}


def _noise_free_correlation(half: float | None) -> float:
    """Return what a prediction without noise has, from the correlation of one half of the real cells with the other.

    Of a half's reliability r the whole's is 2 r / (1 + r) (Spearman-Brown), and the correlation of the truth with a
    measurement is the root of its reliability.
    """
    reliability = max(0.0, half or 0.0)
    return float(np.sqrt(2 * reliability / (1 + reliability)))


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
    """Compute the trivial predictions of one case, float64 [G]; see `causcell.evaluation.baselines.TrivialShifts`."""
    return TrivialShifts(data.baseline_expression, data.baseline_labels).predict(case)
