"""Registry of metrics, those of this package and those from outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from causcell._internal.registry import Registry
from causcell.errors import ConfigurationError, format_list
from causcell.evaluation import correlations, distances, metrics

Kind = Literal["cells", "distribution", "label", "summary", "effect", "size", "genes", "directions", "counterfactual"]
Better = Literal["higher", "lower", "one", "real"]

KINDS: dict[Kind, str] = {
    "cells": "function(real, generated): matched cells, both [n x G]; column of the table of mean estimates",
    "distribution": "function(real, generated, bandwidth): cells of one label, [n x G] and [m x G], not matched, and "
    "the median distance between that label's real cells; real cells are measured against real ones too",
    "label": "function(real, generated): matched cells of one label, both [n x G]",
    "summary": "function(cells): a property of one set of cells [n x G]; real cells are measured too",
    "effect": "function(predicted, real): mean shifts of expression, both [G]",
    "size": "function(predicted, real, variance): mean shifts of expression, and the sampling variance of the real "
    "one, all [G]",
    "genes": "function(predicted, differential): a mean shift [G], and the genes that truly differ, bool [G]",
    "directions": "function(predicted, directions): a mean shift [G], and which way the genes that truly differ go, "
    "int [G]: 1 up, -1 down, 0 for genes that do not differ",
    "counterfactual": "function(made, target, nearest, bandwidth): counterfactual cells [n x G], the real target cells "
    "[m x G], the cells trained on that are nearest to those without carrying their labels [k x G], and the median "
    "distance between the target cells",
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

ENTRY_POINTS = "causcell.metrics"
"""Entry-point group of metrics from other packages; each names a `Metric`, and has its `Metric.key` for a name."""

REAL_SUFFIX = "_real"
"""Ends the names of the values that real cells have, among the values of generated ones."""

_RESERVED = ("cells",)
_SHIFT_KINDS: tuple[Kind, ...] = ("effect", "size", "genes", "directions", "counterfactual")


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
    kernel
        A faster way to the function of a ``distribution``, if there is one: k(squared distances, bandwidth) of pairs of
        cells, where the function is 2 mean k(real, generated) - mean k(real, real') - mean k(generated, generated'),
        no cell with itself. The distances are then taken once for all halvings and kernels.
    prepare
        Another: prepare(real, bandwidth) does what depends on the real cells alone, and returns a function of the
        generated ones, which is called for each of many.
    of_shared_noise
        The function of an ``effect`` or a ``size`` takes ``shared`` as well, by name: the noise that the prediction has
        in common with the real shift (`causcell.evaluation.metrics.shared_noise`), a float.

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
    kernel: Callable[[np.ndarray, float], np.ndarray] | None = None
    prepare: Callable[[np.ndarray, float], Callable[[np.ndarray], float | None]] | None = None
    of_shared_noise: bool = False

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or self.name.endswith(REAL_SUFFIX) or self.name in _RESERVED:
            raise ConfigurationError(
                f"the metric's name is {self.name!r}; take letters, digits and underscores, "
                f"not ending with {REAL_SUFFIX!r}, and not {format_list(_RESERVED)}"
            )
        if self.kind not in get_args(Kind):
            raise ConfigurationError(f"metric {self.name!r}: kind is {self.kind!r}; kinds are {format_list(KINDS)}")
        if self.better not in get_args(Better) or (self.better == "real") != (self.kind == "summary"):
            allowed = ("real",) if self.kind == "summary" else [each for each in BETTER if each != "real"]
            raise ConfigurationError(
                f"metric {self.name!r}: better is {self.better!r}; for kind {self.kind!r} take {format_list(allowed)}"
            )
        if self.kind != "distribution" and (self.kernel or self.prepare):
            raise ConfigurationError(f"metric {self.name!r}: kernel and prepare are for kind 'distribution' alone")
        if self.of_shared_noise and self.kind not in ("effect", "size"):
            raise ConfigurationError(f"metric {self.name!r}: of_shared_noise is for kinds 'effect' and 'size' alone")
        if not callable(self.function):
            raise ConfigurationError(f"metric {self.name!r}: function is {self.function!r}, which can't be called")
        if not self.title:
            object.__setattr__(self, "title", self.name.replace("_", " "))

    @property
    def key(self) -> str:
        """Name in the registry: that of the metric, after ``shift_`` for the kinds of the tables of effects.

        So a metric of expression and one of shifts, whose values never meet, may have one name.
        """
        return f"shift_{self.name}" if self.kind in _SHIFT_KINDS else self.name


def _check(name: str, found: object) -> Metric:
    if not isinstance(found, Metric):
        raise ConfigurationError(f"metric {name!r} is {found!r}; give a causcell.evaluation.Metric")
    if name != found.key:
        raise ConfigurationError(
            f"metric {name!r} is named {found.name!r}, of kind {found.kind!r}; name its entry point {found.key!r}"
        )
    return found


_BUILTIN = (
    Metric("pcc", metrics.pearson, "cells", "higher", title="PCC"),
    Metric("mse", metrics.mean_squared_error, "cells", "lower", title="MSE"),
    Metric("energy_distance", lambda real, made, bandwidth: distances.energy_distance(made, real), "distribution",
           "lower", kernel=lambda squared, bandwidth: np.sqrt(squared)),
    Metric("mmd", lambda real, made, bandwidth: distances.maximum_mean_discrepancy(made, real, bandwidth),
           "distribution", "lower", title="MMD",
           kernel=lambda squared, bandwidth: -np.exp(squared / (-2 * bandwidth**2))),
    Metric("correlations", lambda real, made, bandwidth: correlations.correlations_kept(made, real), "distribution",
           "higher", prepare=lambda real, bandwidth: correlations.compare_correlations(real)),
    Metric("variance_ratio", metrics.variance_ratio, "label", "one"),
    Metric("nonzero", metrics.nonzero_share, "summary", "real"),
    Metric("nonzero_mean", metrics.nonzero_mean, "summary", "real"),
    Metric("pcc", metrics.shift_correlation, "effect", "higher", of_shared_noise=True),
    Metric("spearman", metrics.shift_rank_correlation, "effect", "higher"),
    Metric("top_overlap", metrics.strongest_overlap, "effect", "higher", title="top_overlap"),
    Metric("calibration", metrics.shift_calibration, "effect", "one", of_shared_noise=True),
    Metric("size", metrics.shift_size, "size", "one", of_shared_noise=True),
    Metric("norm_ratio", metrics.shift_norm_ratio, "size", "one"),
    Metric("error", metrics.shift_error, "size", "lower", title="squared error", of_shared_noise=True),
    Metric("AUC", lambda predicted, differ: metrics.ranking_score(abs(predicted), differ), "genes", "higher"),
    Metric("recall_up", lambda predicted, ways: metrics.direction_recall(predicted, ways == 1), "directions",
           "higher"),
    Metric("recall_down", lambda predicted, ways: metrics.direction_recall(-predicted, ways == -1), "directions",
           "higher"),
    Metric("mmd_ratio", metrics.mmd_ratio, "counterfactual", "lower", title="MMD ratio"),
    Metric("energy_ratio", metrics.energy_ratio, "counterfactual", "lower"),
)  # fmt: skip

METRICS: Registry[Metric] = Registry("metric", ENTRY_POINTS, _check, {metric.key: metric for metric in _BUILTIN})


def register_metric(
    name: str,
    function: Callable[..., float | None],
    *,
    kind: Kind,
    better: Better,
    title: str = "",
    kernel: Callable[[np.ndarray, float], np.ndarray] | None = None,
    prepare: Callable[[np.ndarray, float], Callable[[np.ndarray], float | None]] | None = None,
    of_shared_noise: bool = False,
    replace: bool = False,
) -> None:
    """Make a metric known to tables, ``causcell benchmark`` and the exporter.

    It is known in this process. A package that brings metrics to every process (the command line) has an entry point of
    the group ``causcell.metrics`` for each, which names a `Metric`. Try a metric by
    `causcell.evaluation.contract.check_metric` first.

    Parameters
    ----------
    name, function, kind, better, title, kernel, prepare, of_shared_noise
        See `Metric`; the function's arguments follow from the kind, see `KINDS`.
    replace
        Take the place of a metric of that name.

    Raises
    ------
    ConfigurationError
        A name that is taken, or no identifier; a value that is not allowed.
    """
    metric = Metric(name, function, kind, better, title, kernel, prepare, of_shared_noise)
    METRICS.register(metric.key, metric, replace=replace)


def registered_metrics(*kinds: Kind) -> tuple[Metric, ...]:
    """Return the metrics of one or more kinds, kind after kind: of this package, of installed plugins, registered.

    Raises
    ------
    ConfigurationError
        A metric of another package can't be used.

    Examples
    --------
    >>> [metric.name for metric in registered_metrics("cells")][:2]
    ['pcc', 'mse']
    """
    found = [METRICS[name] for name in METRICS.names()]
    return tuple(metric for kind in kinds for metric in found if metric.kind == kind)


def metric_titles(*kinds: Kind) -> dict[str, str]:
    """Return the columns of a table of metrics: titles by name; raises `ConfigurationError` for two with one title."""
    titles: dict[str, str] = {}
    for metric in registered_metrics(*kinds):
        if metric.title in titles.values():
            raise ConfigurationError(
                f"metric {metric.name!r} has the title {metric.title!r}, which another one in its table has"
            )
        titles[metric.name] = metric.title
    return titles


def known_metrics() -> tuple[str, ...]:
    """Return the names of all metrics, as `Metric.key` has them: of this package, of installed plugins, registered."""
    return METRICS.names()
