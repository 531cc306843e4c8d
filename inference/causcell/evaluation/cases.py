"""Cases to judge interventions by: source cells, and the real target cells that show what should come out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from causcell.concepts import UNLABELLED, ConceptSchema
from causcell.errors import DataError
from causcell.evaluation.data import EvaluationData
from causcell.evaluation.row_choice import MIN_CELLS, is_stratified


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
    does not show. Source and target cells are test cells, at least eight each; source cells are those that there are
    predictions of, and the source label the most frequent one that they carry.
    """
    cases = []
    for concept in range(len(data.schema.concepts)):
        codes = data.effect_labels[:, concept]
        if (codes == UNLABELLED).all():
            continue
        source = data.find_source_label(concept)
        others = [int(code) for code in np.unique(codes[codes != UNLABELLED]) if code != source]
        for target, stratum in itertools.product(others, _list_strata(data, concept)):
            rows = [
                data.effect_rows[find_carriers(data.effect_labels, {concept: code, **dict(stratum)})]
                for code in (source, target)
            ]
            rows[0] = data.keep_predicted(rows[0], concept, target)
            if min(map(len, rows)) >= MIN_CELLS:
                cases.append(Case(concept, source, target, stratum, *rows))
    return cases


def choose_largest(cases: Iterable[Case], most: int) -> list[Case]:
    """Choose of every concept's cases the ``most`` with the largest smaller group, in the order given."""
    chosen = []
    by_concept: dict[int, list[Case]] = {}
    for case in cases:
        by_concept.setdefault(case.concept, []).append(case)
    for found in by_concept.values():
        sizes = [min(len(case.source_rows), len(case.target_rows)) for case in found]
        kept = sorted(np.argsort([-size for size in sizes], kind="stable")[:most])
        chosen += [found[i] for i in kept]
    return chosen


def _list_strata(data: EvaluationData, concept: int) -> list[tuple[tuple[int, int], ...]]:
    if not is_stratified(data.schema, concept):
        return [()]
    codes = data.effect_labels[:, data.stratum_concept]
    return [((data.stratum_concept, int(code)),) for code in np.unique(codes[codes != UNLABELLED])]


def is_unseen(data: EvaluationData, case: Case) -> bool:
    """Tell whether no training cell carries the labels that the case's target cells share."""
    return not find_carriers(data.seen_labels, {case.concept: case.target, **dict(case.stratum)}).any()


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
        near = find_carriers(labels, stratum) & (labels[:, concept] != UNLABELLED) & (labels[:, concept] != target)
        if not near.any():
            continue
        source = int(np.bincount(labels[near, concept]).argmax())
        rows = [
            np.flatnonzero(find_carriers(labels, {**stratum, concept: source})),
            data.effect_rows[find_carriers(data.effect_labels, codes)],
        ]
        if min(map(len, rows)) >= MIN_CELLS:
            cases.append(Case(concept, source, target, tuple(stratum.items()), *rows))
    if not cases:
        raise DataError(
            f"the held-out combination {format_combination(schema, codes)} can't be judged: it needs at least "
            f"{MIN_CELLS} cells, and as many that differ from it in one concept alone"
        )
    return cases


def format_combination(schema: ConceptSchema, codes: Mapping[int, int]) -> str:
    """Format label codes by concept index as ``concept=label,concept=label``."""
    return ",".join(f"{schema.names[i]}={schema.concepts[i].labels[code]}" for i, code in codes.items())


def find_carriers(labels: np.ndarray, codes: Mapping[int, int]) -> np.ndarray:
    """Find the cells that carry all of these labels.

    Parameters
    ----------
    labels
        Label codes, int [n x m].
    codes
        Label codes by concept index.

    Returns
    -------
    bool [n].
    """
    carried = np.ones(len(labels), dtype=bool)
    for concept, code in codes.items():
        carried &= labels[:, concept] == code
    return carried
