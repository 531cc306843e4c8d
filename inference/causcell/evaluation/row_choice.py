"""Which cells an evaluation reads, of more than it can: some at random, and enough of rare labels for their effects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causcell._internal.batching import choose_at_most
from causcell.concepts import ConceptSchema

MIN_CELLS = 8
"""Cells of a label, within a stratum, that effects are taken of at least."""

_ENOUGH = 16
"""Cells of a label, within a stratum, that are chosen where there are as many."""

_MOST_LABELS = 512
"""Labels of a concept, each within a stratum, that cells are added for at most."""

_MOST_TEST_ROWS = 4096
_MOST_TRAINING_ROWS = 20_000


@dataclass(frozen=True)
class ChosenRows:
    """Rows that an evaluation reads, int, ascending.

    Attributes
    ----------
    test, training
        At random: what measures of all cells are taken on, and what baselines learn from.
    test_of_labels, training_of_labels
        The same, and those added for rare labels: what effects are taken on, and trivial ones from.
    """

    test: np.ndarray
    training: np.ndarray
    test_of_labels: np.ndarray
    training_of_labels: np.ndarray


def is_stratified(schema: ConceptSchema, concept: int) -> bool:
    """Tell whether a concept's effects are taken within labels of the schema's ``cell_type_like``.

    They are not where that is the concept itself or one of its effects: within strata a total effect does not show.
    """
    return schema.index(schema.cell_type_like) not in schema.descendants({concept}) | {concept}


def choose_rows(
    test: np.ndarray, training: np.ndarray, labels: np.ndarray, schema: ConceptSchema, rng: np.random.Generator
) -> ChosenRows:
    """Choose at most 4,096 test rows and 20,000 training rows, and some more of rare labels.

    A label is rare if fewer than 16 of the chosen test rows carry it within a stratum, of at least eight that do. Up to
    512 of a concept's, those of its most frequent label and others at random, are added to until there are 16 of them
    among test rows, and among training rows, or all that there are.

    Parameters
    ----------
    test, training
        All rows that can be chosen, int, ascending.
    labels
        Label codes of all cells, int [n x m]; -1 is unlabelled.
    schema
        Concepts and their graph.
    rng
        Chooses.

    Examples
    --------
    >>> from causcell.concepts import Concept
    >>> schema = ConceptSchema((Concept("stim", ("ctrl", "IFN")),))
    >>> labels = np.repeat([0, 1], [9990, 10])[:, None]
    >>> chosen = choose_rows(np.arange(10_000), np.arange(0), labels, schema, np.random.default_rng(0))
    >>> len(chosen.test), int(labels[chosen.test_of_labels].sum())
    (4096, 10)
    """
    chosen = [choose_at_most(test, _MOST_TEST_ROWS, rng), choose_at_most(training, _MOST_TRAINING_ROWS, rng)]
    added: list[list[np.ndarray]] = [[], []]
    codes = labels.astype(np.int64) + 1
    strata = codes[:, schema.index(schema.cell_type_like)]
    width = int(strata.max(initial=0)) + 2
    for concept in range(len(schema.concepts)):
        within = strata if is_stratified(schema, concept) else np.ones_like(strata)
        groups = np.where((codes[:, concept] > 0) & (within > 0), codes[:, concept] * width + within, 0)
        rare = _find_rare(groups[test], groups[chosen[0]])
        most_frequent = np.bincount(codes[chosen[0], concept], minlength=2)[1:].argmax() + 1
        first = rare // width == most_frequent
        wanted = np.concatenate([rare[first], rng.permutation(rare[~first])])[:_MOST_LABELS]
        for part, rows in enumerate((test, training)):
            added[part].append(_find_more(rows, chosen[part], groups, wanted, rng))
    with_added = [np.unique(np.concatenate([some, *more])) for some, more in zip(chosen, added, strict=True)]
    return ChosenRows(*chosen, *with_added)


def _find_rare(groups: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Find the groups that eight cells or more are of, and fewer of those chosen than could be; 0 is none."""
    count = int(groups.max(initial=0)) + 1
    there, held = np.bincount(groups, minlength=count), np.bincount(chosen, minlength=count)
    rare = np.flatnonzero((there >= MIN_CELLS) & (held < np.minimum(there, _ENOUGH)))
    return rare[rare > 0]


def _find_more(
    rows: np.ndarray, chosen: np.ndarray, groups: np.ndarray, wanted: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Find rows that each wanted group lacks to have 16 among those chosen."""
    if not len(wanted):  # as in most evaluations: millions of rows are not shuffled for nothing
        return wanted
    left = rng.permutation(np.setdiff1d(rows, chosen, assume_unique=True))
    both = np.concatenate([chosen, left])
    both = both[np.isin(groups[both], wanted)]
    order = np.argsort(groups[both], kind="stable")
    starts = np.flatnonzero(np.diff(groups[both][order], prepend=-1))
    rank = np.empty(len(both), dtype=np.int64)
    rank[order] = np.arange(len(both)) - np.repeat(starts, np.diff(starts, append=len(both)))
    return both[rank < _ENOUGH]
