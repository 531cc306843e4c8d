"""The one place where metrics register: the tables, ``causcell benchmark`` and the exporter measure what is here.

To add a metric, make a `Metric` and either call `register_metric` before an evaluation, or name it in the packaging of
another distribution, under the entry-point group ``causcell.metrics``; it is found when the first metric is asked
for::

    [project.entry-points."causcell.metrics"]
    median_error = "my_package.metrics:MEDIAN_ERROR"

`causcell.evaluation.contract.check_metric` tests that a metric is what its kind says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from typing import Literal, get_args

from causcell.errors import ConfigurationError, format_list
from causcell.evaluation import metrics

Kind = Literal["cells", "distribution", "label", "summary", "effect", "genes"]
Better = Literal["higher", "lower", "one", "real"]

KINDS: dict[Kind, str] = {
    "cells": "function(real, generated): matched cells, both [n x G]; column of the table of mean estimates",
    "distribution": "function(real, generated, bandwidth): cells of one label, [n x G] and [m x G], not matched, and "
    "the median distance between that label's real cells; real cells are measured against real ones too",
    "label": "function(real, generated): matched cells of one label, both [n x G]",
    "summary": "function(cells): a property of one set of cells [n x G]; real cells are measured too",
    "effect": "function(predicted, real): mean shifts of expression, both [G]",
    "genes": "function(predicted, differential): a mean shift [G], and the genes that truly differ, bool [G]",
}
"""Arguments of the function of each kind of metric; arrays are expression on the log scale. It returns a float, or
`None` where it can't be taken. Values of ``distribution`` and ``label`` are averaged over labels, weighted by cells."""

BETTER: dict[Better, str] = {
    "higher": "the higher the better",
    "lower": "the lower the better",
    "one": "best at 1",
    "real": "best at the value of the real cells (kind summary alone)",
}
"""Directions in which a metric is good."""

GROUP = "causcell.metrics"
"""Entry-point group of metrics in other distributions."""

REAL_SUFFIX = "_real"
"""Ends the names of the values that real cells have, among the values of generated ones."""

_RESERVED = ("cells",)
_SHIFT_KINDS: tuple[Kind, ...] = ("effect", "genes")


@dataclass(frozen=True)
class Metric:
    """A measure of generated cells or of predicted effects.

    Attributes
    ----------
    name
        Key of its values, an identifier.
    function
        Computes it; see `KINDS` for the arguments and the result.
    kind
        One of `KINDS`.
    better
        One of `BETTER`.
    title
        Head of its column in tables; the name with spaces for underscores, if not given.

    Raises
    ------
    ConfigurationError
        A name, kind or direction that is not allowed, or a function that can't be called.

    Examples
    --------
    >>> import numpy as np
    >>> metric = Metric("median_error", lambda real, made: float(np.median(abs(real - made))), "cells", "lower")
    >>> metric.title
    'median error'
    """

    name: str
    function: Callable[..., float | None]
    kind: Kind
    better: Better
    title: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z]\w*", self.name) or self.name.endswith(REAL_SUFFIX) or self.name in _RESERVED:
            raise ConfigurationError(
                f"the metric's name is {self.name!r}; take letters, digits and underscores, beginning with a letter, "
                f"not ending with {REAL_SUFFIX!r}, and not {format_list(_RESERVED)}"
            )
        if self.kind not in get_args(Kind):
            raise ConfigurationError(f"metric {self.name!r}: kind is {self.kind!r}; kinds are {format_list(KINDS)}")
        if self.better not in get_args(Better) or (self.better == "real") != (self.kind == "summary"):
            allowed = ("real",) if self.kind == "summary" else [each for each in BETTER if each != "real"]
            raise ConfigurationError(
                f"metric {self.name!r}: better is {self.better!r}; for kind {self.kind!r} take {format_list(allowed)}"
            )
        if not callable(self.function):
            raise ConfigurationError(f"metric {self.name!r}: function is {self.function!r}, which can't be called")
        if not self.title:
            object.__setattr__(self, "title", self.name.replace("_", " "))

    @property
    def measures_shifts(self) -> bool:
        """`True` for metrics of predicted shifts, `False` for metrics of expression."""
        return self.kind in _SHIFT_KINDS


class MetricRegistry:
    """Metrics by name, in the order of their registration.

    Parameters
    ----------
    builtin
        Metrics to begin with.
    group
        Entry-point group to look for more in, at the first request; none for `None`.
    """

    def __init__(self, builtin: Iterable[Metric] = (), *, group: str | None = None) -> None:
        self._metrics: list[Metric] = []
        self._group = group
        for metric in builtin:
            self._metrics.append(self._unclashing(metric, self._metrics))

    def register(self, metric: Metric) -> Metric:
        """Add a metric and return it.

        Raises
        ------
        ConfigurationError
            Its name or title is taken: names are unique among metrics of expression, and among those of shifts.
        """
        self._load()
        self._metrics.append(self._unclashing(metric, self._metrics))
        return metric

    def of_kind(self, kind: Kind) -> tuple[Metric, ...]:
        """Return the metrics of a kind, those of other distributions included.

        Raises
        ------
        ConfigurationError
            A metric of another distribution can't be loaded, is no `Metric`, or has a name that is taken.
        """
        self._load()
        return tuple(metric for metric in self._metrics if metric.kind == kind)

    def _load(self) -> None:
        """Add the metrics of other distributions: all of them, or none if one is not usable."""
        if self._group is None:
            return
        found = list(self._metrics)
        for entry in sorted(metadata.entry_points(group=self._group), key=lambda each: (each.name, each.value)):
            origin = f"metric {entry.name!r} ({entry.value}) of {entry.dist.name if entry.dist else 'a distribution'}"
            try:
                metric = entry.load()
            except Exception as error:  # whatever another distribution's module raises
                raise ConfigurationError(
                    f"{origin} can't be loaded ({type(error).__name__}: {error}); mend or uninstall that distribution"
                ) from error
            if not isinstance(metric, Metric):
                raise ConfigurationError(
                    f"{origin} is a {type(metric).__name__}; the entry point must name a "
                    "causcell.evaluation.registry.Metric"
                )
            try:
                found.append(self._unclashing(metric, found))
            except ConfigurationError as error:
                raise ConfigurationError(f"{origin}: {error}") from error
        self._metrics, self._group = found, None

    @staticmethod
    def _unclashing(metric: Metric, others: Iterable[Metric]) -> Metric:
        for other in others:
            if other.measures_shifts == metric.measures_shifts and (
                other.name == metric.name or other.title == metric.title
            ):
                raise ConfigurationError(
                    f"a metric named {metric.name!r}, titled {metric.title!r}, clashes with {other.name!r}, titled "
                    f"{other.title!r}, which is registered already; take another name and title"
                )
        return metric


_REGISTRY = MetricRegistry(
    (
        Metric("pcc", metrics.pearson, "cells", "higher", title="PCC"),
        Metric("mse", metrics.mean_squared_error, "cells", "lower", title="MSE"),
        Metric("energy_distance", lambda real, made, bandwidth: metrics.energy_distance(made, real), "distribution",
               "lower"),
        Metric("mmd", lambda real, made, bandwidth: metrics.maximum_mean_discrepancy(made, real, bandwidth),
               "distribution", "lower", title="MMD"),
        Metric("correlations", lambda real, made, bandwidth: metrics.correlations_kept(made, real), "distribution",
               "higher"),
        Metric("variance_ratio", metrics.variance_ratio, "label", "one"),
        Metric("nonzero", metrics.nonzero_share, "summary", "real"),
        Metric("nonzero_mean", metrics.nonzero_mean, "summary", "real"),
        Metric("pcc", metrics.shift_correlation, "effect", "higher"),
        Metric("spearman", metrics.shift_rank_correlation, "effect", "higher"),
        Metric("top_overlap", metrics.strongest_overlap, "effect", "higher", title="top_overlap"),
        Metric("slope", metrics.shift_slope, "effect", "one"),
        Metric("AUC", lambda predicted, differ: metrics.ranking_score(abs(predicted), differ), "genes", "higher"),
    ),
    group=GROUP,
)  # fmt: skip


def register_metric(
    name: str, function: Callable[..., float | None], *, kind: Kind, better: Better, title: str = ""
) -> Metric:
    """Register a metric for all evaluations of this process.

    Parameters
    ----------
    name, function, kind, better, title
        See `Metric`; the function's arguments follow from the kind, see `KINDS`.

    Returns
    -------
    The metric, for `causcell.evaluation.contract.check_metric`.

    Raises
    ------
    ConfigurationError
        The name or title is taken, or a value is not allowed.
    """
    return _REGISTRY.register(Metric(name, function, kind, better, title))


def registered_metrics(kind: Kind) -> tuple[Metric, ...]:
    """Return the metrics of a kind in the order of their registration, those of other distributions included.

    Raises
    ------
    ConfigurationError
        A metric of another distribution can't be used.

    Examples
    --------
    >>> [metric.name for metric in registered_metrics("cells")][:2]
    ['pcc', 'mse']
    """
    return _REGISTRY.of_kind(kind)
