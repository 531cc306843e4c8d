"""Simulated trials: the average effect of every label of a concept over a population of cells.

Each cell is generated under every label, as if it had been in every arm of a randomised trial, all else its own. What
is averaged are differences within a cell, so that cells need not be comparable between arms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell._deprecation import renamed_arguments
from causcell._internal.batching import batches
from causcell._internal.confidence import add_error, half_width
from causcell._internal.significance import two_sided_p
from causcell._internal.stages import progress_bar
from causcell.cells.annotations import Kept, select_annotations
from causcell.cells.collection import AnySource
from causcell.cells.panel_cells import PanelCells
from causcell.concepts import unseen_combinations
from causcell.counterfactual.interventions import plan_interventions
from causcell.counterfactual.outputs import Block
from causcell.counterfactual.request import Request
from causcell.counterfactual.stream import MeasuredCells, stream_blocks
from causcell.counterfactual.tables import LOG1P, warn_unmatched
from causcell.counterfactual.targets import find_code
from causcell.counterfactual.uncertainty import EffectUncertainty, describe_intervals
from causcell.effects.result import TEST_ERROR, make_result
from causcell.effects.settings import EffectSettings
from causcell.effects.units import number_units
from causcell.opened_model import OpenedModel

if TYPE_CHECKING:
    import anndata
    import pandas as pd

_MEMORY = 2**29
"""Bytes that the arms of a batch of cells may take."""

_TEMPORARY = 6
"""Values of single precision that a gene of a cell and arm takes beside its draws: mean, effect and its square."""


@renamed_arguments(rate="fdr", least="min_effect")
def simulated_trial(
    generator: OpenedModel,
    data: AnySource,
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
        The model, as `causcell.Generator.open` opens it; `causcell.Generator.trial` is this function as its method.
    data
        The population: an AnnData, a path to one, or several, as in `causcell.Generator.counterfactual`.
    concept
        Concept of the model; every cell is set to each of its labels in turn (of a continuous concept to the median of
        each of its bins).
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
      ``fdr``, bool. They rest on ``layers["test_error"]``, float32: the root of the squares of the standard error and
      of the model's measured error of such small effects; where the latter is not known (intervals are NaN), on the
      standard error alone, the model taken for right;
    - ``obs["intervention"]``: such as ``stim=IFN``; ``obs["unseen"]``: share of the cells (and draws) whose labels,
      under this one, no training cell carries together, float64;
    - ``var``: the source's columns; ``uns["log1p"]``: as `scanpy.pp.log1p` leaves it;
    - ``uns["causcell"]``: provenance, what the intervals cover, the trial's settings; ``X`` and ``layers``: what each
      matrix is in words, with its unit.

    `causcell.get.effects_df` gives a label's row as a table of genes.

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
    >>> trial.shape, list(trial.obs_names), list(trial.layers)[-3:]
    ((3, 765), ['G1', 'G2M', 'S'], ['p_value', 'q_value', 'changed'])
    """
    return _run_trial(generator, data, concept, baseline, replicate, EffectSettings(**settings), progress)


def _run_trial(
    generator: OpenedModel,
    data: AnySource,
    concept: str,
    baseline: str | None,
    replicate: str | None,
    chosen: EffectSettings,
    progress: bool,
) -> anndata.AnnData:
    """Generate, average and test the arms of a trial; the arguments are those of `simulated_trial`."""
    schema = generator.schema
    index, labels = schema.index(concept), schema[concept].labels
    reference = 0 if baseline is None else find_code(schema[concept], baseline)
    request = chosen.request(plan_interventions(schema, None, [concept], chosen.target))
    with chosen.bind(generator, data) as cells:
        units = number_units(cells.cells.obs, replicate)
        totals = _average_arms(generator, cells, request, units, reference, progress)
        facts = {"concept": concept, "baseline": labels[reference], "cells": len(cells), "units": totals.units}
        codes = cells.labels
        notes = select_annotations(cells.cells, generator.preprocessing.genes, Kept("none", "none"))
        notes.warn_of_left_out()
    effect, error = totals.effect, totals.standard_error
    uncertainty = EffectUncertainty.of(generator.model)
    of_model = uncertainty.of_averages(index, reference, codes, effect)
    half = half_width(error**2, of_model, totals.units - 1, chosen.interval)
    of_small = uncertainty.of_averages(index, reference, codes, np.full_like(effect, chosen.min_effect))
    tested, freedom = add_error(error**2, np.nan_to_num(of_small), totals.units - 1)
    result = make_result(
        generator,
        _label_rows(request, labels, totals.unseen),
        {
            "X": totals.average,
            "effect": effect,
            "standard_error": error,
            "lower": effect - half,
            "upper": effect + half,
            "test_error": np.sqrt(tested),
        },
        two_sided_p(effect, np.sqrt(tested), freedom, chosen.min_effect),
        _describe(generator, f"{concept}={labels[reference]}", replicate),
        describe_intervals(uncertainty, [index], chosen.interval)
        | {"trial": facts | {"replicate": replicate or "cell"} | chosen.to_uns()},
        chosen.fdr,
        notes.var,
    )
    result.uns |= LOG1P
    return result


def _label_rows(request: Request, labels: Sequence[str], unseen: np.ndarray) -> pd.DataFrame:
    """Return ``obs`` of a trial: a row a label, named by it."""
    import pandas as pd

    names = [each.name for each in request.interventions]
    columns = {"intervention": pd.Categorical(names, categories=names), "unseen": unseen}
    return pd.DataFrame(columns, index=pd.Index(labels, dtype=object))


def _describe(generator: OpenedModel, baseline: str, replicate: str | None) -> dict[str, str]:
    """Say what each matrix of a trial is, and its unit."""
    scale = generator.preprocessing.describe_scale()
    units = f"the means of each {replicate}" if replicate else "cells"
    return {
        "X": f"mean over cells of expression under the label, {scale}",
        "effect": f"mean over {units} of expression under the label less that under {baseline}, {scale}",
        "standard_error": f"standard error of effect over {units}",
        "lower": "lower end of the effect's interval",
        "upper": "upper end of the effect's interval",
        "test_error": TEST_ERROR,
    }


def _average_arms(
    generator: OpenedModel,
    cells: PanelCells,
    request: Request,
    units: np.ndarray | None,
    reference: int,
    progress: bool,
) -> _Totals:
    """Average all arms: as many at once as memory allows, the baseline beside them each time."""
    genes, count = len(generator.preprocessing.genes), len(request.interventions)
    source = generator.prepare(cells, request)
    values = source.model.batch_size * genes * (request.draws + _TEMPORARY)
    at_once = max(2, _MEMORY // (4 * values))
    parts = [list(range(count))]
    if count > at_once:
        others = [arm for arm in parts[0] if arm != reference]
        parts = [[reference, *others[some]] for some in batches(len(others), at_once - 1)]
    found: list[_Totals] = []
    rows, unmatched = len(cells) * request.draws * sum(map(len, parts)), 0

    def add(block: Block) -> None:
        nonlocal unmatched
        unmatched += int(block.unmatched.sum())
        bar.update(len(block.labels))

    with progress_bar(total=rows, desc="generating", unit="row", disable=not progress) as bar:
        for part in parts:
            some = replace(request, interventions=tuple(request.interventions[arm] for arm in part))
            arms = _generate_arms(generator, source, some, add)
            found.append(_accumulate(arms, units, (len(part), genes), part.index(reference)))
    warn_unmatched(unmatched, rows)
    return _join(parts, found)


def _generate_arms(
    generator: OpenedModel, source: MeasuredCells, request: Request, on_block: Callable[[Block], None]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Generate each cell under every label, batch by batch; ``on_block`` is given what is made of each.

    Yields
    ------
    Expression, mean over draws, float64 [B x labels x G]; and the share of draws in which no training cell carries the
    labels that the cell then has, [B x labels].
    """
    seen = generator.engine.reference.combinations
    for block in stream_blocks(source.model, source, request, [slice(0, len(source))]):
        on_block(block)
        shape = (-1, len(request.interventions), request.draws)
        x = block.arrays["X"]
        unseen = unseen_combinations(block.labels, seen).reshape(shape).mean(axis=2)
        yield x.reshape(*shape, x.shape[1]).mean(axis=2, dtype=np.float64), unseen


@dataclass(frozen=True)
class _Totals:
    """Averages that a trial keeps of all its cells.

    Attributes
    ----------
    units
        Number of independent units: cells, or replicates.
    average
        Mean expression under each label, float64 [labels x G].
    effect, standard_error
        Mean over units of the difference to the baseline, and its standard error, float64 [labels x G].
    unseen
        Share of the cells whose labels under each label no training cell carries together, float64 [labels].
    """

    units: int
    average: np.ndarray
    effect: np.ndarray
    standard_error: np.ndarray
    unseen: np.ndarray


def _join(parts: Sequence[Sequence[int]], found: Sequence[_Totals]) -> _Totals:
    """Put the averages of all arms together, from those of some; the baseline is in each part."""
    order = np.concatenate(parts)
    _, first = np.unique(order, return_index=True)
    fields = ("average", "effect", "standard_error", "unseen")
    joined = {name: np.concatenate([getattr(each, name) for each in found])[first] for name in fields}
    return _Totals(units=found[0].units, **joined)


def _accumulate(
    arms: Iterator[tuple[np.ndarray, np.ndarray]], units: np.ndarray | None, shape: tuple[int, int], reference: int
) -> _Totals:
    """Average expression and effects over cells; effects over the independent units that ``units`` numbers."""
    seen, average, unseen = 0, np.zeros(shape), np.zeros(shape[0])
    total, square = np.zeros(shape), np.zeros(shape)
    by_unit = None if units is None else np.zeros((int(units.max()) + 1, *shape))
    for arm, new in arms:
        effect = arm - arm[:, reference, None]
        if units is None or by_unit is None:
            total += effect.sum(axis=0)
            square += (effect**2).sum(axis=0)
        else:
            np.add.at(by_unit, units[seen : seen + len(arm)], effect)
        average += arm.sum(axis=0)
        unseen += new.sum(axis=0)
        seen += len(arm)
    count = seen
    if units is not None and by_unit is not None:
        means = by_unit / np.bincount(units)[:, None, None]
        count, total, square = len(means), means.sum(axis=0), (means**2).sum(axis=0)
    variance = np.maximum(square - total**2 / count, 0) / (count - 1)
    return _Totals(count, average / seen, total / count, np.sqrt(variance / count), unseen / seen)
