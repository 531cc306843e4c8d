"""Tables about interventions: predicted mean shifts against those of real cells."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from causcell.concepts import UNLABELLED, ConceptSchema
from causcell.counterfactual.interventions import MODES
from causcell.errors import CausCellWarning, DataError
from causcell.evaluation.data import Subject
from causcell.evaluation.metrics import differential_genes, effect_agreement, ranking_score
from causcell.evaluation.table import Table

_LEAST = 8


_SPLITS = 5


_TELLS = (
    "Within each stratum, the mean counterfactual less the mean factual (mean estimates) against the mean real target "
    "cells less the mean real source cells, over genes: Pearson, Spearman, the overlap of the 50 strongest genes, the "
    "slope (1: of the right size), and the area under the ROC curve of the strength of a gene's shift for the genes "
    "that differ between real source and target cells (Wilcoxon, Benjamini-Hochberg 5 %). Averages over strata."
)


_SILENT = (
    "Whether single cells respond as predicted, and whether source and target cells differ by the intervention alone: "
    "no cell was measured under both. Real shifts have noise, so a perfect prediction does not reach 1 (ceiling)."
)


@dataclass(frozen=True)
class Case:
    """Source cells to intervene on, and real cells that show what should come out.

    Attributes
    ----------
    concept, source, target
        ``do(concept = target)`` on cells that carry ``source``.
    stratum
        Codes by concept index that source and target cells share.
    source_rows, target_rows
        Rows of the subject's cells.
    """

    concept: int
    source: int
    target: int
    stratum: tuple[tuple[int, int], ...]
    source_rows: np.ndarray
    target_rows: np.ndarray


def seen_cases(subject: Subject) -> list[Case]:
    """Each concept's most frequent label against every other, within labels of the stratifying concept.

    A concept that has the stratifying one among its effects is compared over all cells: within strata its total effect
    does not show. Source and target cells are judged ones, at least eight each.
    """
    cases = []
    for concept in range(len(subject.schema.concepts)):
        codes = subject.truth[:, concept]
        if (codes == UNLABELLED).all():
            continue
        source = int(np.bincount(codes[codes != UNLABELLED]).argmax())
        others = [int(code) for code in np.unique(codes[codes != UNLABELLED]) if code != source]
        for target, stratum in itertools.product(others, _strata(subject, concept)):
            rows = [
                subject.judged[_carry(subject.truth, {concept: code, **dict(stratum)})] for code in (source, target)
            ]
            if min(map(len, rows)) >= _LEAST:
                cases.append(Case(concept, source, target, stratum, *rows))
    return cases


def _strata(subject: Subject, concept: int) -> list[tuple[tuple[int, int], ...]]:
    if subject.stratum in subject.schema.descendants({concept}) | {concept}:
        return [()]
    codes = subject.truth[:, subject.stratum]
    return [((subject.stratum, int(code)),) for code in np.unique(codes[codes != UNLABELLED])]


def unseen_cases(subject: Subject, held_out: Mapping[str, str]) -> list[Case]:
    """Cases whose target cells carry a combination of labels that was held out of training.

    For each concept of the combination, source cells carry its other labels and the most frequent other label of that
    concept; they may be trained on, the target cells are not.

    Raises
    ------
    DataError
        The combination has no case with at least eight source and target cells.
    """
    schema, labels = subject.schema, subject.labels
    codes = {schema.index(concept): schema[concept].code(label) for concept, label in held_out.items()}
    cases = []
    for concept, target in codes.items():
        stratum = {index: code for index, code in codes.items() if index != concept}
        near = _carry(labels, stratum) & (labels[:, concept] != UNLABELLED) & (labels[:, concept] != target)
        if not near.any():
            continue
        source = int(np.bincount(labels[near, concept]).argmax())
        rows = [
            np.flatnonzero(_carry(labels, {**stratum, concept: source})),
            subject.judged[_carry(subject.truth, codes)],
        ]
        if min(map(len, rows)) >= _LEAST:
            cases.append(Case(concept, source, target, tuple(stratum.items()), *rows))
    if not cases:
        raise DataError(
            f"the held-out combination {described(schema, codes)} can't be judged: it needs at least {_LEAST} cells, "
            "and as many that differ from it in one concept alone"
        )
    return cases


def described(schema: ConceptSchema, codes: Mapping[int, int]) -> str:
    """``concept=label,concept=label`` of codes by concept index."""
    return ",".join(f"{schema.names[i]}={schema.concepts[i].labels[code]}" for i, code in codes.items())


def _carry(labels: np.ndarray, codes: Mapping[int, int]) -> np.ndarray:
    """Which cells carry all of these labels, bool [n]."""
    carried = np.ones(len(labels), dtype=bool)
    for concept, code in codes.items():
        carried &= labels[:, concept] == code
    return carried


def effects(subject: Subject, cases: Iterable[Case], title: str, *, seed: int = 0) -> list[Table]:
    """A table for each concept intervened on: the model's modes, trivial baselines, ceiling."""
    by_concept: dict[int, list[Case]] = {}
    for case in cases:
        by_concept.setdefault(case.concept, []).append(case)
    tables = []
    for concept, found in by_concept.items():
        measured: dict[str, dict[str, list[float]]] = {}
        for case in found:
            for name, measures in _case_measures(subject, case, seed).items():
                for measure, value in measures.items():
                    if value is not None:
                        measured.setdefault(name, {}).setdefault(measure, []).append(value)
        rows = {name: {m: float(np.mean(v)) for m, v in measures.items()} for name, measures in measured.items()}
        name = f"{title}: {subject.schema.names[concept]} ({len(found)} shifts)"
        tables.append(Table.of(name, rows, tells=_TELLS, silent=_SILENT))
    return tables


def _case_measures(subject: Subject, case: Case, seed: int) -> dict[str, dict[str, float | None]]:
    source, target = subject.expression[case.source_rows], subject.expression[case.target_rows]
    real = target.mean(axis=0) - source.mean(axis=0)
    differ = differential_genes(source, target)
    shifts = predicted_shifts(subject, case, seed) | trained_shifts(subject, case)
    rows: dict[str, dict[str, float | None]] = {
        name: {**effect_agreement(shift, real), "AUC": ranking_score(np.abs(shift), differ)}
        for name, shift in shifts.items()
    }
    rows |= _ceilings(source, target, np.random.default_rng(seed))
    return rows


def predicted_shifts(subject: Subject, case: Case, seed: int = 0) -> dict[str, np.ndarray]:
    """Mean shift of the source cells under the intervention, [G], by mode."""
    cells = subject.cells[case.source_rows]
    concept = subject.schema.concepts[case.concept]
    options: dict[str, Any] = {"preset": "mean", "seed": seed, **subject.options}
    do = {concept.name: concept.labels[case.target]}
    factual = subject.generator.reconstruct(cells, **options).X
    shifts = {}
    for mode in MODES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CausCellWarning)  # of combinations that no training cell carries: meant
            acted = subject.generator.counterfactual(cells, do, mode=mode, **options)
        shifts[f"model, {mode}"] = np.asarray(acted.X - factual, dtype=np.float64).mean(axis=0)
    return shifts


def trained_shifts(subject: Subject, case: Case) -> dict[str, np.ndarray]:
    """Trivial predictions, [G]: no shift; that of the cells learned from, of all, and of the stratum where seen."""
    x, labels = subject.expression[subject.learned], subject.labels[subject.learned]
    shifts = {"no change": np.zeros(x.shape[1])}
    for name, stratum in (
        ("shift of the cells learned from, one for all", {}),
        ("shift of the cells learned from, per stratum (where seen)", dict(case.stratum)),
    ):
        members = [_carry(labels, {case.concept: code, **stratum}) for code in (case.source, case.target)]
        if all(each.any() for each in members):
            shifts[name] = x[members[1]].mean(axis=0, dtype=np.float64) - x[members[0]].mean(axis=0, dtype=np.float64)
    return shifts


def _ceilings(source: np.ndarray, target: np.ndarray, rng: np.random.Generator) -> dict[str, dict[str, float | None]]:
    """The shift of one half of the real cells against that of the other, and what follows for a noise-free prediction.

    Of a half's reliability r the whole's is 2 r / (1 + r) (Spearman-Brown), and the correlation of the truth with a
    measurement is the root of its reliability.
    """
    found: dict[str, list[float]] = {}
    for _ in range(_SPLITS):
        halves = [[x[part] for part in np.array_split(rng.permutation(len(x)), 2)] for x in (source, target)]
        a, b = (halves[1][i].mean(axis=0) - halves[0][i].mean(axis=0) for i in (0, 1))
        agreement: dict[str, float | None] = {**effect_agreement(a, b)}
        agreement["AUC"] = ranking_score(np.abs(a), differential_genes(halves[0][1], halves[1][1]))
        for measure, value in agreement.items():
            if value is not None:
                found.setdefault(measure, []).append(value)
    half: dict[str, float | None] = {measure: float(np.mean(values)) for measure, values in found.items()}
    reliability = max(0.0, half["pcc"] or 0.0)
    whole = 2 * reliability / (1 + reliability)
    return {
        "real cells, one half against the other": half,
        "noise-free prediction (ceiling)": {"pcc": float(np.sqrt(whole))},
    }
