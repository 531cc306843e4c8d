"""Measures of what embeddings tell of values: errors in the data's units, ranks, members of sets."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from causcell_training.kinds.readers import SetReader
from causcell_training.model import CausCell


def number_errors(model: CausCell, endogenous: Tensor, values: Tensor | None = None) -> dict[str, Tensor]:
    """Average the absolute errors of ordinal and continuous concepts' numbers over labelled cells, in their units.

    Parameters
    ----------
    model
        The model.
    endogenous
        Endogenous embeddings, [B x M x k].
    values
        Values of all concepts side by side, [B x V]; none of a model of plain labels.

    Returns
    -------
    Scalars by concept; none of a concept of which no cell is labelled.
    """
    if values is None:
        return {}
    errors = {}
    for name, number in model.numbers(endogenous).items():
        i = model.schema.index(name)
        value = model.schema.concepts[i].value
        error = (number - values[:, model.schema.value_slices[i]])[:, 0]
        known = error.isfinite()
        if value is not None and known.any():
            errors[name] = error[known].abs().mean() * value.deviation[0]
    return errors


@torch.no_grad()
def measure_values(model: CausCell, endogenous: Tensor, values: Tensor) -> dict[str, float]:
    """Measure how embeddings of held-out cells tell concepts that are more than labels.

    Parameters
    ----------
    model
        The model.
    endogenous
        Endogenous embeddings read from expression alone, [n x M x k].
    values
        Values of all concepts side by side, [n x V].

    Returns
    -------
    For numbers ``mae_<concept>`` in the data's units, ``spearman_<concept>``, and ``r2_<concept>``, the share of
    variance explained; for sets ``f1_<concept>``, of all members of all cells.
    """
    found = {f"mae_{name}": float(error) for name, error in number_errors(model, endogenous, values).items()}
    numbers = model.numbers(endogenous)
    for i, name in enumerate(model.schema.names):
        true = values[:, model.schema.value_slices[i]]
        known = true.isfinite().all(dim=1)
        if name in numbers and int(known.sum()) > 2:
            own, read = true[known, 0].double().numpy(), numbers[name][known, 0].double().numpy()
            found[f"spearman_{name}"] = _spearman(own, read)
            spread = float(((own - own.mean()) ** 2).sum())
            found[f"r2_{name}"] = 1 - float(((own - read) ** 2).sum()) / spread if spread else 0.0
        reader = model.readers[i]
        if isinstance(reader, SetReader) and known.any():
            told, carried = reader.members(endogenous[known, i]) > 0, true[known] > 0.5
            both = float((told & carried).sum())
            found[f"f1_{name}"] = 2 * both / max(float(told.sum() + carried.sum()), 1.0)
    return {name: round(value, 4) for name, value in found.items()}


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Return Spearman's rank correlation of two arrays [n]; 0 where one is constant."""
    from scipy.stats import rankdata

    ranks = np.array([rankdata(one), rankdata(other)])
    if not ranks.std(axis=1).all():
        return 0.0
    return float(np.corrcoef(ranks)[0, 1])
