"""Self-test of measures on the data at hand: none should take a cheat for better than a real half of the cells.

The cheats are those of `causcell.evaluation.halves`: source cells pasted for target cells, the mean response, cells
under permuted labels, effects doubled, variance inflated. A measure that one of them wins is not to be trusted on these
data: it is marked in its table, and left out of any average.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from causcell.evaluation.scores import Score
from causcell.evaluation.table import EFFECTS, SELF_TEST, UNSEEN, Table

NAME = "Self-test"
"""Begins the names of the tables of self-tests."""


def name_cheats(real: Sequence[np.ndarray], cheats: Mapping[str, np.ndarray]) -> str:
    """Say which cheats a measure takes for better than a real half.

    Parameters
    ----------
    real
        Distances from the measure's best value of the replicates that are halves of the real cells, [halvings x cases]
        each; the better one on average counts. NaN where it could not be taken.
    cheats
        Those of the cheats, by name.

    Returns
    -------
    ``"ranks <cheats> above a real half"``, empty if there is none. A cheat is above where the difference, averaged over
    cases, is more than it varies over the halvings.

    Examples
    --------
    >>> half, pasted = np.array([[0.5], [0.6]]), np.array([[0.1], [0.3]])
    >>> name_cheats([half], {"control pasted": pasted, "doubled effects": 2 * half})
    'ranks control pasted above a real half'
    """
    winners = []
    for name, cheat in cheats.items():
        for half in sorted(real, key=lambda each: np.inf if np.isnan(each).all() else np.nanmean(each))[:1]:
            ahead = half - cheat
            ahead = ahead[:, ~np.isnan(ahead).all(axis=0)]
            ahead = ahead[~np.isnan(ahead).all(axis=1)]
            if ahead.size:
                averages = np.nanmean(ahead, axis=1)
                if averages.mean() > (np.std(averages, ddof=1) if len(averages) > 1 else 0.0):
                    winners.append(name)
    return f"ranks {', '.join(winners)} above a real half" if winners else ""


def name_trivial_winners(scores: Mapping[str, Mapping[str, Score]], trivial: Sequence[str]) -> dict[str, str]:
    """Say of each measure of a table which trivial prediction it takes for better than real cells.

    Parameters
    ----------
    scores
        Scores by row and measure.
    trivial
        Names of the trivial rows.

    Returns
    -------
    ``"ranks <row> above real cells"`` by measure, for those whose replicate is behind by more than its spread.

    Examples
    --------
    >>> won = Score(gain=0.0, reach=-0.2, spread=0.1)
    >>> name_trivial_winners({"label means": {"MSE": won}, "PCA-32": {"MSE": Score(-0.3, -0.2, 0.1)}}, ["label means"])
    {'MSE': 'ranks label means above real cells'}
    """
    return {
        measure: f"ranks {row} above real cells"
        for row in trivial
        for measure, score in scores.get(row, {}).items()
        if score.reach < -score.spread and score.gain == 0
    }


def mark_distrusted(tables: Sequence[Table], distrusted: Mapping[str, str]) -> list[Table]:
    """Mark measures that a self-test of cells found not to be trusted, in every table but those of effects."""
    return [
        table
        if table.kind in (EFFECTS, UNSEEN, SELF_TEST)
        else replace(
            table,
            distrusted={measure: why for measure, why in distrusted.items() if measure in table.measures}
            | table.distrusted,
        )
        for table in tables
    ]


def separate_self_tests(tables: Sequence[Table]) -> list[Table]:
    """Take the rows of cheats out of tables, and put them beside the replicates into tables of their own, the last.

    What a self-test of cells found not to be trusted is marked in the other tables.
    """
    kept, tests = [], []
    of_cells = {
        measure: why for table in tables if table.kind == SELF_TEST for measure, why in table.distrusted.items()
    }
    for table in mark_distrusted(tables, of_cells):
        if table.kind == SELF_TEST:
            tests.append(table)
            continue
        cheats = table.rows_of("cheat")
        if not cheats:
            kept.append(table)
            continue
        kept.append(table.with_rows([row for row in table.rows if row not in cheats]))
        test = table.with_rows([*table.rows_of("replicate"), *cheats])
        tests.append(
            replace(
                test,
                name=f"{NAME}: {table.name[:1].lower()}{table.name[1:]}",
                interpretation="What cheats reach, beside halves of the real cells. A measure that ranks one of them "
                "above a real half is not to be trusted on these data: its scores stand in parentheses, and no average "
                "holds them.",
                limitations="Whether a measure would be won by a cheat that is not tried here.",
                kind=SELF_TEST,
                shifts=(),
            )
        )
    return kept + tests
