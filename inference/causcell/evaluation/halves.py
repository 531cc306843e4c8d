"""Shifts measured on one half of the real cells and held against the other: replicates, and cheats.

A half of the judged cells is a noisy measurement, and a trivial shift of many more cells can be nearer to the other
half than it is. What a second experiment adds to what is known is the half drawn towards the best trivial shift by as
much as its noise asks for (James and Stein 1961, positive part): a replicate too, and the better of both counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from causcell.evaluation.metrics import differential_genes, mean_shift
from causcell.evaluation.quality import measure_effect

HALF = "real cells, one half against the other"
DRAWN_HALF = "the same, drawn towards the best trivial shift"

CONTROL, RESPONSE, PERMUTED, DOUBLED, INFLATED = CHEATS = (
    "control pasted",
    "mean response",
    "permuted labels",
    "doubled effects",
    "inflated variance",
)
"""What no measure should take for better than a real half."""

_SPLITS = 5

Values = dict[str, dict[str, list[float | None]]]
"""Values by row and measure, one a halving."""


@dataclass(frozen=True)
class Halves:
    """Values against one half of the real cells of a case, one a halving, by row and metric.

    Attributes
    ----------
    predictions
        Those of the predictions given, and of the two replicates.
    cheats
        Those of the cheats.
    """

    predictions: Values
    cheats: Values


def measure_halves(
    predicted: Mapping[str, np.ndarray],
    trivial: Mapping[str, np.ndarray],
    source: np.ndarray,
    target: np.ndarray,
    seed: int,
    *,
    response: np.ndarray | None = None,
    shared: Mapping[str, float] | None = None,
) -> Halves:
    """Measure predicted shifts, replicates and cheats against halves of the real cells.

    Parameters
    ----------
    predicted
        Shifts by name, [G], the trivial ones among them.
    trivial
        Those that a half is drawn towards.
    source, target
        Expression of the real cells, [n x G] and [m x G].
    seed
        Of the five halvings, and of what the cheats choose.
    response
        The mean response, [G]: the cheat that knows no more than that something was done.
    shared
        Noise that predicted shifts have in common with that between all source and target cells, by name
        (`causcell.evaluation.metrics.shared_noise`): as much of it is in the shift between halves.
    """
    found = Halves({}, {})
    rng, choice = np.random.default_rng(seed), np.random.default_rng((seed, 7))
    for _ in range(_SPLITS):
        halves = [[x[part] for part in np.array_split(rng.permutation(len(x)), 2)] for x in (source, target)]
        (a, noise), (b, variance) = (mean_shift(halves[0][i], halves[1][i]) for i in (0, 1))
        with np.errstate(invalid="ignore"):  # of genes that are the same in all of these few cells
            differ = differential_genes(halves[0][1], halves[1][1])
        replicates = {HALF: a, DRAWN_HALF: draw_towards(a, noise, trivial)}
        cheats = _cheat(halves[0][0], halves[1][0], choice)
        if response is not None:
            cheats[RESPONSE] = response
        for into, shifts in ((found.predictions, {**predicted, **replicates}), (found.cheats, cheats)):
            for name, shift in shifts.items():
                noise_of_both = (shared or {}).get(name, 0.0)
                for measure, value in measure_effect(shift, b, variance, differ, noise_of_both).items():
                    into.setdefault(name, {}).setdefault(measure, []).append(value)
    return found


def draw_towards(shift: np.ndarray, noise: np.ndarray, known: Mapping[str, np.ndarray]) -> np.ndarray:
    """Draw a measured shift towards the nearest of those known, by as much as its noise asks for.

    Parameters
    ----------
    shift, noise
        The measured shift and its sampling variance, [G].
    known
        Shifts by name, [G]; without any it is drawn towards no change.

    Returns
    -------
    k + w (shift - k), with w = max(0, 1 - sum(noise) / |shift - k|^2), float64 [G].

    Examples
    --------
    >>> draw_towards(np.array([3.0, 1.0]), np.array([1.0, 1.0]), {"no change": np.zeros(2)})
    array([2.4, 0.8])
    """
    nearest = min((*known.values(), np.zeros_like(shift)), key=lambda each: float(((shift - each) ** 2).sum()))
    rest = shift - nearest
    square = float(rest @ rest)
    return np.asarray(nearest + max(0.0, 1 - noise.sum() / square) * rest if square else nearest)


def _cheat(source: np.ndarray, target: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Make the shifts [G] of cheats out of one half of the real cells; see `cheat_cells`."""
    mean = source.mean(axis=0, dtype=np.float64)
    shifts = {
        name: cells.mean(axis=0, dtype=np.float64) - mean for name, cells in cheat_cells(source, target, rng).items()
    }
    mixed = np.concatenate([source, target])[rng.permutation(len(source) + len(target))]  # source cells have them too
    shifts[PERMUTED] = mean_shift(mixed[: len(source)], mixed[len(source) :])[0]
    return shifts | {DOUBLED: 2 * (target.mean(axis=0, dtype=np.float64) - mean)}


def cheat_cells(source: np.ndarray, target: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Make cheats' target cells out of real ones, as many as there are target cells, [m x G] each.

    Parameters
    ----------
    source, target
        Real source and target cells, log scale, [n x G] and [m x G].
    rng
        Chooses cells.

    Returns
    -------
    By name: source cells in place of target cells; the same mixture of both that a random label would give; target
    cells moved on by the shift once more; target cells whose distance from their mean is doubled. No value is negative.
    """
    shift = target.mean(axis=0) - source.mean(axis=0)
    both = np.concatenate([source, target])
    return {
        CONTROL: source[np.arange(len(target)) % len(source)],
        PERMUTED: both[rng.permutation(len(both))[: len(target)]],
        DOUBLED: np.maximum(target + shift, 0),
        INFLATED: np.maximum(2 * target - target.mean(axis=0), 0),
    }
