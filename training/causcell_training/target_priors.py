"""Priors that interventions take: those that training learned, stretched to the embeddings that are decoded.

Training pulls q(z_i | x), which is read from expression alone, to p(z_i | value) and the prior to it. Where expression
tells a value in part, what is read lies between the values, and so does that prior. What is decoded lies further apart:
`causcell_training.model.CausCell.inform` adds m(v) - m(what is read), so that its mean given the value is about
(2 - r) m(v), r the share of the value's variance that is read. An intervention that takes the one for the other does
too little, and draws as wide as q, where reference cells are its means. So when training has ended, a factor for each
concept, and an offset and a width for each number of its embedding, are fitted to the informed reference cells.
(Simulated doses, of which a third is read: factor 1.75, a quarter of the width.)
"""

from __future__ import annotations

import numpy as np
import torch

from causcell_training.model import CausCell

_FEWEST_CELLS = 16


@torch.no_grad()
def fit_target_priors(model: CausCell, exogenous: np.ndarray, values: np.ndarray | None) -> None:
    """Fit factor, offset and width of every concept's prior to informed embeddings, by least squares.

    Where fewer than 16 cells carry a value, or the prior's mean does not vary among them, they stay as they are.

    Parameters
    ----------
    model
        The trained model, in evaluation mode on the CPU, whose buffers are set.
    exogenous
        Exogenous embeddings of reference cells, informed of their values, float32 [P x M x k].
    values
        Their values side by side, float32 [P x V], NaN for none; none of a model of plain labels, which stays.
    """
    if values is None:
        return
    told = torch.from_numpy(values)
    endogenous = model.scm(torch.from_numpy(exogenous))
    mean, logvar = model.prior_of_read(told)
    for i, place in enumerate(model.schema.value_slices):
        known = told[:, place].isfinite().all(dim=1)
        z, m = endogenous[known, i], mean[known, i]
        if len(z) < _FEWEST_CELLS:
            continue
        apart = m - m.mean(dim=0)
        if not (size := apart.square().sum()):
            continue
        scale = (apart * z).sum() / size
        shift = z.mean(dim=0) - scale * m.mean(dim=0)
        left = (z - scale * m - shift).var(dim=0).clamp(min=1e-8)
        model.target_scale[i] = scale
        model.target_shift[i] = shift
        model.target_logvar[i] = left.log() - logvar[known, i].mean(dim=0)
