"""Simulated trials: the average effect of every label of a concept, had it been assigned to every cell of a population.

Each cell is generated under every label, all else its own, as if each had been in every arm of a randomised trial. What
is averaged are differences within a cell, so that cells need not be comparable between arms. The uncertainty is that of
the cells as a sample of their population, and of the model's draws; that the model is right is assumed, not tested.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell.cells.collection import Cells
from causcell.counterfactual.interventions import Intervention, Mode, check_mode, plan_interventions
from causcell.counterfactual.request import Request
from causcell.diffusion.solvers import SolverSettings
from causcell.errors import ConceptError, ConfigurationError, DataError, UnknownConceptError, format_list
from causcell.generator import Generator

if TYPE_CHECKING:
    import anndata
    import pandas as pd

_LEAST_UNITS = 2


@dataclass(frozen=True)
class _Moments:
    """Sums over independent units (cells, or the replicates' means) of their effects, [labels x G]."""

    count: int
    total: np.ndarray
    square: np.ndarray

    def mean(self) -> np.ndarray:
        return self.total / self.count

    def standard_error(self) -> np.ndarray:
        variance = np.maximum(self.square - self.total**2 / self.count, 0) / (self.count - 1)
        return np.sqrt(variance / self.count)


@dataclass(frozen=True)
class EffectSettings:
    """How effects are generated and tested.

    Attributes
    ----------
    where
        A pandas query over ``obs``: the population.
    mode, match_parents
        See `causcell.counterfactual.scm.StructuralCausalModel.intervene`.
    draws
        Draws of each cell's embeddings and reference cells.
    seed
        Of all random numbers, keyed by cell.
    rate
        False discovery rate at which a gene counts as changed.
    least
        Effects up to this size (log scale; 0.1 is a tenth) count as none: hardly any effect of a model is exactly zero,
        and many cells make any of them significant.
    expression, layer
        As in `Generator.counterfactual`.
    """

    where: str | None = None
    mode: Mode = "do"
    match_parents: bool = False
    draws: int = 8
    seed: int = 0
    rate: float = 0.05
    least: float = 0.1
    expression: str | None = None
    layer: str | None = None

    def __post_init__(self) -> None:
        check_mode(self.mode)
        if not 0 < self.rate < 1 or self.least < 0:
            raise ConfigurationError(
                f"rate is {self.rate}, least {self.least}; take a rate within 0 and 1, and least >= 0"
            )

    def request(self, interventions: tuple[Intervention, ...]) -> Request:
        """Mean estimates under these interventions."""
        return Request(interventions, SolverSettings("mean"), self.mode, self.match_parents, self.draws, self.seed)


def simulated_trial(
    generator: Generator,
    data: anndata.AnnData | str | os.PathLike[str],
    concept: str,
    *,
    baseline: str | None = None,
    replicate: str | None = None,
    progress: bool = False,
    **settings: Any,
) -> anndata.AnnData:
    """Average effect of every label of a concept over a population of cells, by gene.

    Parameters
    ----------
    generator
        The model.
    data
        The population.
    concept
        Every cell is set to each of its labels in turn.
    baseline
        Label that the others are compared with (default: the first).
    replicate
        Column of ``obs`` whose labels are the independent units, such as donors: standard errors are then over the
        means of these. Without it they are over cells, which takes cells of one donor for independent.
    progress
        Show a progress bar.
    settings
        Those of `EffectSettings`.

    Returns
    -------
    AnnData, one row a label, with the panel's genes as ``var``:

    - ``X``: average expression under the label (mean estimate, log scale), float32;
    - ``layers["effect"]``, ``layers["standard_error"]``: difference to the baseline, within cells, float32;
    - ``layers["p_value"]``, ``layers["q_value"]``: of a two-sided t-test of an average effect of at most ``least``, and
      after Benjamini-Hochberg over the genes of a label, float64; ``layers["changed"]``: q below ``rate``, bool;
    - ``uns["causcell"]``: provenance, and the trial's settings.

    Raises
    ------
    UnknownConceptError, UnknownLabelError
        A concept, label or column that there is not.
    DataError
        Fewer than two independent units.
    """
    import pandas as pd

    schema, chosen = generator.schema, EffectSettings(**settings)
    labels = schema[concept].labels
    reference = 0 if baseline is None else schema[concept].code(baseline)
    request = chosen.request(plan_interventions(schema, None, [concept]))
    with Cells(data, layer=chosen.layer, where=chosen.where) as cells:
        units = _units(cells.obs, replicate)
        arms = _arms(generator, cells, generator.reader(cells, chosen.expression), request, progress)
        average, moments = _accumulated(arms, units, (len(labels), len(generator.preprocessing.genes)), reference)
        facts = {"concept": concept, "baseline": labels[reference], "cells": len(cells), "units": moments.count}
    effect, error = moments.mean(), moments.standard_error()
    return _result(
        generator,
        pd.DataFrame(index=list(labels)),
        average,
        {"effect": effect.astype(np.float32), "standard_error": error.astype(np.float32)},
        two_sided_p(effect, error, moments.count - 1, chosen.least),
        {"trial": facts | {"replicate": replicate or "cell"} | _recorded(chosen)},
        chosen.rate,
    )


def _units(obs: pd.DataFrame, replicate: str | None) -> np.ndarray | None:
    """Number of each cell's independent unit, int [n]; `None` where each cell is one."""
    if replicate is None:
        if len(obs) < _LEAST_UNITS:
            raise DataError(f"there is {len(obs)} cell; a standard error needs at least {_LEAST_UNITS}")
        return None
    if replicate not in obs:
        raise UnknownConceptError(f"obs has no column {replicate!r}; its columns are {format_list(obs.columns, 40)}")
    codes, names = obs[replicate].factorize()
    if (codes < 0).any():
        raise ConceptError(f"obs[{replicate!r}] is missing for {(codes < 0).sum()} cells; leave them out (where)")
    if len(names) < _LEAST_UNITS:
        raise DataError(
            f"obs[{replicate!r}] has {len(names)} label in these cells; a standard error over replicates needs "
            f"at least {_LEAST_UNITS}"
        )
    return codes


def _arms(generator: Generator, cells: Cells, reader: Any, request: Request, progress: bool) -> Iterator[np.ndarray]:
    """Mean over draws of each cell's expression under every label, [B x labels x G], batch by batch."""
    for block in generator.generate(cells, reader, request, progress=progress):
        shape = (-1, len(request.interventions), request.draws, block.arrays["X"].shape[1])
        yield block.arrays["X"].reshape(shape).mean(axis=2, dtype=np.float64)


def _accumulated(
    arms: Iterator[np.ndarray], units: np.ndarray | None, shape: tuple[int, int], reference: int
) -> tuple[np.ndarray, _Moments]:
    """Average expression under every label [labels x G], and moments of the effects over independent units."""
    average, seen = np.zeros(shape), 0
    total, square = np.zeros(shape), np.zeros(shape)
    by_unit = None if units is None else np.zeros((int(units.max()) + 1, *shape))
    for arm in arms:
        effect = arm - arm[:, reference, None]
        if units is None or by_unit is None:
            total += effect.sum(axis=0)
            square += (effect**2).sum(axis=0)
        else:
            np.add.at(by_unit, units[seen : seen + len(arm)], effect)
        average += arm.sum(axis=0)
        seen += len(arm)
    if units is None or by_unit is None:
        return average / seen, _Moments(seen, total, square)
    means = by_unit / np.bincount(units)[:, None, None]
    return average / seen, _Moments(len(means), means.sum(axis=0), (means**2).sum(axis=0))


def cell_effects(
    generator: Generator,
    data: anndata.AnnData | str | os.PathLike[str],
    do: Mapping[str, str],
    *,
    progress: bool = False,
    **settings: Any,
) -> anndata.AnnData:
    """Effect of an intervention on every single cell, with its uncertainty over draws.

    Each draw takes the cell's exogenous embeddings from their posterior and another reference cell.

    Parameters
    ----------
    do
        Labels by concept: one joint intervention.
    generator, data, progress, settings
        See `simulated_trial`; at least two draws.

    Returns
    -------
    AnnData, one row a cell, with the cells' ``obs`` and the panel as ``var``:

    - ``X``: mean effect over draws (mean estimate, log scale), float32; ``layers["deviation"]``: its deviation over
      draws;
    - ``layers["p_value"]``: two-sided, of an effect of at most ``least`` under a normal with that mean and deviation
      (how far it is from what the draws say); ``layers["q_value"]``: after Benjamini-Hochberg over the genes of a cell;
      ``layers["changed"]``: q below ``rate``.

    Raises
    ------
    DataError
        Fewer than two draws.
    """
    chosen = EffectSettings(**settings)
    if chosen.draws < _LEAST_UNITS:
        raise DataError(f"draws is {chosen.draws}; uncertainty over draws needs at least {_LEAST_UNITS}")
    request = chosen.request((*plan_interventions(generator.schema), *plan_interventions(generator.schema, do)))
    means, deviations = [], []
    with Cells(data, layer=chosen.layer, where=chosen.where) as cells:
        reader = generator.reader(cells, chosen.expression)
        for block in generator.generate(cells, reader, request, progress=progress):
            arms = block.arrays["X"].reshape(-1, 2, chosen.draws, block.arrays["X"].shape[1])
            effect = arms[:, 1] - arms[:, 0]
            means.append(effect.mean(axis=1))
            deviations.append(effect.std(axis=1, ddof=1))
        obs = cells.obs.copy()
    mean, deviation = np.concatenate(means), np.concatenate(deviations)
    return _result(
        generator,
        obs,
        mean,
        {"deviation": deviation},
        two_sided_p(mean.astype(np.float64), deviation.astype(np.float64), None, chosen.least),
        {"effects": {"do": dict(do)} | _recorded(chosen)},
        chosen.rate,
    )


def _recorded(settings: EffectSettings) -> dict[str, Any]:
    """Settings as ``uns`` holds them: those that were given."""
    return {name: value for name, value in asdict(settings).items() if value is not None}


def _result(
    generator: Generator,
    obs: pd.DataFrame,
    x: np.ndarray,
    layers: dict[str, np.ndarray],
    p: np.ndarray,
    facts: dict[str, Any],
    rate: float,
) -> anndata.AnnData:
    """Effects as AnnData, each row of p-values [n x G] a family of its own."""
    import anndata
    import pandas as pd

    q = np.stack([false_discovery_rate(each) for each in p])
    return anndata.AnnData(
        X=x.astype(np.float32),
        obs=obs,
        var=pd.DataFrame(index=list(generator.preprocessing.genes)),
        layers=layers | {"p_value": p, "q_value": q, "changed": q < rate},
        uns={"causcell": generator.provenance() | facts | {"expression": "log1p", "estimate": "mean"}},
    )


def two_sided_p(mean: np.ndarray, deviation: np.ndarray, freedom: int | None, least: float = 0.0) -> np.ndarray:
    """P-values of a mean that is at most ``least`` from zero, given its deviation (McCarthy and Smyth 2009, TREAT).

    By Student's t with ``freedom`` degrees, or the normal for `None`; for ``least`` 0 the usual two-sided test. Without
    any deviation it is 1 where the mean is within ``least``, and 0 elsewhere.
    """
    from scipy.stats import norm, t

    size = np.abs(mean)
    with np.errstate(divide="ignore", invalid="ignore"):
        near, far = (np.where(each == 0, 0.0, each / deviation) for each in (size - least, size + least))
    tails = [norm.sf(each) if freedom is None else t.sf(each, freedom) for each in (near, far)]
    return np.minimum(tails[0] + tails[1], 1.0)


def false_discovery_rate(p: np.ndarray) -> np.ndarray:
    """Benjamini-Hochberg adjusted p-values of one family, [n]."""
    from scipy.stats import false_discovery_control

    return false_discovery_control(p, method="bh")
