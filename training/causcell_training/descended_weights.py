"""Weights of a model that starts from a finished run: the run's, and rows for labels that it did not know."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Adam

from causcell.errors import RunError
from causcell_training.config import DescentConfig
from causcell_training.data.cells import TrainingData
from causcell_training.data.split import REPLAYED, TRAINING
from causcell_training.model import CausCell
from causcell_training.objective import Objective

_SETTLING_STEPS = 120
_SETTLING_RATE = 0.02
_SETTLING_CELLS = 256
_MOST_CELLS = 8192

_PARTS = {"encoder": "encoder", "decoder": "denoiser", "graph": "scm"}
"""Modules of the model by the names that ``freeze`` has for them."""


def take_over(model: CausCell, objective: Objective, data: TrainingData, descent: DescentConfig) -> None:
    """Give a model and its objective the weights to start with.

    The run's weights are copied, rows of labels that it did not know begin as an untrained model's. Then all that reads
    or predicts labels (classifiers, label priors, discriminators) is trained for a moment on the embeddings that the
    run's encoder gives to new and replayed cells, so that new labels have a place among the others from the first step.

    Parameters
    ----------
    model, objective
        As made for the data's schema, untrained.
    data
        Training data with a heritage.
    descent
        Parts to freeze.
    """
    assert data.heritage is not None, "these cells are of no training that starts from a run"
    grow_weights(model, data.heritage.weights)
    _settle_labels(model, objective, data)
    for name in descent.freeze:
        getattr(model, _PARTS[name]).requires_grad_(False)


def frozen_weights(data: TrainingData, descent: DescentConfig | None) -> dict[str, Tensor]:
    """Select the weights of the run's model that stay as they are, by name: a moving average of them is rounded."""
    if data.heritage is None or descent is None:
        return {}
    modules = tuple(f"{_PARTS[name]}." for name in descent.freeze)
    return {name: tensor for name, tensor in data.heritage.weights.items() if name.startswith(modules)}


@torch.no_grad()
def grow_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into a model that may have more labels: along the one axis that is longer there, to the front.

    Raises
    ------
    RunError
        The weights are of a model that differs in more than its labels.
    """
    for name, tensor in model.state_dict().items():
        place, known = _find_place(name, tensor, weights)
        place.copy_(known)


def _find_place(name: str, tensor: Tensor, weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Find where in a tensor the run's belongs, and return both; raises `RunError` if it does not fit."""
    known = weights.get(name)
    if known is not None and known.ndim == tensor.ndim:
        axes = [axis for axis in range(tensor.ndim) if tensor.shape[axis] != known.shape[axis]]
        if not axes:
            return tensor, known
        if len(axes) == 1 and tensor.shape[axes[0]] > known.shape[axes[0]]:
            return tensor.narrow(axes[0], 0, known.shape[axes[0]]), known
    found = None if known is None else tuple(known.shape)
    raise RunError(
        f"the weights of the run that training starts from are of another model: {name!r} has shape {found} there and "
        f"{tuple(tensor.shape)} here"
    )


def _settle_labels(model: CausCell, objective: Objective, data: TrainingData) -> None:
    """Train what reads or predicts labels on the embeddings of training and replayed cells, which stay as they are.

    These are also the earlier cells that terms over more cells than a batch begin with.

    So do the run's own weights: what moves are rows of new labels, and what only training has.
    """
    assert data.heritage is not None, "these cells are of no training that starts from a run"
    weights = data.heritage.weights
    mean, logvar, *known = _embed(model, data)
    held = {id(each) for module in (model.encoder, model.denoiser, model.scm) for each in module.parameters()}
    moving = [each for module in (model, objective) for each in module.parameters() if id(each) not in held]
    kept = [_find_place(name, each.data, weights) for name, each in model.named_parameters() if id(each) not in held]
    optimiser = Adam(moving, lr=_SETTLING_RATE)
    for step in range(_SETTLING_STEPS):
        rows = torch.randperm(len(mean))[:_SETTLING_CELLS]
        labels, values = known[0][rows], known[1][rows] if len(known) > 1 else None
        sampled = model.scm(mean[rows] + (0.5 * logvar[rows]).exp() * torch.randn_like(mean[rows]))
        classified = objective._classification(model, sampled, labels, values)
        prior = objective._endogenous_kl(model, mean[rows], logvar[rows], labels, values)
        opponent = objective._discriminators(mean[rows, -1], labels)
        for group in optimiser.param_groups:
            group["lr"] = _SETTLING_RATE * (1 - step / _SETTLING_STEPS)
        optimiser.zero_grad()
        (classified + prior + opponent).backward()
        optimiser.step()
        for place, own in kept:
            place.copy_(own)
    optimiser.zero_grad()
    rows = torch.randperm(len(mean))[: len(objective.earlier_mean)]
    objective.earlier_mean[: len(rows)] = mean[rows]
    objective.earlier_labels[: len(rows)] = known[0][rows]


@torch.no_grad()
def _embed(model: CausCell, data: TrainingData) -> list[Tensor]:
    """Encode training and replayed cells, some of each where there are many.

    Returns
    -------
    Mean, log-variance, their labels, and where concepts have values these.
    """
    model.eval()
    encoded = []
    for part in (TRAINING, REPLAYED):
        rows = torch.from_numpy(data.rows(part))
        for some in rows[torch.randperm(len(rows))[:_MOST_CELLS]].split(_SETTLING_CELLS):
            expression, *known = data.batch(some.numpy())
            encoded.append((*model.encode(expression), *known))
    model.train()
    return [torch.cat(each) for each in zip(*encoded, strict=True)]
