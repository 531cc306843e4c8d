"""Priors that interventions take, fitted to the embeddings that a trained model decodes.

Training pulls q(z_i | x), which is read from expression alone, to p(z_i | value) and the prior to it. Where expression
tells a value in part, what is read lies between the values, and so does that prior. What is decoded lies further apart:
`causcell_training.model.CausCell.inform` adds m(v) - m(what is read). An intervention that takes the first for the
second does too little, and draws with the width of q, where reference cells are its means. (Simulated dose, expression
telling a fifth of its variance: means of the informed embeddings are 1.8 times as far apart as the prior's, a quarter
as wide.) So when training has ended, the prior is fitted once more, to the informed embeddings of the reference cells.
"""

from __future__ import annotations

import numpy as np
import torch

from causcell_training.model import CausCell

_STEPS = 300
_RATE = 0.01
_DECAY = 0.1
_FEWEST_CELLS = 16
_MOST_CELLS = 8192


def fit_targets(model: CausCell, exogenous: np.ndarray, values: np.ndarray | None) -> None:
    """Fit the prior of every concept that interventions take, by the Gaussian likelihood of informed embeddings.

    It begins with the prior that training has learned, and is that prior where too few cells carry a value. Matrices
    of its hidden layer decay as in training: sets that no cell carries are made of their members first of all.

    Parameters
    ----------
    model
        The trained model, in evaluation mode on the CPU; its ``targets`` are set.
    exogenous
        Exogenous embeddings of reference cells, informed of their values, float32 [P x M x k].
    values
        Their values side by side, float32 [P x V], NaN for none; none of a model of plain labels, which stays.
    """
    if values is None:
        return
    rows = np.linspace(0, len(values) - 1, min(len(values), _MOST_CELLS)).astype(np.int64)
    with torch.no_grad():
        endogenous = model.scm(torch.from_numpy(exogenous[rows]))
    told = torch.from_numpy(values[rows])
    for i, (target, prior) in enumerate(zip(model.targets, model.priors, strict=True)):
        target.load_state_dict(prior.state_dict())
        own = told[:, model.schema.value_slices[i]]
        known = own.isfinite().all(dim=1)
        if int(known.sum()) >= _FEWEST_CELLS:
            with torch.enable_grad():
                _fit(target.requires_grad_(True), own[known], endogenous[known, i])
            target.requires_grad_(False)


def _fit(prior: torch.nn.Module, values: torch.Tensor, embeddings: torch.Tensor) -> None:
    hidden = [each for name, each in prior.named_parameters() if name in ("hidden.weight", "output.weight")]
    others = [each for each in prior.parameters() if all(each is not one for one in hidden)]
    groups = [{"params": hidden, "weight_decay": _DECAY}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW([group for group in groups if group["params"]], lr=_RATE)
    for step in range(_STEPS):
        for group in optimiser.param_groups:
            group["lr"] = _RATE * (1 - step / _STEPS)
        mean, logvar = prior(values)
        loss = 0.5 * (logvar + (embeddings - mean) ** 2 / logvar.exp()).sum(dim=1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
