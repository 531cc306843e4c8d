"""The effect of an intervention on every single cell, with its uncertainty over draws."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell._deprecation import renamed_arguments
from causcell._internal.significance import two_sided_p
from causcell.cells.annotations import Kept, select_annotations
from causcell.cells.collection import AnySource
from causcell.counterfactual.interventions import plan_interventions
from causcell.counterfactual.targets import resolve_target
from causcell.counterfactual.uncertainty import EffectUncertainty, cell_half_width, describe_intervals
from causcell.effects.result import TEST_ERROR, make_result
from causcell.effects.settings import MIN_UNITS, EffectSettings
from causcell.errors import DataError
from causcell.opened_model import OpenedModel

if TYPE_CHECKING:
    import anndata


@renamed_arguments(rate="fdr", least="min_effect")
def cell_effects(
    generator: OpenedModel,
    data: AnySource,
    do: Mapping[str, object],
    *,
    keep_obs: str | Sequence[str] | None = None,
    keep_obsm: str | Sequence[str] | None = None,
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
        Labels or values by concept: one joint intervention.
    keep_obs, keep_obsm
        Columns and elements of the cells that the result has, as in `causcell.generator.Generator.counterfactual`.
    progress
        Show a progress bar.
    settings
        Arguments of `EffectSettings`; at least two draws.

    Returns
    -------
    AnnData, one row a cell, with the cells' ``obs`` and coordinates, and the panel as ``var``, with its columns:

    - ``X``: mean effect over draws (mean estimate, log scale), float32; ``layers["deviation"]``: its deviation over
      draws; ``layers["lower"]``, ``layers["upper"]``: ends of the effect's interval, which holds the draws and the
      model's measured error, float32; NaN where the model holds none of these concepts;
    - ``layers["p_value"]``: two-sided, of an effect of at most ``min_effect`` under a normal with that mean and the
      deviation ``layers["test_error"]``, float64; ``layers["q_value"]``: after Benjamini-Hochberg over the genes of a
      cell, float64; ``layers["changed"]``: q below ``fdr``, bool. ``test_error``, float32, is the root of the squares
      of the deviation over draws and of the model's measured error of such small effects; where the latter is not known
      (intervals are NaN), of the former alone;
    - ``uns["causcell"]``: provenance, what the intervals cover, the settings; ``X`` and ``layers``: what each
      matrix is in words, with its unit.

    `causcell.get.effects_df` gives the row of a cell that is named as a table of genes.

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
    ((20, 765), ['deviation', 'lower', 'upper', 'test_error', 'p_value', 'q_value', 'changed'])
    """
    import pandas as pd

    chosen = EffectSettings(**settings)
    if chosen.draws < MIN_UNITS:
        raise DataError(f"draws is {chosen.draws}; uncertainty over draws needs at least {MIN_UNITS}")
    schema = generator.schema
    request = chosen.request((*plan_interventions(schema), *plan_interventions(schema, do, target=chosen.target)))
    with chosen.bind(generator, data) as cells:
        everyone, codes = slice(0, len(cells)), cells.labels
        notes = select_annotations(cells.cells, generator.preprocessing.genes, Kept(keep_obs, keep_obsm))
        notes.warn_of_left_out()
        blocks = generator.generate(cells, request, progress=progress)
        mean, deviation = _summarise_draws((block.arrays["X"] for block in blocks), chosen.draws)
        obs, obsm = notes.read(everyone)
        obs.index = pd.Index(cells.read_names(everyone), dtype=object)
    uncertainty, targets = EffectUncertainty.of(generator.model), request.interventions[1].targets
    half = cell_half_width(uncertainty, targets, codes, mean, deviation, chosen.draws, chosen.interval)
    of_small = uncertainty.of_cells(targets, codes, np.full_like(mean, chosen.min_effect))
    tested = np.sqrt(deviation.astype(np.float64) ** 2 + np.nan_to_num(of_small))
    texts = {name: resolve_target(schema[name], given).text for name, given in do.items()}
    result = make_result(
        generator,
        obs,
        {"X": mean, "deviation": deviation, "lower": mean - half, "upper": mean + half, "test_error": tested},
        two_sided_p(mean.astype(np.float64), tested, None, chosen.min_effect),
        _describe(generator, texts),
        describe_intervals(uncertainty, [concept for concept, _ in targets], chosen.interval)
        | {"effects": {"do": texts} | chosen.to_uns()},
        chosen.fdr,
        notes.var,
    )
    result.obsm.update(obsm)
    return result


def _describe(generator: OpenedModel, texts: Mapping[str, str]) -> dict[str, str]:
    """Say what each matrix is, and its unit."""
    target = ",".join(f"{concept}={label}" for concept, label in texts.items())
    scale = generator.preprocessing.describe_scale()
    return {
        "X": f"mean over draws of the cell's expression under {target} less its factual expression, {scale}",
        "deviation": "standard deviation over draws of what X is the mean of",
        "lower": "lower end of the effect's interval",
        "upper": "upper end of the effect's interval",
        "test_error": TEST_ERROR,
    }


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
