"""A trained model against the simulator's truth: counterfactual error of single cells, total effects, consequences."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell.errors import CausCellWarning
from causcell.evaluation.simulator import SCHEMA, Noise, World, effect_error
from causcell.evaluation.table import Table
from causcell.generator import Generator
from causcell.preprocessing import TARGET_SUM

if TYPE_CHECKING:
    import anndata

ESTIMATORS: dict[str, dict[str, Any]] = {
    "do": {"mode": "do"},
    "do, parents matched": {"mode": "do", "match_parents": True},
    "exogenous": {"mode": "exogenous"},
    "isolated": {"mode": "isolated"},
}
"""The model's ways to intervene, by name."""


def predicted_effect(
    generator: Generator, cells: anndata.AnnData, do: Mapping[str, str], *, draws: int = 1, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    """A model's effect on each cell's mean expression over draws, [n x G], and label codes after it, int [n draws x m].

    The factual cell shares its draws with the counterfactual one.
    """
    options |= {"preset": "mean", "draws": draws}
    factual = generator.reconstruct(cells, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausCellWarning)  # of combinations that no training cell carries: meant
        acted = generator.counterfactual(cells, dict(do), **options)
    effect = np.asarray(acted.X - factual.X, dtype=np.float64).reshape(cells.n_obs, draws, -1).mean(axis=1)
    return effect, SCHEMA.encode(acted.obs)


def against_truth(
    world: World,
    generator: Generator,
    training: anndata.AnnData,
    noise: Noise,
    do: Mapping[str, str],
    *,
    draws: int = 16,
) -> Table:
    """Errors of a single intervention on new cells, those that carry its label already left out.

    Parameters
    ----------
    world
        The truth that the training cells came from.
    generator
        A model trained on them.
    training
        The training cells: mean shifts are taken from them.
    noise
        Of new cells.
    do
        One concept's label.
    draws
        Of embeddings and reference cells; effects are their mean (and a single draw is a row of its own).
    """
    ((concept, label),) = do.items()
    before, after = world.labels(noise), world.labels(noise, do)
    moved = before[:, SCHEMA.index(concept)] != SCHEMA[concept].code(label)
    cells = world.cells(noise)[moved]
    cells.obs_names = [f"new_{name}" for name in cells.obs_names]
    true = world.effect(noise, do)[moved]
    rows: dict[str, dict[str, float | None]] = {}
    single, labels = predicted_effect(generator, cells, do)
    rows["model, do, a single draw"] = {**_errors(single, true), "active after": _active(labels)}
    for name, options in ESTIMATORS.items():
        effect, labels = predicted_effect(generator, cells, do, draws=draws, **options)
        rows[f"model, {name}"] = {**_errors(effect, true), "active after": _active(labels)}
    for name, shift in mean_shifts(training, cells, do).items():
        rows[name] = _errors(shift, true)
    rows["no change"] = _errors(np.zeros_like(true), true) | {"active after": _active(before[moved])}
    rows["truth"] = _errors(true, true) | {"active after": _active(after[moved])}
    return Table.of(
        f"do({concept} = {label})",
        rows,
        tells="Squared error of the effect on expected expression over the true effect's squared size (1: no change), "
        "of single cells and of their average; and the share of cells whose state is active afterwards.",
        silent="How a model does on data whose mechanism is not this one: labels by a softmax of their parents', "
        "programmes that add up on the log scale.",
    )


def mean_shifts(training: anndata.AnnData, cells: anndata.AnnData, do: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Effects [n x G] as differences between the training cells that carry the label and those that do not."""
    ((concept, label),) = do.items()
    x = log_expression(training)
    carries = (training.obs[concept] == label).to_numpy()
    shift = x[carries].mean(axis=0) - x[~carries].mean(axis=0)
    shifts = {"mean shift": np.tile(shift, (cells.n_obs, 1))}
    if concept != "cell_type":
        within = np.empty((cells.n_obs, x.shape[1]))
        for name in SCHEMA["cell_type"].labels:
            members = (training.obs["cell_type"] == name).to_numpy()
            within[(cells.obs["cell_type"] == name).to_numpy()] = x[members & carries].mean(axis=0) - x[
                members & ~carries
            ].mean(axis=0)
        shifts["mean shift within cell types"] = within
    return shifts


def log_expression(cells: anndata.AnnData) -> np.ndarray:
    """log1p of counts per 10,000, float64 [n x G]."""
    counts = cells.X.toarray().astype(np.float64)
    return np.log1p(TARGET_SUM * counts / counts.sum(axis=1, keepdims=True))


def _errors(effect: np.ndarray, true: np.ndarray) -> dict[str, float | None]:
    return {
        "error of single cells": effect_error(effect, true),
        "error of the average": effect_error(effect.mean(axis=0)[None], true.mean(axis=0)[None]),
    }


def _active(labels: np.ndarray) -> float:
    return float((labels[:, SCHEMA.index("state")] == SCHEMA["state"].code("active")).mean())


def state_genes(world: World) -> np.ndarray:
    """Genes that the state's programme moves and no other concept's, with its sign (1, 0, -1), [G]."""
    i = SCHEMA.index("state")
    others = np.abs(world.interaction).sum(axis=(0, 1)) + sum(
        np.abs(programme).sum(axis=0) for j, programme in enumerate(world.programmes) if j != i
    )
    active, resting = (world.programmes[i][SCHEMA["state"].code(label)] for label in ("active", "resting"))
    return np.sign(active - resting) * (others == 0)


def signature_effect(effect: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """Mean effect on signature genes, each in its direction, of every cell, [n]."""
    return effect @ signs / np.abs(signs).sum()
