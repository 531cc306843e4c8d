"""Trainings that start from a finished run: what they take over from it, and which settings it decides.

The run's model brings weights, concepts, edges, panel and preprocessing. Its training cells are not needed again: in
their place its reference cells are decoded, each to one draw, which keeps the labels that it knew (generative replay,
Shin et al. 2017). Its held-out cells stay held out beside those of the new cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from causcell._internal.batching import batches
from causcell._internal.digests import file_digest
from causcell.cells.split import assign_parts, read_split
from causcell.errors import CausCellError, ConfigurationError, RunError
from causcell_training.config import DescentConfig, OptimisationConfig, TrainConfig
from causcell_training.data.groups import GROUPS
from causcell_training.data.heritage import HeldOutCells, Heritage, ReplayedCells
from causcell_training.data.split import PART, TRAINING, Part
from causcell_training.fitted_mechanisms import as_trained
from causcell_training.model import CausCell
from causcell_training.run import Run
from causcell_training.run_folder import RUN_FILE, SPLIT_FILE, WEIGHTS_FILE

if TYPE_CHECKING:
    import anndata

DECIDED = (
    "concept",
    "edge",
    "expression",
    "genes",
    "gene_selection",
    "batch_key",
    "include_genes",
    "model",
    "set_control",
)
"""Settings that the run decides: what its networks read and say."""

_ARGUMENTS = {"concept": "concepts", "edge": "edges"}

STEPS = 0.07
"""Steps by default, as a share of those of the training from nothing that the run descends from."""

_FEWEST_STEPS = 20

OPTIMISATION: dict[str, Any] = {
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "head_decay": 0.0,
    "ema_decay": 0.9,
    "validate_every": 1,
    "patience": 10**6,
}
"""Settings of ``optimisation`` that differ from those of a training from nothing, where they are not given."""

_DECODED_ROWS = 512


def inherit_settings(run: Run, config: TrainConfig) -> TrainConfig:
    """Merge settings with those of the run that training starts from.

    Concepts, edges, panel, scale and networks are the run's; weights of the objective and settings of the optimisation
    too, unless they are given, but for `OPTIMISATION`. How values are read is as given, and so are tables of label
    features: those of the run's labels are known without.

    Raises
    ------
    ConfigurationError
        A setting is given that the run decides, and with another value.
    """
    given = config.model_fields_set
    for name in DECIDED:
        own, theirs = getattr(config, name), getattr(run.config, name)
        if name in given and own != theirs:
            if name == "model":
                fields = [field for field in own.model_fields_set if getattr(own, field) != getattr(theirs, field)]
                if not fields:
                    continue
                own, theirs = getattr(own, fields[0]), getattr(theirs, fields[0])
                name = f"model.{fields[0]}"
            raise ConfigurationError(
                f"{_ARGUMENTS.get(name, name)}={_plain(own)!r} contradicts the run that training starts from, "
                f"{str(run.path)!r}, whose model has {_plain(theirs)!r}; leave it out, or train anew"
            )
    inherited = {name: getattr(run.config, name) for name in DECIDED}
    rate = min(OPTIMISATION["learning_rate"], run.config.optimisation.learning_rate)
    optimisation = dict(run.config.optimisation) | OPTIMISATION | {"learning_rate": rate}
    own_optimisation = {name: getattr(config.optimisation, name) for name in config.optimisation.model_fields_set}
    descent = config.descent or DescentConfig()
    if "epochs" in own_optimisation and descent.steps is not None:
        raise ConfigurationError(
            f"descent.steps={descent.steps} and optimisation.epochs={own_optimisation['epochs']} exclude each other; "
            "leave one out"
        )
    if "epochs" not in own_optimisation and descent.steps is None:
        descent = descent.model_copy(update={"steps": max(_FEWEST_STEPS, round(STEPS * _count_first_steps(run)))})
    objective = {name: getattr(config.objective, name) for name in config.objective.model_fields_set}
    return config.model_copy(
        update=inherited
        | {
            "objective": run.config.objective.model_copy(update=objective),
            "optimisation": OptimisationConfig.model_validate(optimisation | own_optimisation),
            "descent": descent,
        }
    )


def _count_first_steps(run: Run) -> int:
    """Count the steps of the training from nothing that a run descends from, or is."""
    lineage = run.provenance.get("descends_from", ())
    return int((lineage[-1] if lineage else run.provenance)["steps"])


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def read_heritage(run: Run, seed: int) -> Heritage:
    """Read what a training takes over from a finished run.

    Parameters
    ----------
    run
        The run.
    seed
        Seed of the draws that its reference cells are decoded to.

    Raises
    ------
    RunError
        The run has not finished, or a file of it can't be read.
    """
    if run.provenance.get("unfinished"):
        raise RunError(f"the run in {str(run.path)!r} has not finished; go on with it by resume=True first")
    try:
        digest = file_digest(run.path / RUN_FILE)
        split = read_split(run.path / SPLIT_FILE)
        names = np.array(list(split), dtype=object)
        parts = dict(zip(names.tolist(), assign_parts(names, split).tolist(), strict=True))
        _check_split(parts, run)
        held_out = run.held_out()
        run.model.schema.encode(held_out.obs)  # raises where the file does not fit the model
        reference = run.reference
        model, exogenous = as_trained(run.model, reference.exogenous)
        replayed = decode_reference_cells(model, exogenous, reference.labels, seed)
        numbers = read_numbers(model, exogenous, reference.labels)
    except (OSError, CausCellError) as error:
        raise RunError(f"training can't start from the run in {str(run.path)!r}: {error}") from error
    return Heritage(
        digest=digest,
        origin=_describe(run, digest),
        ancestors=tuple(run.provenance.get("descends_from", ())),
        weights={name: tensor.detach().clone() for name, tensor in model.state_dict().items()},
        schema=run.model.schema,
        preprocessing=run.model.preprocessing,
        split=parts,
        held_out=HeldOutCells(
            sparse.csr_matrix(held_out.X, dtype=np.float32),
            held_out.obs[list(run.model.schema.names)],
            held_out.obs_names.to_numpy(dtype=object),
            np.asarray(held_out.obs[PART], dtype=object),
        ),
        groups=_read_groups(held_out),
        replayed=ReplayedCells(*replayed, combinations=reference.combinations, numbers=numbers),
    )


def _check_split(parts: Mapping[str, Part], run: Run) -> None:
    """Raise `RunError` unless the cells that a split has as training cells are those that the run was trained on."""
    trained = [name for name, part in parts.items() if part == TRAINING]
    if len(trained) != run.training_cells.count or not run.training_cells.contain(trained).all():
        raise RunError(
            f"{SPLIT_FILE} has {len(trained)} training cells, which are not the {run.training_cells.count} that the "
            "model was trained on; put the file that training wrote in its place"
        )


def _describe(run: Run, digest: str) -> dict[str, Any]:
    """Describe a run for the provenance of those that descend from it."""
    return {
        "run": run.path.name,
        "digest": digest,
        "weights": file_digest(run.path / WEIGHTS_FILE),
        "finished": run.provenance.get("finished"),
        "steps": run.provenance["steps"],
        "cells": run.training_cells.count,
        "concepts": {concept.name: list(concept.labels) for concept in run.model.schema.concepts},
    }


def _read_groups(held_out: anndata.AnnData) -> dict[str, np.ndarray] | None:
    groups = held_out.uns.get(GROUPS)
    return None if groups is None else {name: np.asarray(array) for name, array in groups.items()}


@torch.no_grad()
def decode_reference_cells(
    model: CausCell, exogenous: np.ndarray, labels: np.ndarray, seed: int
) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray]:
    """Decode reference cells by the model that embedded them; see `ReplayedCells`.

    Parameters
    ----------
    model
        The model, in evaluation mode on the CPU.
    exogenous, labels
        Exogenous embeddings [P x M x k] and codes of labels [P x m] of its reference cells.
    seed
        Seed of the draws.

    Returns
    -------
    Expression, float32 CSR [P x G]; labels, int32 [P x m]; offsets, float32 [P x M x k].
    """
    rng = np.random.default_rng((seed, 4))
    drawn, offset = [], np.empty_like(exogenous)
    for part in batches(len(labels), _DECODED_ROWS):
        embedded = torch.from_numpy(exogenous[part])
        expression = draw_cells(model, model.scm(embedded), rng)
        drawn.append(sparse.csr_matrix(expression.numpy()))
        offset[part] = (embedded - model.encode(expression)[0]).numpy()
    return sparse.vstack(drawn, format="csr"), labels.astype(np.int32), offset


@torch.no_grad()
def read_numbers(model: CausCell, exogenous: np.ndarray, labels: np.ndarray) -> dict[int, np.ndarray]:
    """Read reference cells' standardised numbers of continuous concepts, whose labels are bins alone.

    They were embedded informed of their numbers, which are read back from the embedding within the bin (the outer ones
    end where the training cells' range does).

    Parameters
    ----------
    model
        The model that embedded them, in evaluation mode on the CPU.
    exogenous, labels
        Exogenous embeddings [P x M x k] and codes of labels [P x m].

    Returns
    -------
    Numbers, float32 [P x 1], by index of the concept; of a cell without a label whatever is read.
    """
    numbers = model.numbers(model.scm(torch.from_numpy(exogenous)))
    found = {}
    for i, concept in enumerate(model.schema.concepts):
        value = concept.value
        if value is not None and value.kind == "continuous":
            edges = value.standardise(np.array([value.low, *value.bounds, value.high], dtype=np.float64)[:, None])
            low, high = edges[labels[:, i]], edges[labels[:, i] + 1]
            found[i] = np.clip(numbers[concept.name].numpy(), low, high)
    return found


def draw_cells(model: CausCell, endogenous: Tensor, rng: np.random.Generator) -> Tensor:
    """Draw cells [B x G] given their concepts [B x M x k]; the mean estimate where a head has no draws."""
    denoiser = model.denoiser
    if not denoiser.head.draws:
        return model.mean_estimate(endogenous)
    last = torch.full((1,), model.schedule.timesteps - 1)
    hidden = denoiser.hidden_at_noise(denoiser.time(denoiser.frequencies[last]), endogenous)
    below_one = 1 - 2**-24
    uniforms = rng.random((len(endogenous), len(model.mean)), dtype=np.float32).clip(2**-24, below_one)
    constants: Mapping[str, Tensor] = denoiser.head.draw_constants(model.deviation)
    return denoiser.head.draw(hidden, torch.from_numpy(uniforms), model.mean, model.deviation, **constants)
