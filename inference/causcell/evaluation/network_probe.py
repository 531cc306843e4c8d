"""A small network as a probe: many are fitted at once, one for every fold of the cells and every labelling of them."""

from __future__ import annotations

import numpy as np

from causcell.evaluation.labelling_probes import standardise

_HIDDEN = 32
_STEPS = 150
_BATCH = 64
_RATE = 0.05
_DECAY = 1.0
_MOMENTS = (0.9, 0.999)


def read_by_network(embedding: np.ndarray, labellings: np.ndarray, folds: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Read labels from an embedding by networks of one hidden layer, each of cells that it was not fitted on.

    A network has 32 rectified linear units and is fitted by 150 steps of AdamW (Loshchilov and Hutter 2019;
    weight decay 1) on 64 random cells each, at a rate that falls from 0.05 to 0.

    Parameters
    ----------
    embedding
        Embedding of the cells, [n x k]; it is standardised by each network's own cells.
    labellings
        Label codes of the cells, int [L x n], from 0; each labelling is learned by networks of its own.
    folds
        Fold of each cell, int [n], from 0; it is read by networks that are fitted on the other folds.
    seed
        Seed of weights and batches.

    Returns
    -------
    The codes read, int [L x n].

    Examples
    --------
    >>> import numpy as np
    >>> labels = np.arange(40) % 2
    >>> read = read_by_network(labels[:, None] + np.zeros((40, 3)), labels[None], np.arange(40) // 2 % 5)
    >>> bool((read == labels).all())
    True
    """
    rng = np.random.default_rng(seed)
    others = [np.flatnonzero(folds != fold) for fold in range(folds.max() + 1)]
    x = np.stack([standardise(embedding, rows) for rows in others]).astype(np.float32)
    targets = np.eye(labellings.max() + 1, dtype=np.float32)[labellings]
    parameters = _draw_parameters(len(others), embedding.shape[1], targets.shape, rng)
    averages = [[np.zeros_like(each) for each in parameters] for _ in _MOMENTS]
    size = min(_BATCH, min(map(len, others)))
    for step in range(_STEPS):
        chosen = [rows[rng.integers(len(rows), size=size)] for rows in others]
        batch = np.stack([cells[rows] for cells, rows in zip(x, chosen, strict=True)])
        slopes = _gradient(parameters, batch, np.stack([targets[:, rows] for rows in chosen]))
        rate = _RATE * (1 - step / _STEPS)
        for i, (parameter, slope) in enumerate(zip(parameters, slopes, strict=True)):
            mean, square = (
                moment / (1 - decay ** (step + 1))
                for moment, decay in zip(_update_averages(averages, i, slope), _MOMENTS, strict=True)
            )
            parameter -= rate * (mean / (np.sqrt(square) + 1e-8) + _DECAY * parameter)
    read = np.empty_like(labellings)
    for fold in range(len(others)):
        rows = np.flatnonzero(folds == fold)
        _, scores = _evaluate([each[fold : fold + 1] for each in parameters], x[fold : fold + 1, rows])
        read[:, rows] = scores[0].argmax(axis=-1)
    return read


def _draw_parameters(folds: int, inputs: int, targets: tuple[int, ...], rng: np.random.Generator) -> list[np.ndarray]:
    """Draw weights and biases of both layers: [F x k x L h], [F x 1 x L h], [F x L x h x C], [F x L x 1 x C]."""
    count, _, labels = targets
    first = rng.standard_normal((folds, inputs, count * _HIDDEN), dtype=np.float32) / np.sqrt(np.float32(inputs))
    second = rng.standard_normal((folds, count, _HIDDEN, labels), dtype=np.float32) / np.sqrt(np.float32(_HIDDEN))
    return [
        first,
        np.zeros((folds, 1, count * _HIDDEN), dtype=np.float32),
        second,
        np.zeros((folds, count, 1, labels), dtype=np.float32),
    ]


def _evaluate(parameters: list[np.ndarray], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return hidden units [F x L x B x h] and scores [F x L x B x C] of cells [F x B x k]."""
    weights, bias, second, second_bias = parameters
    hidden = np.maximum(x @ weights + bias, 0).reshape(*x.shape[:2], -1, _HIDDEN).transpose(0, 2, 1, 3)
    return hidden, hidden @ second + second_bias


def _gradient(parameters: list[np.ndarray], x: np.ndarray, targets: np.ndarray) -> list[np.ndarray]:
    """Return the slopes of the mean cross-entropy of cells [F x B x k] and targets [F x L x B x C] by parameter."""
    hidden, scores = _evaluate(parameters, x)
    likely = np.exp(np.clip(scores, -60, 60))  # far from overflow, and faster than to take the largest off
    error = (likely / likely.sum(axis=-1, keepdims=True) - targets) / x.shape[1]
    back = (error @ parameters[2].swapaxes(2, 3)) * (hidden > 0)
    back = back.transpose(0, 2, 1, 3).reshape(*x.shape[:2], -1)
    return [
        x.swapaxes(1, 2) @ back,
        back.sum(axis=1, keepdims=True),
        hidden.swapaxes(2, 3) @ error,
        error.sum(axis=2, keepdims=True),
    ]


def _update_averages(averages: list[list[np.ndarray]], i: int, slope: np.ndarray) -> list[np.ndarray]:
    """Update the running averages of a parameter's slope and of its square, and return them."""
    for moment, decay, value in zip(averages, _MOMENTS, (slope, slope**2), strict=True):
        moment[i] += (1 - decay) * (value - moment[i])
    return [moment[i] for moment in averages]
