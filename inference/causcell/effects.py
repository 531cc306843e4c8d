"""Simulated trials, and effects on single cells: each cell under every label of a concept, all else its own.

In a trial each cell is generated under every label, as if it had been in every arm of a randomised trial. What is
averaged are differences within a cell, so that cells need not be comparable between arms.

Standard errors, deviations and the p-values that rest on them are those of the cells as a sample of their population
and of the draws: that the model is right is assumed, and with many cells they go to zero. Intervals add the model's
own error, as `causcell.evaluation.effect_errors` measures it. Neither holds a wrong graph or causes left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell._deprecation import renamed_arguments
from causcell._internal.choices import check_choice, suggest
from causcell._internal.confidence import LEVEL, check_level, half_width
from causcell._internal.significance import false_discovery_rate, two_sided_p
from causcell.cells.panel_cells import PanelCells, Reading
from causcell.concepts import ConceptSchema
from causcell.counterfactual.interventions import MODES, Intervention, Mode, plan_interventions
from causcell.counterfactual.request import Request
from causcell.counterfactual.uncertainty import EffectUncertainty, cell_half_width, describe_intervals
from causcell.diffusion.solvers import SolverSettings
from causcell.errors import ConceptError, ConfigurationError, DataError, UnknownConceptError, format_list
from causcell.generator import Generator

if TYPE_CHECKING:
    import anndata
    import pandas as pd

_MIN_UNITS = 2
_READING = tuple(each.name for each in fields(Reading))
_FILE_KEYS = {"fdr": "rate", "min_effect": "least"}
"""Spelling in ``uns`` of settings that files know by another name."""


@dataclass(frozen=True)
class _Moments:
    """Sums over independent units (cells, or the means of replicates) of their effects, float64 [labels x G]."""

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
    """Settings of the generation and the test of effects.

    Attributes
    ----------
    where
        A condition on the columns of ``obs``: the population; see `causcell.cells.where`.
    mode, match_parents
        See `causcell.counterfactual.scm.StructuralCausalModel.intervene`.
    draws
        Draws of each cell's embeddings and reference cells.
    seed
        Seed of all random numbers, keyed by cell.
    fdr
        False discovery rate at which a gene counts as changed, between 0 and 1.
    min_effect
        Effects up to this size (log scale; 0.1 is a tenth) count as none: hardly any effect of a model is exactly zero,
        and many cells make any of them significant.
    interval
        Level of the intervals, between 0 and 1.
    expression, layer, raw, totals, round_counts, allow_missing_genes
        How the cells' values are read, as in `Generator.counterfactual`.

    Raises
    ------
    ConfigurationError
        An unknown mode, a false discovery rate or level outside 0 to 1, or a smallest effect below 0.
    """

    where: str | None = None
    mode: Mode = "do"
    match_parents: bool = False
    draws: int = 8
    seed: int = 0
    fdr: float = 0.05
    min_effect: float = 0.1
    interval: float = LEVEL
    expression: str | None = None
    layer: str | None = None
    raw: bool = False
    totals: str | None = None
    round_counts: bool = False
    allow_missing_genes: float = 0.0

    def __post_init__(self) -> None:
        check_choice(self.mode, MODES, "mode")
        check_level(self.interval)
        if not 0 < self.fdr < 1 or self.min_effect < 0:
            raise ConfigurationError(
                f"fdr={self.fdr} and min_effect={self.min_effect}: the one lies between 0 and 1, the other is 0 or more"
            )

    def request(self, interventions: tuple[Intervention, ...]) -> Request:
        """Make the request of mean estimates under these interventions."""
        return Request(
            interventions=interventions,
            settings=SolverSettings("mean"),
            mode=self.mode,
            match_parents=self.match_parents,
            draws=self.draws,
            seed=self.seed,
        )

    def to_uns(self) -> dict[str, Any]:
        """Return the settings that were given, by the names that they have in ``uns``."""
        given = {name: value for name, value in asdict(self).items() if value or name not in _READING}
        return {_FILE_KEYS.get(name, name): value for name, value in given.items() if value is not None}

    def bind(self, generator: Generator, data: anndata.AnnData | str | os.PathLike[str]) -> PanelCells:
        """Open the population, and bind it to a model."""
        reading = Reading(**{name: getattr(self, name) for name in _READING})
        return generator.bind(reading.open(data, where=self.where), **reading.bind_options)


@renamed_arguments(rate="fdr", least="min_effect")
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
        The population: an AnnData, or a path to one.
    concept
        Concept of the model; every cell is set to each of its labels in turn.
    baseline
        Label that the others are compared with (default: the first).
    replicate
        Column of ``obs`` whose labels are the independent units, such as donors: standard errors are then over the
        means of these. Without it they are over cells, which takes cells of one donor for independent.
    progress
        Show a progress bar.
    settings
        Arguments of `EffectSettings`.

    Returns
    -------
    AnnData, one row a label, with the panel's genes as ``var``:

    - ``X``: average expression under the label (mean estimate, log scale), float32;
    - ``layers["effect"]``, ``layers["standard_error"]``: difference to the baseline, within cells, float32;
    - ``layers["lower"]``, ``layers["upper"]``: ends of the effect's interval, which holds the standard error and the
      model's measured error, float32; NaN where the model holds no measured error of this concept;
    - ``layers["p_value"]``, ``layers["q_value"]``: of a two-sided t-test of an average effect of at most
      ``min_effect``, and after Benjamini-Hochberg over the genes of a label, float64; ``layers["changed"]``: q below
      ``fdr``, bool. They rest on the standard error alone, the model taken for right;
    - ``uns["causcell"]``: provenance, what the intervals cover, and the trial's settings.

    Raises
    ------
    UnknownConceptError, UnknownLabelError
        A concept, label or column that there is not.
    DataError
        Fewer than two independent units.

    Examples
    --------
    >>> from causcell import Generator
    >>> from scanpy.datasets import pbmc68k_reduced
    >>> cells = pbmc68k_reduced().raw.to_adata()[:100]
    >>> with Generator.open("model_repository", threads=1) as generator:
    ...     trial = simulated_trial(generator, cells, "phase", draws=1)
    >>> trial.shape, list(trial.obs_names), list(trial.layers)
    ((3, 765), ['G1', 'G2M', 'S'], ['effect', 'standard_error', 'lower', 'upper', 'p_value', 'q_value', 'changed'])
    """
    return _run_trial(generator, data, concept, baseline, replicate, EffectSettings(**settings), progress)


def _run_trial(
    generator: Generator,
    data: anndata.AnnData | str | os.PathLike[str],
    concept: str,
    baseline: str | None,
    replicate: str | None,
    chosen: EffectSettings,
    progress: bool,
) -> anndata.AnnData:
    """Generate, average and test the arms of a trial; the arguments are those of `simulated_trial`."""
    import pandas as pd

    schema = generator.schema
    index, labels = schema.index(concept), schema[concept].labels
    reference = 0 if baseline is None else schema[concept].code(baseline)
    request = chosen.request(plan_interventions(schema, None, [concept]))
    with chosen.bind(generator, data) as cells:
        units = _number_units(cells.cells.obs, replicate)
        arms = _generate_arms(generator, cells, request, progress)
        average, moments = _accumulate(arms, units, (len(labels), len(generator.preprocessing.genes)), reference)
        facts = {"concept": concept, "baseline": labels[reference], "cells": len(cells), "units": moments.count}
        codes = cells.labels
    effect, error = moments.mean(), moments.standard_error()
    uncertainty = EffectUncertainty.of(generator.model)
    of_model = uncertainty.of_averages(index, reference, codes, effect)
    half = half_width(error**2, of_model, moments.count - 1, chosen.interval)
    return _make_result(
        generator,
        pd.DataFrame(index=pd.Index(labels, dtype=object)),
        average,
        {"effect": effect, "standard_error": error, "lower": effect - half, "upper": effect + half},
        two_sided_p(effect, error, moments.count - 1, chosen.min_effect),
        describe_intervals(uncertainty, [index], chosen.interval)
        | {"trial": facts | {"replicate": replicate or "cell"} | chosen.to_uns()},
        chosen.fdr,
    )


def _number_units(obs: pd.DataFrame, replicate: str | None) -> np.ndarray | None:
    """Give each cell the number of its independent unit, int [n]; `None` where each cell is one."""
    if replicate is None:
        if len(obs) < _MIN_UNITS:
            raise DataError(f"there is {len(obs)} cell; a standard error needs at least {_MIN_UNITS}")
        return None
    if replicate not in obs:
        raise UnknownConceptError(
            f"obs has no column {replicate!r}; {suggest(replicate, obs.columns)}its columns are "
            f"{format_list(obs.columns, 40)}"
        )
    codes, names = obs[replicate].factorize()
    if (codes < 0).any():
        raise ConceptError(f"obs[{replicate!r}] is missing for {(codes < 0).sum()} cells; leave them out by where=")
    if len(names) < _MIN_UNITS:
        raise DataError(
            f"obs[{replicate!r}] has {len(names)} label in these cells; a standard error over replicates needs "
            f"at least {_MIN_UNITS}"
        )
    return np.asarray(codes)


def _generate_arms(generator: Generator, cells: PanelCells, request: Request, progress: bool) -> Iterator[np.ndarray]:
    """Generate each cell under every label, mean over draws: float64 [B x labels x G], batch by batch."""
    for block in generator.generate(cells, request, progress=progress):
        shape = (-1, len(request.interventions), request.draws, block.arrays["X"].shape[1])
        yield block.arrays["X"].reshape(shape).mean(axis=2, dtype=np.float64)


def _accumulate(
    arms: Iterator[np.ndarray], units: np.ndarray | None, shape: tuple[int, int], reference: int
) -> tuple[np.ndarray, _Moments]:
    """Average expression under every label [labels x G], and take moments of the effects over independent units."""
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


@renamed_arguments(rate="fdr", least="min_effect")
def cell_effects(
    generator: Generator,
    data: anndata.AnnData | str | os.PathLike[str],
    do: Mapping[str, object],
    *,
    progress: bool = False,
    **settings: Any,
) -> anndata.AnnData:
    """Effect of an intervention on every single cell, with its uncertainty.

    Each draw takes the cell's exogenous embeddings from their posterior and another reference cell.

    Parameters
    ----------
    generator, data
        The model and the cells, as in `simulated_trial`.
    do
        Labels by concept: one joint intervention.
    progress
        Show a progress bar.
    settings
        Arguments of `EffectSettings`; at least two draws.

    Returns
    -------
    AnnData, one row a cell, with the cells' ``obs`` and the panel as ``var``:

    - ``X``: mean effect over draws (mean estimate, log scale), float32; ``layers["deviation"]``: its deviation over
      draws; ``layers["lower"]``, ``layers["upper"]``: ends of the effect's interval, which holds the draws and the
      model's measured error, float32; NaN where the model holds none of these concepts;
    - ``layers["p_value"]``: two-sided, of an effect of at most ``min_effect`` under a normal with that mean and
      deviation (how far it is from what the draws say), float64; ``layers["q_value"]``: after Benjamini-Hochberg over
      the genes of a cell, float64; ``layers["changed"]``: q below ``fdr``, bool.

    Raises
    ------
    DataError
        Fewer than two draws.

    Examples
    --------
    >>> from causcell import Generator
    >>> from scanpy.datasets import pbmc68k_reduced
    >>> cells = pbmc68k_reduced().raw.to_adata()[:20]
    >>> with Generator.open("model_repository", threads=1) as generator:
    ...     effects = cell_effects(generator, cells, {"phase": "S"}, draws=2)
    >>> effects.shape, list(effects.layers)
    ((20, 765), ['deviation', 'lower', 'upper', 'p_value', 'q_value', 'changed'])
    """
    chosen = EffectSettings(**settings)
    if chosen.draws < _MIN_UNITS:
        raise DataError(f"draws is {chosen.draws}; uncertainty over draws needs at least {_MIN_UNITS}")
    request = chosen.request((*plan_interventions(generator.schema), *plan_interventions(generator.schema, do)))
    with chosen.bind(generator, data) as cells:
        blocks = generator.generate(cells, request, progress=progress)
        mean, deviation = _summarise_draws((block.arrays["X"] for block in blocks), chosen.draws)
        obs, codes = cells.cells.obs.copy(), cells.labels
    uncertainty, targets = EffectUncertainty.of(generator.model), request.interventions[1].targets
    half = cell_half_width(uncertainty, targets, codes, mean, deviation, chosen.draws, chosen.interval)
    return _make_result(
        generator,
        obs,
        mean,
        {"deviation": deviation, "lower": mean - half, "upper": mean + half},
        two_sided_p(mean.astype(np.float64), deviation.astype(np.float64), None, chosen.min_effect),
        describe_intervals(uncertainty, [concept for concept, _ in targets], chosen.interval)
        | {"effects": {"do": _label_texts(generator.schema, do)} | chosen.to_uns()},
        chosen.fdr,
    )


def _label_texts(schema: ConceptSchema, do: Mapping[str, object]) -> dict[str, str]:
    """Return the labels that an intervention's values mean, by concept: text, whatever a number was given as."""
    return {concept: schema[concept].labels[schema[concept].code(label)] for concept, label in do.items()}


def _summarise_draws(arrays: Iterable[np.ndarray], draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation over draws of the effect on each cell, both float32 [n x G].

    Each array [B 2 draws x G] holds a batch of cells, the factual draws of a cell before its counterfactual ones.
    """
    means, deviations = [], []
    for array in arrays:
        arms = array.reshape(-1, 2, draws, array.shape[1])
        effect = arms[:, 1] - arms[:, 0]
        means.append(effect.mean(axis=1))
        deviations.append(effect.std(axis=1, ddof=1))
    return np.concatenate(means), np.concatenate(deviations)


def _make_result(
    generator: Generator,
    obs: pd.DataFrame,
    x: np.ndarray,
    layers: dict[str, np.ndarray],
    p: np.ndarray,
    facts: dict[str, Any],
    fdr: float,
) -> anndata.AnnData:
    """Put effects into an AnnData, each row of p-values [n x G] a family of its own."""
    import anndata
    import pandas as pd

    q = np.stack([false_discovery_rate(each) for each in p])
    return anndata.AnnData(
        X=x.astype(np.float32),
        obs=obs,
        var=pd.DataFrame(index=pd.Index(generator.preprocessing.genes, dtype=object)),
        layers={name: each.astype(np.float32) for name, each in layers.items()}
        | {"p_value": p, "q_value": q, "changed": q < fdr},
        uns={"causcell": generator.model.provenance() | facts | {"expression": "log1p", "estimate": "mean"}},
    )
