"""Nonlinear mechanisms, fitted to the embeddings that they cause when training has ended.

With additive noise, z_i = f_i(z_parents) + eps_i, f_i is the mean of z_i given its parents, if eps_i is independent of
them. Training finds f_i by the gradient of what is decoded and read, which is the same whether f_i or eps_i carries
what the parents do: what no sum of causes holds stays in eps_i, and does not follow an intervention. (Simulator, a
treatment that activates cells of one type and makes those of another rest: a tenth of the effect on the state's genes.)
So each f_i is fitted to the reference cells' embeddings by least squares, informed of their labels, and the encoder's
eps_i is moved by what f_i changed: every z is what it was.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from causcell_training.model import CausCell
from causcell_training.scm import Mechanism

_FEWEST_CELLS = 64
_STEPS, _BATCH, _EVERY = 600, 256, 20
_LEARNING_RATE, _DECAY = 3e-3, 1e-2
_CHOSEN_BY = 5
"""One cell in so many tells which step's weights are taken, and is not fitted to."""


@torch.no_grad()
def fit_mechanisms(model: CausCell, exogenous: np.ndarray) -> np.ndarray:
    """Fit nonlinear mechanisms to informed embeddings by least squares; endogenous embeddings stay as they are.

    Parameters
    ----------
    model
        The trained model without gates, in evaluation mode on the CPU; it is changed.
    exogenous
        Exogenous embeddings of reference cells, informed of their values, float32 [P x M x k].

    Returns
    -------
    The cells' exogenous embeddings as the model now has them, float32 [P x M x k]: those given where mechanisms are
    linear, or where fewer than 64 cells are too few to fit to.
    """
    if not model.scm.mechanisms or len(exogenous) < _FEWEST_CELLS:
        return exogenous
    eps = torch.from_numpy(exogenous)
    z = model.scm(eps)
    model.trained_scm = copy.deepcopy(model.scm)
    for key, mechanism in model.scm.mechanisms.items():
        assert isinstance(mechanism, Mechanism)
        parents = z[:, list(model.schema.parents(int(key)))]
        _fit(mechanism, parents, eps[:, int(key)] + mechanism(parents))
    return model.recentre_exogenous(eps).numpy()


def _fit(mechanism: Mechanism, parents: Tensor, target: Tensor) -> None:
    """Fit a mechanism by gradient from where it is; the weights taken are those of the least error on other cells."""
    chance = torch.Generator().manual_seed(0)
    order = torch.randperm(len(target), generator=chance)
    held_out = torch.arange(len(target)) % _CHOSEN_BY == 0
    chosen_by, fitted = order[held_out], order[~held_out]
    optimiser = torch.optim.AdamW(mechanism.parameters(), lr=_LEARNING_RATE, weight_decay=_DECAY)
    least, taken = float("inf"), mechanism.state_dict()
    with torch.enable_grad():
        for step in range(_STEPS + 1):
            if step % _EVERY == 0:
                with torch.no_grad():
                    error = float((mechanism(parents[chosen_by]) - target[chosen_by]).square().mean())
                if error < least:
                    least, taken = error, copy.deepcopy(mechanism.state_dict())
            batch = fitted[torch.randint(len(fitted), (_BATCH,), generator=chance)]
            loss = (mechanism(parents[batch]) - target[batch]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    optimiser.zero_grad()
    mechanism.load_state_dict(taken)


@torch.no_grad()
def as_trained(model: CausCell, exogenous: np.ndarray) -> tuple[CausCell, np.ndarray]:
    """Return a model as it was trained, before its mechanisms were fitted, and exogenous embeddings as it has them.

    Parameters
    ----------
    model
        A finished model; one without fitted mechanisms is returned as it is.
    exogenous
        Exogenous embeddings that it read, float32 [P x M x k].

    Returns
    -------
    The model, and the embeddings, float32 [P x M x k], of which it solves for the same endogenous ones.
    """
    if model.trained_scm is None:
        return model, exogenous
    trained = copy.deepcopy(model)
    trained.scm, trained.trained_scm = model.trained_scm, None
    return trained, trained.scm.exogenous(model.scm(torch.from_numpy(exogenous))).numpy()
