"""A trained model against the simulator's truth: errors of counterfactual cells, total effects, consequences."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell.errors import CausCellWarning
from causcell.evaluation.scores import Role, score_rows
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
    "do, own kept": {"target": "own"},
}
"""Options of `Generator.counterfactual` for each way to intervene, by its name in tables."""


def predict_effect(
    generator: Generator, cells: anndata.AnnData, do: Mapping[str, str], *, draws: int = 1, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Predict an intervention's effect on each cell, averaged over draws.

    The factual cell shares its draws with the counterfactual one.

    Parameters
    ----------
    generator
        A model of the simulator's concepts.
    cells
        Cells of the simulator.
    do
        Labels by concept: one joint intervention.
    draws
        Draws of embeddings and reference cells.
    options
        Further options of `Generator.counterfactual`, such as ``mode``.

    Returns
    -------
    Effects on expression (mean estimates, log scale), float64 [n x G], and label codes after the intervention, int
    [n draws x m].
    """
    options |= {"preset": "mean", "draws": draws}
    factual = generator.reconstruct(cells, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausCellWarning)  # of combinations that no training cell carries: meant
        acted = generator.counterfactual(cells, dict(do), **options)
    effect = np.asarray(acted.X - factual.X, dtype=np.float64).reshape(cells.n_obs, draws, -1).mean(axis=1)
    return effect, SCHEMA.encode(acted.obs)


def compare_with_truth(
    world: World,
    generator: Generator,
    training: anndata.AnnData,
    noise: Noise,
    do: Mapping[str, str],
    *,
    draws: int = 16,
) -> Table:
    """Measure the errors of a single intervention on new cells, those that carry its label already left out.

    Parameters
    ----------
    world
        The truth that the training cells came from.
    generator
        A model trained on them.
    training
        The training cells: mean shifts are taken from them.
    noise
        The noise of new cells.
    do
        A label of one concept.
    draws
        Draws of embeddings and reference cells; effects are their mean (and a single draw is a row of its own).

    Returns
    -------
    A table with a row for each way to intervene, each mean shift, no change, and the truth.
    """
    ((concept, label),) = do.items()
    before, after = world.labels(noise), world.labels(noise, do)
    moved = before[:, SCHEMA.index(concept)] != SCHEMA[concept].code(label)
    cells = world.cells(noise)[moved]
    cells.obs_names = [f"new_{name}" for name in cells.obs_names]
    true = world.effect(noise, do)[moved]
    rows: dict[str, dict[str, float | None]] = {}
    single, labels = predict_effect(generator, cells, do)
    rows["model, do, a single draw"] = {**_measure_errors(single, true), "active after": _share_active(labels)}
    for name, options in ESTIMATORS.items():
        effect, labels = predict_effect(generator, cells, do, draws=draws, **options)
        rows[f"model, {name}"] = {**_measure_errors(effect, true), "active after": _share_active(labels)}
    for name, shift in compute_mean_shifts(training, cells, do).items():
        rows[name] = _measure_errors(shift, true)
    rows["no change"] = _measure_errors(np.zeros_like(true), true) | {"active after": _share_active(before[moved])}
    rows["truth"] = _measure_errors(true, true) | {"active after": _share_active(after[moved])}
    roles: dict[str, Role] = {row: "model" if row.startswith("model, ") else "trivial" for row in rows}
    roles["truth"] = "replicate"
    return Table.of(
        f"do({concept} = {label})",
        rows,
        roles=roles,
        scores=score_rows(rows, roles, dict.fromkeys(_measure_errors(true, true), "lower")),
        interpretation="Squared error of the effect on expected expression over the true effect's squared size (1: no "
        "change), of single cells and of their average; and the share of cells whose state is active afterwards.",
        limitations="How a model does on data whose mechanism is not this one: labels by a softmax of their parents', "
        "programmes that add up on the log scale.",
    )


def compute_mean_shifts(
    training: anndata.AnnData, cells: anndata.AnnData, do: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """Compute effects [n x G] as differences of means of the training cells with and without the label, by name."""
    ((concept, label),) = do.items()
    x = log_normalise(training)
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


def log_normalise(cells: anndata.AnnData) -> np.ndarray:
    """Normalise the counts of cells: log1p of counts per 10,000, float64 [n x G]."""
    counts = cells.X.toarray().astype(np.float64)
    return np.asarray(np.log1p(TARGET_SUM * counts / counts.sum(axis=1, keepdims=True)))


def _measure_errors(effect: np.ndarray, true: np.ndarray) -> dict[str, float | None]:
    return {
        "error of single cells": effect_error(effect, true),
        "error of the average": effect_error(effect.mean(axis=0)[None], true.mean(axis=0)[None]),
    }


def _share_active(labels: np.ndarray) -> float:
    return float((labels[:, SCHEMA.index("state")] == SCHEMA["state"].code("active")).mean())


def find_state_genes(world: World) -> np.ndarray:
    """Find the genes that the state's programme moves and no other concept's: its sign (1, 0, -1), float64 [G]."""
    i = SCHEMA.index("state")
    others = np.abs(world.interaction).sum(axis=(0, 1)) + sum(
        np.abs(programme).sum(axis=0) for j, programme in enumerate(world.programmes) if j != i
    )
    active, resting = (world.programmes[i][SCHEMA["state"].code(label)] for label in ("active", "resting"))
    return np.asarray(np.sign(active - resting) * (others == 0))


def average_signature_effect(effect: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """Average the effects [n x G] on a signature's genes, each in its direction (signs [G]), for every cell, [n]."""
    return np.asarray(effect @ signs / np.abs(signs).sum())
