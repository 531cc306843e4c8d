"""Intervals of effects: what draws and cells leave open, and the error of the model that export measured.

The variance of a predicted effect is its sampling variance (over draws, or over cells or replicates) plus the mean
square of the model's own error, ``constant * deviation**2 + relative * effect**2`` by gene, which
`causcell.evaluation.effect_errors` measured for each concept against the cells' own differences between its labels.
Degrees of freedom are Satterthwaite's (1946): the model's error is taken as known.

They do not cover a wrong graph, nor causes that the concepts leave out: then real differences are no effects either.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from causcell._internal.confidence import LEVEL, half_width
from causcell.concepts import UNLABELLED, ConceptSchema
from causcell.counterfactual.model import CounterfactualModel
from causcell.repository.effect_error import EffectError, ErrorSize

LIMITS = (
    "the sampling of cells or draws, and the model's own error, measured on differences between labels of training "
    "cells; not a wrong graph or missing causes, with which such differences are no effects. p_value, q_value and "
    "changed, where given, rest on the same; where an interval is NaN, on the sampling alone."
)
"""What intervals hold and what not, as ``uns`` says it."""

UNMEASURED = (
    "nothing (NaN): the model holds no measured error of these effects, since too few held-out cells carried the "
    "labels, or since an earlier version exported its run: train with more held-out cells, or export it again. p_value,"
    " q_value and changed, where given, rest on the sampling alone and take the model for right."
)


@dataclass(frozen=True)
class EffectUncertainty:
    """The measured errors of a model's effects, by which intervals are made.

    Attributes
    ----------
    schema
        Concepts and graph.
    deviation
        Standard deviation of each gene over the training cells, float64 [G].
    combinations
        Combinations of labels among the training cells, int32 [C x m].
    errors
        Measured errors by concept; a concept that lacks one has no intervals.
    """

    schema: ConceptSchema
    deviation: np.ndarray
    combinations: np.ndarray
    errors: dict[str, EffectError]

    @classmethod
    def of(cls, model: CounterfactualModel) -> EffectUncertainty:
        """Take what a model's repository holds."""
        manifest = model.manifest
        deviation = model.preprocessing.deviation.astype(np.float64)
        return cls(model.schema, deviation, model.engine.reference.combinations, dict(manifest.effect_errors))

    def is_measured(self, concepts: Iterable[int]) -> bool:
        """Tell whether the errors of all these concepts' effects were measured."""
        return all(self.schema.names[concept] in self.errors for concept in concepts)

    def find_unseen(self, targets: Iterable[tuple[int, int]], labels: np.ndarray) -> np.ndarray:
        """Find the cells in which a target label meets another label that no training cell carries it with.

        Parameters
        ----------
        targets
            Pairs of a concept's index and the code of its target label.
        labels
            The cells' own label codes, int [n x m]; those of the target's descendants do not count.

        Returns
        -------
        bool [n]. A cell whose stratum is not known, for want of a label, counts: a new donor's, for example.
        """
        unseen = np.zeros(len(labels), dtype=bool)
        targets = tuple(targets)
        after = labels.copy()
        for concept, code in targets:
            after[:, concept] = code
        for concept, code in targets:
            near = self.combinations[self.combinations[:, concept] == code]
            for other in set(range(len(self.schema.concepts))) - self.schema.descendants({concept}) - {concept}:
                unseen |= ~np.isin(after[:, other], np.unique(near[:, other])) & (after[:, other] != UNLABELLED)
            error = self.errors.get(self.schema.names[concept])
            for stratum in () if error is None else error.strata:
                unseen |= after[:, self.schema.index(stratum)] == UNLABELLED
        return unseen

    def of_cells(self, targets: Iterable[tuple[int, int]], labels: np.ndarray, effect: np.ndarray) -> np.ndarray:
        """Return the mean square of the model's error of single cells' effects.

        Parameters
        ----------
        targets
            Pairs of a concept's index and the code of its target label, set jointly: their errors add up.
        labels
            The cells' own label codes, int [n x m].
        effect
            Their effects, [n x G].

        Returns
        -------
        float64 [n x G]: 0 for a cell that carries all target labels already, NaN where nothing was measured.
        """
        targets = tuple(targets)
        unseen = self.find_unseen(targets, labels)
        variance = np.zeros(effect.shape)
        for concept, code in targets:
            changed = labels[:, concept] != code
            if concept in self.schema.numeric:  # another number of the same bin is a change, too
                changed |= (effect != 0).any(axis=1)
            for rows, of_unseen in ((changed & ~unseen, False), (changed & unseen, True)):
                variance[rows] += self._square(self._size(concept, of_unseen), effect[rows])
        return variance

    def of_averages(self, concept: int, baseline: int, labels: np.ndarray, effects: np.ndarray) -> np.ndarray:
        """Return the mean square of the model's error of effects that are averaged over cells.

        What strata have in common stays whole; the rest is taken to be independent between them, so that it counts
        with the square of each stratum's share of the cells.

        Parameters
        ----------
        concept
            Index of the concept.
        baseline
            Code of the label that the others are compared with.
        labels
            The cells' own label codes, int [n x m].
        effects
            Average effect of each label, [labels x G].

        Returns
        -------
        float64 [labels x G]: 0 for the baseline itself; NaN where nothing was measured.
        """
        variance = np.zeros(effects.shape)
        error = self.errors.get(self.schema.names[concept])
        by = [] if error is None else [self.schema.index(each) for each in error.strata]
        stratum = np.unique(labels[:, by], axis=0, return_inverse=True)[1].ravel() if by else np.zeros(len(labels), int)
        weight = np.bincount(stratum) / len(labels)
        for label in set(range(len(effects))) - {baseline}:
            effect = effects[label]
            seen = self._square(None if error is None else error.stratum, effect)
            shared = np.minimum(self._square(None if error is None else error.shared, effect), seen)
            variance[label] = shared + (weight**2).sum() * (seen - shared)
            unseen = np.logical_or.reduce([self.find_unseen([(concept, code)], labels) for code in (baseline, label)])
            if unseen.any():
                excess = self._square(None if error is None else error.unseen, effect) - seen
                variance[label] += (weight**2 * np.bincount(stratum, unseen) / np.bincount(stratum)).sum() * excess
        return variance

    def _size(self, concept: int, unseen: bool) -> ErrorSize | None:
        error = self.errors.get(self.schema.names[concept])
        return None if error is None else error.unseen if unseen else error.stratum

    def _square(self, size: ErrorSize | None, effect: np.ndarray) -> np.ndarray:
        if size is None:
            return np.full(effect.shape, np.nan)
        return np.asarray(size.constant * self.deviation**2 + size.relative * np.asarray(effect, dtype=np.float64) ** 2)


def cell_half_width(
    uncertainty: EffectUncertainty,
    targets: Iterable[tuple[int, int]],
    labels: np.ndarray,
    effect: np.ndarray,
    deviation: np.ndarray,
    draws: int,
    level: float = LEVEL,
) -> np.ndarray:
    """Return half the width of the intervals of single cells' effects.

    The cell's true effect is taken for one more draw, so that the draws' variance counts 1 + 1 / draws times.

    Parameters
    ----------
    uncertainty
        The model's measured errors.
    targets
        Pairs of a concept's index and the code of its target label; none for the factual cell.
    labels
        The cells' own label codes, int [n x m].
    effect, deviation
        Mean and standard deviation over draws of each cell's effect, [n x G].
    draws
        Number of draws.
    level
        Share of the intervals that hold the effect.

    Returns
    -------
    float64 [n x G]; NaN where nothing was measured.
    """
    error = uncertainty.of_cells(targets, labels, effect)
    return half_width(np.asarray(deviation, dtype=np.float64) ** 2 * (1 + 1 / draws), error, draws - 1, level)


def describe_intervals(uncertainty: EffectUncertainty, concepts: Iterable[int], level: float) -> dict[str, Any]:
    """Return what ``uns`` says of intervals: their level, and what they rest on and do not cover."""
    measured = uncertainty.is_measured(concepts)
    return {"interval": level, "interval_covers": LIMITS if measured else UNMEASURED}
