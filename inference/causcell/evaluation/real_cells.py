"""Real cells that generated ones are held against: what depends on them alone is computed once for all that are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from causcell.evaluation.distances import squared_distances
from causcell.evaluation.registry import REAL_SUFFIX, Metric, registered_metrics

Compare = Callable[[np.ndarray], "float | None"]
"""A distribution's metric against the real cells of one half, as a function of generated cells."""


class RealCells:
    """Real cells of several labels, halved at random within each; see `causcell.evaluation.quality.sample_quality`.

    Parameters
    ----------
    real
        Expression, [n x G], log scale.
    labels
        A label a cell, [n].
    splits
        Number of random halvings of each label.
    min_cells
        Labels with fewer cells are left out of measures within labels.

    Examples
    --------
    >>> import numpy as np
    >>> real = np.random.default_rng(0).random((40, 30))
    >>> cells = RealCells(real, np.repeat(["a", "b"], 20))
    >>> cells.sample_quality(real)["variance_ratio"], cells.measure_quality(real)["mse"]
    (1.0, 0.0)
    """

    def __init__(self, real: np.ndarray, labels: np.ndarray, *, splits: int = 5, min_cells: int = 16) -> None:
        self._real = real
        rng = np.random.default_rng(0)
        self._labels: list[_LabelCells] = []
        for label in np.unique(labels):
            rows = np.flatnonzero(labels == label)
            if len(rows) >= min_cells:
                order = np.arange(len(rows))
                halves = [np.array_split(rng.permutation(order), 2) for _ in range(splits)]
                self._labels.append(_LabelCells(rows, real[rows], [(a, b) for a, b in halves]))
        self._summary = {metric.name: metric.function(real) for metric in registered_metrics("summary")}

    def sample_quality(self, generated: np.ndarray) -> dict[str, float]:
        """Measure cells [n x G], row i generated from row i of the real ones, as a distribution within labels.

        Returns
        -------
        Values by the metrics' names; see `causcell.evaluation.quality.sample_quality`.
        """
        measured: dict[str, list[tuple[int, float]]] = {}
        for label in self._labels:
            for name, value in label.measure(generated[label.rows]).items():
                measured.setdefault(name, []).append((len(label.rows), value))
        quality = {
            name: float(np.average([value for _, value in values], weights=[size for size, _ in values]))
            for name, values in measured.items()
        }
        made = {metric.name: metric.function(generated) for metric in registered_metrics("summary")}
        for suffix, values in (("", made), (REAL_SUFFIX, self._summary)):
            quality |= {f"{name}{suffix}": value for name, value in values.items() if value is not None}
        return quality

    def measure_quality(self, generated: np.ndarray) -> dict[str, float]:
        """Take every registered metric of expression; see `causcell.evaluation.quality.measure_quality`."""
        matched = measure_matched_cells(self._real, generated)
        return {name: value for name, value in matched.items() if value is not None} | self.sample_quality(generated)


def measure_matched_cells(real: np.ndarray, generated: np.ndarray) -> dict[str, float | None]:
    """Take every metric of kind ``cells`` on real and generated expression of the same cells, [n x G].

    Returns
    -------
    Values by the metrics' names; `None` for one that could not be taken.
    """
    return {metric.name: metric.function(real, generated) for metric in registered_metrics("cells")}


@dataclass(frozen=True)
class _Half:
    """One halving of a label's cells: cells generated from rows ``a`` are held against the real cells of rows ``b``."""

    a: np.ndarray
    b: np.ndarray
    within: dict[str, float]
    """Mean of each metric's kernel over pairs of the real cells ``b``."""

    compare: dict[str, Compare]
    """Metrics without a kernel."""


class _LabelCells:
    """Real cells of one label; measures of cells generated from them."""

    def __init__(self, rows: np.ndarray, real: np.ndarray, halves: list[tuple[np.ndarray, np.ndarray]]) -> None:
        self.rows, self._real = rows, real
        self._centre = real.mean(axis=0, dtype=np.float64)  # squares are of numbers near zero, and lose less
        self._centred = real - self._centre
        squared = squared_distances(self._centred, self._centred)
        self._bandwidth = float(np.median(np.sqrt(squared[np.triu_indices(len(real), 1)])))
        kernels = self._evaluate_kernels(self._centred, self._centred)
        self._halves = [
            _Half(
                a,
                b,
                {name: _mean_within(kernel, b) for name, kernel in kernels.items()},
                {
                    metric.name: self._prepare(metric, real[b])
                    for metric in registered_metrics("distribution")
                    if metric.kernel is None
                },
            )
            for a, b in halves
        ]
        self._of_real = {
            f"{name}{REAL_SUFFIX}": value for name, value in self._measure_distribution(real, kernels, kernels).items()
        }

    def measure(self, generated: np.ndarray) -> dict[str, float]:
        """Take the metrics of distributions, their twins of real cells, and the metrics of labels."""
        centred = generated - self._centre
        between = self._evaluate_kernels(self._centred, centred)
        among = self._evaluate_kernels(centred, centred)
        found = self._measure_distribution(generated, between, among) | self._of_real
        for metric in registered_metrics("label"):
            value = metric.function(self._real, generated)
            if value is not None:
                found[metric.name] = value
        return found

    def _evaluate_kernels(self, a: np.ndarray, b: np.ndarray) -> dict[str, np.ndarray]:
        """Evaluate the kernels of all metrics that have one between two sets of centred cells, [n x m] each."""
        metrics = {metric.name: metric.kernel for metric in registered_metrics("distribution") if metric.kernel}
        squared = squared_distances(a, b) if metrics else np.empty(0)
        return {name: kernel(squared, self._bandwidth) for name, kernel in metrics.items()}

    def _measure_distribution(
        self, cells: np.ndarray, between: dict[str, np.ndarray], among: dict[str, np.ndarray]
    ) -> dict[str, float]:
        """Average over halvings, with kernels between real and other cells and among these; all halvings or none."""
        found = {}
        for metric in registered_metrics("distribution"):
            name = metric.name
            if metric.kernel is not None:
                values: list[float | None] = [
                    2 * float(between[name][np.ix_(half.b, half.a)].mean())
                    - half.within[name]
                    - _mean_within(among[name], half.a)
                    for half in self._halves
                ]
            else:
                values = [half.compare[name](cells[half.a]) for half in self._halves]
            taken = [value for value in values if value is not None]
            if len(taken) == len(values):
                found[name] = float(np.mean(taken))
        return found

    def _prepare(self, metric: Metric, real: np.ndarray) -> Compare:
        if metric.prepare is not None:
            return metric.prepare(real, self._bandwidth)
        return lambda cells: metric.function(real, cells, self._bandwidth)


def _mean_within(kernel: np.ndarray, rows: np.ndarray) -> float:
    """Average a kernel [n x n] over pairs of different cells among some rows."""
    part = kernel[np.ix_(rows, rows)]
    return float((part.sum() - np.trace(part)) / (len(rows) * (len(rows) - 1)))
