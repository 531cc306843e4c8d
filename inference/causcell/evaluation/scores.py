"""Scores: every measure on one scale, 0 the best trivial predictor and 1 a replicate of the real cells.

``score = (u - b) / (r - b)`` with u the prediction's value, b that of the best trivial predictor for the question, and
r that of a replicate: real cells that were measured beside those judged. A measure that is best at 1, or at the value
of the real cells, enters by its distance from there. How far the replicate itself varies, from one half of the real
cells to another, is the resolution: where r is not that far above b, these cells can't tell a replicate from the
trivial predictor, and there is no score.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from causcell.evaluation.registry import Better

Role = Literal["model", "trivial", "replicate", "cheat", "other"]
"""Part of a row in its table: what is judged, what scores 0, what scores 1, what no measure may fall for, or none."""

_LOWEST, _HIGHEST = -1.0, 1.0


@dataclass(frozen=True)
class Score:
    """Place of a value on the way from the best trivial predictor to a replicate.

    Attributes
    ----------
    gain
        By how much the value is better than the best trivial predictor, in units of the measure.
    reach
        By how much the replicate is.
    spread
        How far the replicate varies: the standard deviation over halves of the real cells.

    Examples
    --------
    >>> Score(gain=0.06, reach=0.08, spread=0.02).value
    0.75
    >>> print(Score(gain=0.06, reach=0.01, spread=0.02).value)
    None
    """

    gain: float
    reach: float
    spread: float = 0.0

    @property
    def resolved(self) -> bool:
        """Tell whether the replicate is better than the best trivial predictor by more than it varies."""
        return self.reach > self.spread

    @property
    def value(self) -> float | None:
        """The score; `None` where it is not resolved."""
        return self.gain / self.reach if self.resolved else None

    @property
    def resolution(self) -> float | None:
        """The replicate's spread on the scale of the score; `None` where it is not resolved."""
        return self.spread / self.reach if self.resolved else None

    def to_json(self) -> dict[str, Any]:
        """Return the score as ``report.json`` holds it: ``score`` and ``resolution`` (null if not resolved), parts."""
        return {
            "score": self.value,
            "resolution": self.resolution,
            "gain": self.gain,
            "reach": self.reach,
            "spread": self.spread,
        }


def distance_from_best(value: float, better: Better, real: float | None = None) -> float:
    """Return a number that is smaller the better a value is; for measures with a best value, the distance from it.

    Parameters
    ----------
    value
        Value of a measure.
    better
        Direction in which it is good; see `causcell.evaluation.registry.BETTER`.
    real
        Value of the real cells, for ``better="real"``.

    Examples
    --------
    >>> distance_from_best(0.75, "one"), distance_from_best(0.75, "higher"), distance_from_best(0.75, "lower")
    (0.25, -0.75, 0.75)
    """
    if better == "higher":
        return -value
    if better == "lower":
        return value
    if better == "real" and real is None:
        raise ValueError("better='real' needs the value of the real cells: give real=")
    return abs(value - (1.0 if better == "one" or real is None else real))


def score_halves(distances: Mapping[str, np.ndarray], roles: Mapping[str, Role]) -> dict[str, Score]:
    """Score predictions that were measured against one half of the real cells after the other.

    Parameters
    ----------
    distances
        `distance_from_best` of each row by name, float [halvings x cases]; NaN where it could not be taken.
    roles
        Part of each row. b is the best of the trivial rows on average, r the best of the replicates; where a case lacks
        that row, the next best stands in for it.

    Returns
    -------
    Scores by row, averaged over the entries that have b and r and every row of the model's; without these, none.

    Examples
    --------
    >>> halves = {"model": 0.2, "nothing": 1.0, "half": 0.1}
    >>> scores = score_halves(
    ...     {name: np.full((2, 1), each) for name, each in halves.items()},
    ...     {"model": "model", "nothing": "trivial", "half": "replicate"},
    ... )
    >>> round(scores["model"].value, 3), scores["half"].value
    (0.889, 1.0)
    """
    taken = {name: each for name, each in distances.items() if not np.isnan(each).all()}
    trivial, replicate = (_best_of(taken, roles, role) for role in ("trivial", "replicate"))
    if trivial is None or replicate is None:
        return {}
    judged = [each for name, each in taken.items() if roles.get(name) == "model"]
    usable = ~np.any([np.isnan(each) for each in (trivial, replicate, *judged)], axis=0)
    if not usable.any():
        return {}
    spread = _spread_over_halvings(np.where(usable, replicate, np.nan))
    scores = {}
    for name, each in taken.items():
        here = usable & ~np.isnan(each)
        if here.any():
            scores[name] = Score(_average(trivial - each, here), _average(trivial - replicate, here), spread)
    return scores


def _average(values: np.ndarray, taken: np.ndarray) -> float:
    """Average the entries that are taken over halvings, then over the cases that have any."""
    counts = taken.sum(axis=0)
    return float((np.where(taken, values, 0).sum(axis=0)[counts > 0] / counts[counts > 0]).mean())


def _spread_over_halvings(values: np.ndarray) -> float:
    """Return the deviation over halvings of the average over cases, whichever of them a halving has; NaN is missing."""
    kept = values[:, ~np.isnan(values).all(axis=0)]
    centred = kept - np.nanmean(kept, axis=0)
    centred = centred[~np.isnan(centred).all(axis=1)]
    return float(np.std(np.nanmean(centred, axis=1), ddof=1)) if len(centred) > 1 else 0.0


def _best_of(distances: Mapping[str, np.ndarray], roles: Mapping[str, Role], role: Role) -> np.ndarray | None:
    """Return the distances [halvings x cases] of the best row of a role, those of the next best where it has none."""
    rows = [each for name, each in distances.items() if roles.get(name) == role]
    if not rows:
        return None
    common = ~np.any([np.isnan(each) for each in rows], axis=0)
    averages = [np.nanmean(each[common] if common.any() else each) for each in rows]
    ordered = [rows[i] for i in np.argsort(averages, kind="stable")]
    best = ordered[0].copy()
    for each in ordered[1:]:
        best = np.where(np.isnan(best), each, best)
    return np.asarray(best)


def score_rows(
    rows: Mapping[str, Mapping[str, float | None]],
    roles: Mapping[str, Role],
    better: Mapping[str, Better],
    *,
    groups: Mapping[str, str] | None = None,
    spreads: Mapping[str, float] | None = None,
    real: Mapping[str, float] | None = None,
) -> dict[str, dict[str, Score]]:
    """Score the rows of a table whose replicate was measured once.

    Parameters
    ----------
    rows
        Values by row and measure.
    roles
        Part of each row.
    better
        Direction of each measure; one that is not named has no score.
    groups
        Question that each row answers, where a table holds several: b and r are those of the row's own question.
    spreads
        Spread of the replicate by measure; 0 where none is given.
    real
        Values of the real cells by measure, for measures that are best there.

    Examples
    --------
    >>> rows = {"model": {"PCC": 0.7}, "label means": {"PCC": 0.6}, "real cells": {"PCC": 0.8}}
    >>> roles = {"model": "model", "label means": "trivial", "real cells": "replicate"}
    >>> round(score_rows(rows, roles, {"PCC": "higher"})["model"]["PCC"].value, 3)
    0.5
    """
    scores: dict[str, dict[str, Score]] = {}
    for group in dict.fromkeys((groups or {}).get(row, "") for row in rows):
        members = [row for row in rows if (groups or {}).get(row, "") == group]
        for measure, direction in better.items():
            found: dict[str, float] = {}
            for row in members:
                value = rows[row].get(measure)
                if value is not None:
                    found[row] = distance_from_best(value, direction, (real or {}).get(measure))
            trivial, replicate = (
                [each for row, each in found.items() if roles.get(row) == role] for role in ("trivial", "replicate")
            )
            if trivial and replicate:
                reach = min(trivial) - min(replicate)
                for row, each in found.items():
                    scores.setdefault(row, {})[measure] = Score(
                        min(trivial) - each, reach, (spreads or {}).get(measure, 0.0)
                    )
    return scores


def average_scores(scores: Iterable[Score]) -> tuple[float, float] | None:
    """Average the resolved scores of several measures, and their resolutions; `None` if none is resolved.

    A score enters as at least -1 and at most 1: no measure makes up for another by more than its own scale.

    Examples
    --------
    >>> average_scores([Score(3.0, 1.0, 0.5), Score(0.5, 1.0, 0.25), Score(9.0, 0.1, 0.5)])
    (0.75, 0.375)
    """
    resolved = [each for each in scores if each.resolved]
    if not resolved:
        return None
    values = [each.gain / each.reach for each in resolved]
    resolutions = [each.spread / each.reach for each in resolved]
    return float(np.clip(values, _LOWEST, _HIGHEST).mean()), float(np.mean(resolutions))


def format_score(scores: Sequence[Score]) -> str:
    """Format the scores of one row and measure: with the resolution of a single one, or the spread of repetitions.

    Examples
    --------
    >>> format_score([Score(0.6, 0.8, 0.1)]), format_score([Score(0.6, 0.0)]), format_score([])
    ('0.75 ± 0.12', 'not resolved', '')
    """
    if not scores:
        return ""
    resolved = [each for each in scores if each.resolved]
    if not resolved:
        return "not resolved"
    values = [each.gain / each.reach for each in resolved]
    spread = np.std(values) if len(values) > 1 else resolved[0].spread / resolved[0].reach
    return f"{np.mean(values):.2f}" + (f" ± {spread:.2f}" if spread > 0 else "")
