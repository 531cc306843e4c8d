"""The error of a model's effects, measured against the differences between labels of the cells it was trained on.

Within a stratum (cells with the same labels of the concept's parents, which close every back door of the graph) the
training cells' difference between two labels is an effect, measured with sampling variance v. A prediction p for
held-out cells of the stratum, itself with sampling variance w over these cells, differs from it by

    E (p - r)^2 = error^2 + w + v - 2 cov(error, noise of r),

where the covariance is 0 for a model that knows nothing of the noise of its training cells, and v for one that repeats
it. It is taken for half of v: nothing is taken off but w (chosen on two worlds of the simulator; what others and real
cells say stands in ``tests/benchmarks/results/coverage.md``). The error is then fitted as ``constant deviation^2 +
relative effect^2`` by least squares with weights of its own, neither below zero.

- What strata have in common is fitted to products (p - r)(p' - r') of two strata, whose noises are independent.
- For labels that never met in training: the mean prediction of the *other* strata stands in for a model that knows
  nothing of this one. Its error is what the effects' spread between strata makes it.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from causcell._internal.confidence import LEVEL, half_width
from causcell.concepts import UNLABELLED, ConceptSchema
from causcell.errors import CausCellWarning
from causcell.generator import Generator
from causcell.repository.effect_error import EffectError, ErrorSize

if TYPE_CHECKING:
    import anndata

_DRAWS = 2
_MOST_ROWS = 40_000
"""Counterfactual cells of a concept at most."""

_MOST_CELLS = 1024
_MOST_SHIFTS = 256
_MIN_GROUP = 8
"""Training cells of a group at least."""

_MIN_CELLS = 2
"""Held-out cells of a group at least."""

_ENOUGH = 4
"""Cells of a label that are looked for, in a sample of all cells or in a stratum."""

_MIN_TESTED = 4
_ROUNDS = 6
_SMALLEST = 1e-4
"""Smallest ``constant``: a hundredth of a gene's deviation."""


@dataclass(frozen=True)
class Shift:
    """Difference between two labels within a stratum, predicted and real.

    Attributes
    ----------
    labels
        Codes of the label of the cells and of the one they are set to.
    stratum
        Codes of the labels that all these cells carry.
    predicted, real
        Mean shift, float64 [G].
    predicted_variance, real_variance
        Their sampling variances, float64 [G].
    cells
        Number of cells of the two groups that ``real`` is the difference of.
    """

    labels: tuple[int, int]
    stratum: tuple[int, ...]
    predicted: np.ndarray
    real: np.ndarray
    predicted_variance: np.ndarray
    real_variance: np.ndarray
    cells: int


@dataclass(frozen=True)
class Groups:
    """Mean and variance of expression of cells that carry the same labels.

    Attributes
    ----------
    labels
        Label codes of each group, int32 [C x m].
    cells
        Number of cells of each, int64 [C].
    mean, variance
        Of each gene over the cells of a group, [C x G].
    """

    labels: np.ndarray
    cells: np.ndarray
    mean: np.ndarray
    variance: np.ndarray

    @classmethod
    def of_cells(cls, expression: np.ndarray, labels: np.ndarray) -> Groups:
        """Take the groups of cells with these labels; expression is float [n x G], log scale."""
        combinations, group, cells = np.unique(labels, axis=0, return_inverse=True, return_counts=True)
        parts = [expression[group.ravel() == i] for i in range(len(cells))]
        mean = np.stack([part.mean(axis=0, dtype=np.float64) for part in parts])
        variance = np.stack([part.var(axis=0, ddof=1) if len(part) > 1 else np.zeros(part.shape[1]) for part in parts])
        return cls(combinations, cells, mean, variance)

    def pool(self, members: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
        """Return number, mean and variance (n - 1) of the cells of several groups (rows, or bool [C])."""
        cells, mean = self.cells[members], self.mean[members].astype(np.float64)
        count = int(cells.sum())
        pooled = cells @ mean / max(1, count)
        inside = (cells - 1) @ self.variance[members].astype(np.float64)
        return count, pooled, (inside + cells @ (mean - pooled) ** 2) / max(1, count - 1)


class Predicted(NamedTuple):
    """Cells set to every label of a concept.

    Attributes
    ----------
    arms
        Mean estimates under each label, float32 [n x labels x G].
    labels
        The cells' own label codes, int32 [n x m].
    """

    arms: np.ndarray
    labels: np.ndarray


def measure_effect_errors(
    generator: Generator,
    validation: anndata.AnnData,
    test: anndata.AnnData,
    groups: Mapping[str, np.ndarray],
    *,
    seed: int = 0,
) -> dict[str, EffectError]:
    """Measure the error of the effects of every concept's labels, and on other cells whether intervals hold.

    Parameters
    ----------
    generator
        The model.
    validation, test
        Held-out cells, panel expression on the log scale [n x G], labels in ``obs``: effects are predicted for the
        first, intervals are tried on the second.
    groups
        The training cells by combinations of labels: ``labels`` int [C x m], ``cells`` [C], ``mean`` and ``variance``
        [C x G], log scale.
    seed
        Seed of generated cells.

    Returns
    -------
    Errors by concept; a concept without a stratum of at least eight training cells of two labels, and two validation
    cells, has none.
    """
    training = Groups(*(np.asarray(groups[name]) for name in ("labels", "cells", "mean", "variance")))
    held_out = Groups.of_cells(test.X.toarray(), generator.schema.encode(test.obs)) if test.n_obs else training
    deviation = generator.preprocessing.deviation.astype(np.float64)
    found = {}
    for concept, name in enumerate(generator.schema.names):
        by = find_strata(generator.schema, concept)
        source = find_most_frequent(training, concept, by)
        predicted = _predict(generator, validation, concept, by, source, seed)
        shifts = list(find_shifts(training, predicted.arms, predicted.labels, concept, by, source))
        if not shifts:
            continue
        strata = tuple(generator.schema.names[each] for each in by)
        error = fit_errors(shifts, deviation, strata)
        predicted = _predict(generator, test, concept, by, source, seed)
        tested = find_shifts(held_out, predicted.arms, predicted.labels, concept, by, source, least=_MIN_TESTED)
        found[name] = error.model_copy(update={"coverage": _measure_coverage(error, tested, deviation)})
    return found


def find_most_frequent(groups: Groups, concept: int, by: Sequence[int]) -> int:
    """Find the label of a concept that most cells of known strata carry; the first one where there is no such cell."""
    known = (groups.labels[:, [concept, *by]] != UNLABELLED).all(axis=1)
    return int(np.bincount(groups.labels[known, concept], groups.cells[known], minlength=1).argmax())


def find_strata(schema: ConceptSchema, concept: int) -> tuple[int, ...]:
    """Find the concepts within whose labels two labels of a concept are compared.

    Its parents, and the concept that stands for cell types unless it is one of the effects; where that leaves nothing,
    the first concept that is no effect.
    """
    effects = schema.descendants({concept}) | {concept}
    others = [each for each in range(len(schema.concepts)) if each not in effects]
    chosen = {*schema.parents(concept)} | ({schema.index(schema.cell_type_like)} & set(others))
    return tuple(sorted(chosen or others[:1]))


def find_shifts(
    groups: Groups,
    arms: np.ndarray,
    labels: np.ndarray,
    concept: int,
    by: Sequence[int],
    frequent: int,
    *,
    least: int = _MIN_GROUP,
) -> Iterable[Shift]:
    """Find all shifts between the most frequent label and another, in both directions, within strata.

    Parameters
    ----------
    groups
        Cells that show the real shifts.
    arms
        Expression of held-out cells set to every label of the concept, float [n x labels x G].
    labels
        Their own label codes, int [n x m].
    concept, by
        Indices of the concept and of those that make strata.
    frequent
        Code of the most frequent label.
    least
        Cells of each group that a real shift takes.
    """
    known = (groups.labels[:, [concept, *by]] != UNLABELLED).all(axis=1)
    if not known.any():
        return
    carried = np.bincount(labels[labels[:, concept] != UNLABELLED, concept], minlength=arms.shape[1])
    others = [label for label in range(arms.shape[1]) if label != frequent]
    pairs = [(frequent, other) for other in others] + [(other, frequent) for other in others]
    pairs = [(source, target) for source, target in pairs if carried[source] >= _MIN_CELLS]
    strata, of_group = np.unique(groups.labels[:, list(by)], axis=0, return_inverse=True)
    step = -(-len(strata) * len(pairs) // _MOST_SHIFTS) or 1
    pairs = pairs[::step]
    for place, stratum in enumerate(strata):
        inside = known & (of_group.ravel() == place)
        of_label = {code: groups.pool(inside & (groups.labels[:, concept] == code)) for code in range(arms.shape[1])}
        here = (labels[:, list(by)] == stratum).all(axis=1)
        for source, target in pairs:
            rows = np.flatnonzero(here & (labels[:, concept] == source))
            (n, a, v), (m, b, w) = of_label[source], of_label[target]
            if min(n, m) < least or len(rows) < _MIN_CELLS:
                continue
            effect = arms[rows, target].astype(np.float64) - arms[rows, source]
            spread = effect.var(axis=0, ddof=1) / len(rows)
            codes = tuple(int(code) for code in stratum)
            yield Shift((source, target), codes, effect.mean(axis=0), b - a, spread, v / n + w / m, n + m)


def fit_errors(shifts: Sequence[Shift], deviation: np.ndarray, strata: tuple[str, ...]) -> EffectError:
    """Fit the error of effects to shifts that were predicted and measured; see the module.

    Parameters
    ----------
    shifts
        At least one.
    deviation
        Standard deviation of each gene, [G].
    strata
        Names of the concepts that make strata.
    """
    square = deviation**2
    own = [((s.predicted - s.real) ** 2 - s.predicted_variance, s.predicted**2, s.real_variance) for s in shifts]
    stratum = _fit(own, square)
    pairs, left_out = [], []
    for labels in dict.fromkeys(shift.labels for shift in shifts):
        same = [shift for shift in shifts if shift.labels == labels]
        for s, t in itertools.combinations(same, 2):
            noise = np.sqrt(s.real_variance * t.real_variance)
            product = np.maximum(s.predicted * t.predicted, 0)
            pairs.append(((s.predicted - s.real) * (t.predicted - t.real), product, noise))
        for shift in same if len(same) > 1 else []:
            rest = [each.predicted for each in same if each is not shift]
            guess = np.mean(rest, axis=0)
            left_out.append(((guess - shift.real) ** 2 - shift.real_variance, guess**2, shift.real_variance))
    shared = _fit(pairs[:: -(-len(pairs) // _MOST_SHIFTS)], square) if pairs else stratum
    unseen = _fit(left_out, square) if left_out else None
    return EffectError(
        strata=strata,
        shifts=len(shifts),
        stratum=stratum,
        shared=shared,
        unseen=None if unseen is None else _larger(unseen, stratum),
    )


def _larger(size: ErrorSize, other: ErrorSize) -> ErrorSize:
    constant, relative = max(size.constant, other.constant), max(size.relative, other.relative)
    return ErrorSize(constant=constant, relative=relative)


def _fit(items: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], square: np.ndarray) -> ErrorSize:
    """Fit squared errors by squared effects, each [G] and in units of ``square``, the noise of their measure given."""
    from scipy.optimize import nnls

    error, effect, noise = (np.array([each[i] for each in items]) / square for i in range(3))
    noise = np.broadcast_to(noise.mean(axis=1, keepdims=True), error.shape)  # smooth: a weight tells nothing of errors
    constant, relative = max(float(error.mean()), _SMALLEST), 0.0
    for _ in range(_ROUNDS):
        weight = 1 / (constant + relative * effect + noise)
        (constant, relative), _ = nnls(
            np.stack([weight.ravel(), (weight * effect).ravel()], axis=1), (weight * error).ravel()
        )
        constant = max(float(constant), _SMALLEST)
    return ErrorSize(constant=round(constant, 6), relative=round(float(relative), 6))


def _predict(
    generator: Generator, cells: anndata.AnnData, concept: int, by: Sequence[int], frequent: int, seed: int
) -> Predicted:
    """Set some of the cells to every label of a concept."""
    schema = generator.schema
    count, genes = len(schema.concepts[concept].labels), len(generator.preprocessing.genes)
    most = min(_MOST_CELLS, max(1, _MOST_ROWS // (count * _DRAWS)))
    labels = schema.encode(cells.obs)
    rows = np.arange(0, len(labels), -(-len(labels) // most) or 1)
    if most < _ENOUGH * count:
        rows = choose_carriers(labels, concept, by, frequent, most)
    chosen, labels = cells[rows], labels[rows]
    if not chosen.n_obs:
        return Predicted(np.empty((0, count, genes), dtype=np.float32), labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausCellWarning)  # of combinations that no training cell carries: meant
        grid = generator.counterfactual(
            chosen, grid=[schema.names[concept]], preset="mean", draws=_DRAWS, seed=seed, expression="log1p"
        )
    return Predicted(np.asarray(grid.X).reshape(chosen.n_obs, count, _DRAWS, genes).mean(axis=2), labels)


def choose_carriers(labels: np.ndarray, concept: int, by: Sequence[int], label: int, most: int) -> np.ndarray:
    """Choose at most so many cells that carry a label, the same number of each stratum, of the largest strata first.

    Of hundreds of labels a sample of all cells would hold one or two of each, from which no effect can be taken.
    """
    carriers = np.flatnonzero((labels[:, concept] == label) & (labels[:, list(by)] != UNLABELLED).all(axis=1))
    _, strata, sizes = np.unique(labels[carriers][:, list(by)], axis=0, return_inverse=True, return_counts=True)
    of_each = max(_ENOUGH, most // max(1, len(sizes)))
    largest = np.argsort(-sizes, kind="stable")
    chosen = [carriers[strata.ravel() == stratum][:of_each] for stratum in largest]
    return np.sort(np.concatenate([np.empty(0, dtype=np.int64), *chosen])[:most])


def _measure_coverage(error: EffectError, tested: Iterable[Shift], deviation: np.ndarray) -> float | None:
    """Measure the share of test cells' shifts, over genes, that 90 % intervals hold; their noise widens these."""
    held = []
    for shift in tested:
        square = error.stratum.constant * deviation**2 + error.stratum.relative * shift.predicted**2
        half = half_width(shift.real_variance + shift.predicted_variance, square, shift.cells - 2, LEVEL)
        held.append(np.mean(np.abs(shift.predicted - shift.real) <= half))
    return round(float(np.mean(held)), 4) if held else None
