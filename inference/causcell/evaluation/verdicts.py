"""Verdicts on concepts, from the tables of an evaluation: read or not, its effects usable or not, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from causcell.evaluation.scores import Score, average_scores
from causcell.evaluation.table import EFFECTS, LABELS, UNSEEN, Table
from causcell.repository.verdicts import Verdict

_READ = 1 / 3
"""Share of the cells that the most frequent label gets wrong which a concept that is read gets right, at least."""

_LARGEST_ERROR = 0.06
"""Standard error of an accuracy at most: with a larger one (fewer than about 60 cells) no reading is judged."""


@dataclass(frozen=True)
class _Reading:
    """How a concept's label is read: accuracy and its standard error, and the share of the most frequent label."""

    accuracy: float
    error: float
    majority: float

    @property
    def share(self) -> float:
        """Share of what the most frequent label gets wrong that is read right."""
        return (self.accuracy - self.majority) / (1 - self.majority) if self.majority < 1 else 0.0

    @property
    def read(self) -> bool | None:
        """Tell whether the label is read; `None` where the cells are too few to tell."""
        if self.error > _LARGEST_ERROR:
            return None
        return self.share >= _READ and self.accuracy - 2 * self.error > self.majority

    def __str__(self) -> str:
        above_chance = self.accuracy - 2 * self.error > self.majority
        word = {True: "read", None: "too few cells to tell whether it is read"}.get(self.read)
        word = word or ("hardly read" if above_chance else "not read")
        return f"{word} (right for {self.accuracy:.2f} of the cells, the most frequent label for {self.majority:.2f})"


def judge_concepts(tables: Sequence[Table], concepts: Iterable[str], *, silent: Sequence[str] = ()) -> list[Verdict]:
    """Judge every concept.

    Parameters
    ----------
    tables
        Those of an evaluation: verdicts are taken from those of the kinds `LABELS`, `EFFECTS` and `UNSEEN`.
    concepts
        Names of the model's concepts.
    silent
        Concepts on which there is no intervention: predictions of a method need not have one on each.

    Returns
    -------
    A verdict for each concept, and another where effects of unseen combinations were judged.

    Examples
    --------
    >>> from causcell.evaluation.scores import Score
    >>> labels = Table.of(
    ...     "Labels", {"own": {"accuracy": 0.98}, "most frequent": {"accuracy": 0.5}}, interpretation="",
    ...     limitations="", kind="labels", roles={"own": "model", "most frequent": "trivial"},
    ...     groups={"own": "stim", "most frequent": "stim"},
    ... )
    >>> effects = Table.of(
    ...     "Interventions: stim", {"model, do": {"pcc": 0.7}, "no change": {"pcc": 0.0}}, interpretation="",
    ...     limitations="", kind="effects", concept="stim", roles={"model, do": "model", "no change": "trivial"},
    ...     scores={"model, do": {"pcc": Score(0.6, 0.8, 0.08)}, "no change": {"pcc": Score(0.0, 0.8, 0.08)}},
    ... )
    >>> for verdict in judge_concepts([labels, effects], ["stim", "donor"]):
    ...     print(verdict)
    stim: usable (0.75 ± 0.10 of the way from the best trivial predictor, no change, to a replicate); read (right for
    0.98 of the cells, the most frequent label for 0.50)
    donor: not judged: too few cells: no two labels are carried by 8 judged cells each within one stratum
    """
    verdicts = []
    for concept in concepts:
        reading = _find_reading(tables, concept)
        seen, unseen = (
            [table for table in tables if table.kind == kind and table.concept == concept] for kind in (EFFECTS, UNSEEN)
        )
        verdicts.append(_judge(concept, reading, seen, silent=concept in silent))
        if unseen:
            verdicts.append(_judge(concept, reading, unseen).model_copy(update={"combinations": "unseen"}))
    return verdicts


def mean_score(verdicts: Sequence[Verdict]) -> float | None:
    """Average the scores of the concepts that could be judged; `None` if there is none."""
    scores = [verdict.score for verdict in verdicts if verdict.score is not None]
    return float(np.mean(scores)) if scores else None


def _find_reading(tables: Sequence[Table], concept: str) -> _Reading | None:
    """Return how well the concept is read, by the better of its readers."""
    for table in tables:
        if table.kind != LABELS:
            continue
        accuracies = {
            role: {
                row: float(np.mean(table.rows[row]["accuracy"]))
                for row in table.rows_of(role)
                if table.groups.get(row) == concept and "accuracy" in table.rows[row]
            }
            for role in ("model", "trivial")
        }
        if accuracies["model"] and accuracies["trivial"]:
            best = max(accuracies["model"], key=accuracies["model"].__getitem__)
            error = table.errors.get(best, {}).get("accuracy", (0.0,))
            return _Reading(accuracies["model"][best], float(np.mean(error)), max(accuracies["trivial"].values()))
    return None


def _judge(concept: str, reading: _Reading | None, tables: Sequence[Table], *, silent: bool = False) -> Verdict:
    """Judge a concept by how it is read and by its tables of effects; the first row of the model's counts."""
    facts = {
        "concept": concept,
        "read": None if reading is None else reading.read,
        "accuracy": None if reading is None else round(reading.accuracy, 4),
        "majority": None if reading is None else round(reading.majority, 4),
    }
    read = "" if reading is None else f"; {reading}"
    unread = reading is not None and reading.read is False
    scores = [score for table in tables for score in _trusted_scores(table, table.rows_of("model")[:1])]
    found = average_scores(scores)
    if found is None:
        why = "there is no prediction of an intervention on it" if silent else _say_why_not_judged(tables, scores)
        if unread:
            return Verdict(**facts, usable=False, reason=f"{reading}: don't intervene on it; effects not judged: {why}")
        return Verdict(**facts, reason=f"not judged: {why}{read}")
    score, resolution = found
    trivial = _find_best_trivial(tables)
    facts |= {"score": round(score, 4), "resolution": round(resolution, 4), "trivial": trivial}
    weakest = min((each for table in tables for each in table.weakest), default=None)
    way = f"{score:.2f} ± {resolution:.2f} of the way from the best trivial predictor, {trivial}, to a replicate"
    if weakest is not None and weakest[0] < score - resolution:
        way += f"; least, {weakest[0]:.2f}, for {weakest[1]}"
    if unread:
        return Verdict(**facts, usable=False, reason=f"{reading}: don't intervene on it ({way})")
    if score > resolution:
        return Verdict(**facts, usable=True, reason=f"usable ({way}){read}")
    than = "worse than" if score < -resolution else "no better than"
    return Verdict(**facts, usable=False, reason=f"not usable: {than} a trivial predictor ({way}){read}")


def _trusted_scores(table: Table, rows: Sequence[str]) -> list[Score]:
    return [
        score
        for row in rows
        for measure, scores in table.scores.get(row, {}).items()
        if measure not in table.distrusted
        for score in scores
    ]


def _say_why_not_judged(tables: Sequence[Table], scores: Sequence[Score]) -> str:
    if not tables:
        return "too few cells: no two labels are carried by 8 judged cells each within one stratum"
    if scores:
        return "these cells can't tell a replicate from the best trivial predictor"
    won = dict.fromkeys(reason for table in tables for reason in table.distrusted.values())
    return (
        f"no measure can be trusted on these cells ({'; '.join(won)})" if won else "the cells learned from lack a label"
    )


def _find_best_trivial(tables: Sequence[Table]) -> str:
    """Name the trivial row with the best average score."""
    rows = dict.fromkeys(row for table in tables for row in table.rows_of("trivial"))
    averages = {
        row: average_scores(score for table in tables for score in _trusted_scores(table, [row])) for row in rows
    }
    taken = {row: found[0] for row, found in averages.items() if found is not None}
    return max(taken, key=taken.__getitem__) if taken else ""
