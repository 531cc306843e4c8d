"""Contract test of metrics, for their authors: what tables and reports count on."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from causcell.evaluation.correlations import EXPRESSED
from causcell.evaluation.distances import median_distance
from causcell.evaluation.registry import METRICS, Better, Kind, Metric

_CELLS, _GENES = 120, 60
_TOLERANCE = 1e-5
"""Largest relative change by reordering: sums in float32 differ by far less, a wrong pairing by far more."""

Arrays = tuple["np.ndarray | float", ...]
"""Arguments of a metric's function."""


def check_metric(metric: str | Metric, *, seed: int = 0) -> None:
    """Check that a metric's function is what its kind says.

    It is called on simulated cells and shifts, in float32 and float64, and must

    - return a finite float, or `None`, also of few cells and of cells without any variance;
    - return the same value for the same arrays, and leave these as they are;
    - return, within 1e-5, what its ``kernel`` and ``prepare`` make of them, if it has any;
    - take ``shared``, and return the same without any noise in common, if it is ``of_shared_noise``;
    - return the same value, within 1e-5 of its size, for cells or genes in another order;
    - be better, in the sense of ``metric.better``, for what is right than for what is plainly wrong.

    Parameters
    ----------
    metric
        The name of a registered metric, as `Metric.key` has it, or a `Metric`.
    seed
        Seed of the simulated arrays.

    Raises
    ------
    AssertionError
        The metric does not keep to one of these; the message says which, with the values found.
    ConfigurationError
        The name is not known.

    Examples
    --------
    >>> import numpy as np
    >>> metric = Metric("median_error", lambda real, made: float(np.median(abs(real - made))), "cells", "lower")
    >>> check_metric(metric)
    >>> check_metric("pcc")
    """
    metric = METRICS[metric] if isinstance(metric, str) else metric
    rng = np.random.default_rng(seed)
    for dtype in (np.float64, np.float32):
        right, wrong, edges = _EXAMPLES[metric.kind](rng, dtype)
        value = _call(metric, right)
        assert value is not None, f"{metric.name}: returned None for {_shapes(right)}, where it can be taken"
        for faster, found in _call_faster_ways(metric, right).items():
            assert math.isclose(found, value, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE), (
                f"{metric.name}: its function returned {value}, and its {faster} makes {found} of the same arrays"
            )
        if metric.of_shared_noise:
            without = metric.function(*right, shared=0.0)
            assert without == value, f"{metric.name}: returned {value}, and {without} for shared=0.0, which is no noise"
        again = _call(metric, right)
        assert again == value, f"{metric.name}: returned {value} and then {again} for the same arrays"
        reordered = _call(metric, _reorder(metric.kind, right, rng))
        assert reordered is not None, f"{metric.name}: returned None for the same cells and genes in another order"
        assert math.isclose(value, reordered, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE), (
            f"{metric.name}: returned {value}, and {reordered} for the same cells and genes in another order"
        )
        worse = _call(metric, wrong)
        target = _call(metric, edges[0]) if metric.better == "real" else None
        assert worse is None or _badness(metric.better, value, target) < _badness(metric.better, worse, target), (
            f"{metric.name}: {metric.better!r} is better, but it is {value} for what is right and {worse} for what is "
            "plainly wrong"
        )
        for arrays in edges:
            _call(metric, arrays)


def _call(metric: Metric, arrays: Arrays) -> float | None:
    """Take the metric, and check what it returns and that it leaves its arguments as they were."""
    given = tuple(each.copy() if isinstance(each, np.ndarray) else each for each in arrays)
    value = metric.function(*given)
    for before, after in zip(arrays, given, strict=True):
        assert np.array_equal(before, after), f"{metric.name}: changed an array that it was given ({_shapes(arrays)})"
    if value is None:
        return None
    assert isinstance(value, float), f"{metric.name}: returned a {type(value).__name__} for {_shapes(arrays)}, no float"
    assert math.isfinite(value), f"{metric.name}: returned {value} for {_shapes(arrays)}; return None where it has none"
    return value


def _call_faster_ways(metric: Metric, arrays: Arrays) -> dict[str, float]:
    """Take the metric by its ``kernel`` and by ``prepare``, where it has them."""
    found: dict[str, float] = {}
    if metric.kernel is not None:
        real, made, bandwidth = (np.asarray(each, dtype=np.float64) for each in arrays)
        between, *within = (
            metric.kernel(((a[:, None] - b) ** 2).sum(axis=2), float(bandwidth))
            for a, b in ((real, made), (real, real), (made, made))
        )
        means = [(kernel.sum() - np.trace(kernel)) / (len(kernel) * (len(kernel) - 1)) for kernel in within]
        found["kernel"] = float(2 * between.mean() - sum(means))
    if metric.prepare is not None:
        value = metric.prepare(np.asarray(arrays[0]), float(arrays[2]))(np.asarray(arrays[1]))
        found["prepare"] = math.nan if value is None else value
    return found


def _badness(better: Better, value: float, target: float | None) -> float:
    """Return a number that is smaller the better the value is."""
    if better == "higher":
        return -value
    if better == "lower":
        return value
    return abs(value - (1.0 if target is None else target))


def _shapes(arrays: Arrays) -> str:
    return ", ".join(f"{each.dtype} {list(each.shape)}" if isinstance(each, np.ndarray) else "float" for each in arrays)


def _reorder(kind: Kind, arrays: Arrays, rng: np.random.Generator) -> Arrays:
    """Put rows and columns into another order: the same in all arrays, but for rows of cells that are not matched."""
    matrices = [each for each in arrays if isinstance(each, np.ndarray)]
    columns = rng.permutation(matrices[0].shape[-1])
    rows = rng.permutation(len(matrices[0]))
    found: list[np.ndarray | float] = []
    for each in arrays:
        if isinstance(each, np.ndarray) and each.ndim == 2:
            unmatched = kind in ("distribution", "counterfactual")
            found.append(each[rng.permutation(len(each)) if unmatched else rows][:, columns])
        else:
            found.append(each[columns] if isinstance(each, np.ndarray) else each)
    return tuple(found)


def _simulate_cells(rng: np.random.Generator, dtype: type[np.floating]) -> np.ndarray:
    """Simulate cells [120 x 60] of one label, log scale: genes in three modules that vary together, a third zero."""
    shared = np.repeat(rng.standard_normal((_CELLS, 3)), _GENES // 3, axis=1)
    values = np.linspace(0.5, 2, _GENES) + 0.8 * shared + 0.5 * rng.standard_normal((_CELLS, _GENES))
    return np.asarray(np.where(values > EXPRESSED, values, 0), dtype=dtype)


def _matched_examples(rng: np.random.Generator, dtype: type[np.floating]) -> tuple[Arrays, Arrays, list[Arrays]]:
    real = _simulate_cells(rng, dtype)
    near = np.maximum(real + 0.01 * rng.standard_normal(real.shape).astype(dtype), 0)
    far = 4 * _simulate_cells(rng, dtype)[:, ::-1]
    return (real, near), (real, far), [(real[:3], near[:3])]


def _distribution_examples(rng: np.random.Generator, dtype: type[np.floating]) -> tuple[Arrays, Arrays, list[Arrays]]:
    real, alike = _simulate_cells(rng, dtype), _simulate_cells(rng, dtype)
    bandwidth = median_distance(real)
    far = np.asarray(4 * rng.random((_CELLS - 20, _GENES)), dtype=dtype)
    constant = np.tile(real.mean(axis=0), (_CELLS, 1))
    return (
        (real, alike, bandwidth),
        (real, far, bandwidth),
        [(real[:8], alike[:8], bandwidth), (real, constant, bandwidth)],
    )


def _label_examples(rng: np.random.Generator, dtype: type[np.floating]) -> tuple[Arrays, Arrays, list[Arrays]]:
    right, wrong, _ = _matched_examples(rng, dtype)
    real = np.asarray(right[0])
    return right, wrong, [(real, np.tile(real.mean(axis=0), (_CELLS, 1))), (real[:16], real[:16])]


def _summary_examples(rng: np.random.Generator, dtype: type[np.floating]) -> tuple[Arrays, Arrays, list[Arrays]]:
    real = _simulate_cells(rng, dtype)
    return (_simulate_cells(rng, dtype),), (4 * real + 1,), [(real,), (np.zeros_like(real),)]


def _effect_examples(rng: np.random.Generator, dtype: type[np.floating]) -> tuple[Arrays, Arrays, list[Arrays]]:
    real = rng.standard_normal(_GENES).astype(dtype)
    zero = np.zeros_like(real)
    return (real, real), (-3 * real[::-1], real), [(zero, real), (real, zero), (zero, zero)]


def _size_examples(rng: np.random.Generator, dtype: type[np.floating]) -> tuple[Arrays, Arrays, list[Arrays]]:
    right, wrong, edges = _effect_examples(rng, dtype)
    variance = np.full(_GENES, 0.01, dtype=dtype)
    return (*right, variance), (*wrong, variance), [(*each, variance) for each in edges]


def _genes_examples(rng: np.random.Generator, dtype: type[np.floating]) -> tuple[Arrays, Arrays, list[Arrays]]:
    differ = np.arange(_GENES) % 4 == 0
    shift = np.where(differ, 1 + rng.random(_GENES), 0.1 * rng.random(_GENES)).astype(dtype)
    everything, nothing = np.ones(_GENES, dtype=bool), np.zeros(_GENES, dtype=bool)
    return (shift, differ), (shift, ~differ), [(shift, everything), (shift, nothing), (np.zeros_like(shift), differ)]


def _directions_examples(rng: np.random.Generator, dtype: type[np.floating]) -> tuple[Arrays, Arrays, list[Arrays]]:
    ways = np.array([1, -1, 0])[np.arange(_GENES) % 3]
    shift = (ways * (1 + rng.random(_GENES)) + 0.1 * rng.standard_normal(_GENES)).astype(dtype)
    nothing, zero = np.zeros(_GENES, dtype=np.int64), np.zeros_like(shift)
    return (shift, ways), (-shift, ways), [(shift, nothing), (zero, ways), (zero, nothing)]


def _counterfactual_examples(rng: np.random.Generator, dtype: type[np.floating]) -> tuple[Arrays, Arrays, list[Arrays]]:
    target, alike, moved = (_simulate_cells(rng, dtype) for _ in range(3))
    nearest = moved + 1
    bandwidth = median_distance(target)
    far = np.asarray(4 * rng.random((_CELLS - 20, _GENES)), dtype=dtype)
    return (
        (alike, target, nearest, bandwidth),
        (far, target, nearest, bandwidth),
        [(alike[:8], target, nearest[:8], bandwidth), (alike, target, target, bandwidth)],
    )


_EXAMPLES: dict[Kind, Callable[..., tuple[Arrays, Arrays, list[Arrays]]]] = {
    "cells": _matched_examples,
    "distribution": _distribution_examples,
    "label": _label_examples,
    "summary": _summary_examples,
    "effect": _effect_examples,
    "size": _size_examples,
    "genes": _genes_examples,
    "directions": _directions_examples,
    "counterfactual": _counterfactual_examples,
}
"""By kind: arguments that are right, arguments that are plainly wrong, and arguments at the edge (of a summary the real
cells first)."""
