"""Findings in how concepts hang together: which determine each other, what is never seen, what the graph leaves out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from causcell.cells.check.dependence import (
    association,
    contingency,
    determines,
    explained,
    has_large_rows,
    holm,
    share_told,
)
from causcell.cells.check.report import Finding, PairSummary
from causcell.concepts import UNLABELLED, Concept
from causcell.errors import format_list

_NEARLY, _ALL_BUT = 0.9, 0.98
"""Shares of entropy from which one concept nearly determines another, and from which two are all but one."""

_STRONG, _WEAK, _SURE = 0.3, 0.05, 0.01
"""Cramér's V of strong and of negligible dependence, and the adjusted p-value below which there is any."""

_EXAMPLES = 4


@dataclass(frozen=True)
class _Pair:
    """Two concepts, the table of their cells and what was measured on it."""

    first: Concept
    second: Concept
    table: np.ndarray
    summary: PairSummary

    @property
    def names(self) -> tuple[str, str]:
        return self.first.name, self.second.name

    @property
    def is_determined(self) -> bool:
        return max(self.summary.first_tells_second, self.summary.second_tells_first) >= _NEARLY


def study_pairs(
    concepts: Sequence[Concept], codes: np.ndarray, edges: Iterable[tuple[str, str]]
) -> tuple[tuple[PairSummary, ...], list[Finding]]:
    """Measure how each pair of concepts depends, and find what `do()` can't tell of them.

    Parameters
    ----------
    concepts
        The concepts.
    codes
        Label codes of all cells, int [n x concepts]; `UNLABELLED` for none.
    edges
        Causal edges, (parent, child).
    """
    graph = list(edges)
    tables = []
    for i, j in itertools.combinations(range(len(concepts)), 2):
        table = contingency(codes[:, i], codes[:, j])
        if table.size:
            tables.append((concepts[i], concepts[j], table))
    tested = [association(table) for _, _, table in tables]
    adjusted = holm([p for _, p in tested])
    pairs = []
    for (first, second, table), (v, _), p in zip(tables, tested, adjusted, strict=True):
        joined = _join(first.name, second.name, graph)
        summary = PairSummary(
            first.name, second.name, int(table.sum()), explained(table), explained(table.T), v, p,
            int((table > 0).sum()), len(first.labels) * len(second.labels), joined,
        )  # fmt: skip
        pairs.append(_Pair(first, second, table, summary))
    findings = [finding for pair in pairs for finding in _one_and_the_same(pair)]
    findings += _nested(pairs)
    findings += [finding for pair in pairs for finding in (*_confounded(pair), *_beside_the_graph(pair, graph))]
    return tuple(pair.summary for pair in pairs), findings


def study_combinations(
    concepts: Sequence[Concept], codes: np.ndarray, told: Iterable[Finding]
) -> tuple[dict[str, int], list[Finding]]:
    """Count the combinations of labels that cells carry, and give examples of two labels never seen together.

    Parameters
    ----------
    concepts, codes
        As for `study_pairs`.
    told
        Findings on pairs; a pair that determines itself is no example.
    """
    labelled = codes[(codes != UNLABELLED).all(axis=1)]
    seen, possible = (
        len(np.unique(labelled, axis=0)),
        int(np.prod([len(each.labels) for each in concepts], dtype=object)),
    )
    counts = {"seen": seen, "possible": possible}
    if seen >= possible or len(concepts) < 2:
        return counts, []
    kinds = ("identical", "nested", "confounded")
    determined = {(each.concepts[0], other) for each in told if each.kind in kinds for other in each.concepts[1:]}
    never, total = [], 0
    for i, j in itertools.combinations(range(len(concepts)), 2):
        first, second = concepts[i], concepts[j]
        if (first.name, second.name) in determined or (second.name, first.name) in determined:
            continue
        both = (codes[:, i] != UNLABELLED) & (codes[:, j] != UNLABELLED)
        together = np.zeros((len(first.labels), len(second.labels)), dtype=bool)
        together[codes[both, i], codes[both, j]] = True
        absent = np.argwhere(~together)
        total += len(absent)
        never += [
            f"{first.name}={first.labels[a]} with {second.name}={second.labels[b]}" for a, b in absent[:_EXAMPLES]
        ]
    names = tuple(each.name for each in concepts)
    examples = f"; {total} pairs of labels are never together: {format_list(never, _EXAMPLES)}" if total else ""
    text = (
        f"{possible - seen} of {possible} combinations of labels {'is' if possible - seen == 1 else 'are'} carried "
        f"by no cell{examples}. do() can ask for {'it' if possible - seen == 1 else 'them'}; "
        "such rows are extrapolated, and marked in obs['unseen_combination']"
    )
    return counts, [Finding("combinations", "note", names, text, {**counts, "pairs": total, "examples": never})]


def _facts(pair: _Pair) -> dict[str, float]:
    return {
        "first_tells_second": pair.summary.first_tells_second,
        "second_tells_first": pair.summary.second_tells_first,
        "cells": pair.summary.cells,
    }


def _is_one(pair: _Pair) -> bool:
    both_ways = determines(pair.table) and determines(pair.table.T)
    told = min(pair.summary.first_tells_second, pair.summary.second_tells_first)
    return both_ways or (told >= _ALL_BUT and (determines(pair.table) or determines(pair.table.T)))


def _one_and_the_same(pair: _Pair) -> Iterator[Finding]:
    if _is_one(pair):
        a, b = pair.names
        exactly = "" if determines(pair.table) and determines(pair.table.T) else "all but "
        yield Finding(
            "identical", "warning", (a, b),
            f"{a} and {b} are {exactly}one and the same in these cells: each label of the one goes with one label of "
            f"the other ({_matches(pair)}). Nothing tells their effects apart: do({a}) and do({b}) divide one "
            "difference between them as training happens to. Leave one out, or add cells in which they differ",
            _facts(pair),
        )  # fmt: skip


def _nested(pairs: Sequence[_Pair]) -> Iterator[Finding]:
    """Find concepts whose labels each lie in one label of another: one finding a concept, which may lie in several."""
    around: dict[str, list[tuple[Concept, Concept]]] = {}
    for pair in pairs:
        if _is_one(pair):
            continue
        if determines(pair.table):
            around.setdefault(pair.first.name, []).append((pair.first, pair.second))
        elif determines(pair.table.T):
            around.setdefault(pair.second.name, []).append((pair.second, pair.first))
    for name, found in around.items():
        outer = [each.name for _, each in found]
        counted = _join_words([f"one of the {len(each.labels)} of {each.name}" for _, each in found])
        yield Finding(
            "nested", "warning", (name, *outer),
            f"{name} is nested in {_join_words(outer)}: each of its {len(found[0][0].labels)} labels lies in "
            f"{counted}. do({_join_words(outer, 'or')}) of a cell that keeps its {name} asks for what no cell shows, "
            f"and the effect of {_join_words(outer, 'or')} can't be told from differences between the {name} labels "
            f"it is made of. Read do({name}) within one {_join_words(outer)} only, or leave {name} out",
            {"within": outer},
        )  # fmt: skip


def _confounded(pair: _Pair) -> Iterator[Finding]:
    u, w = pair.summary.first_tells_second, pair.summary.second_tells_first
    if max(u, w) < _NEARLY or determines(pair.table) or determines(pair.table.T):
        return
    (inner, outer), table = (pair.names, pair.table) if u >= w else (pair.names[::-1], pair.table.T)
    if not has_large_rows(table):
        return
    also = " and the other way round" if min(u, w) >= _NEARLY else ""
    odd = round((1 - share_told(table)) * table.sum())
    yield Finding(
        "confounded", "warning", (inner, outer),
        f"{inner} nearly determines {outer}{also}: it takes {max(u, w):.0%} of the uncertainty about {outer} away, and "
        f"{share_told(table):.1%} of the cells carry the commonest {outer} of their {inner}. What do({outer}) changes "
        f"with {inner} kept rests on the other {odd} cells: are these mislabelled? Leave one of the two out, or add "
        "cells in which they differ",
        _facts(pair) | {"share": share_told(table), "cells_that_differ": odd},
    )  # fmt: skip


def _join_words(words: Sequence[str], last: str = "and") -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def _matches(pair: _Pair) -> str:
    """Format labels of identical concepts: ``ctrl with run1, IFN with run2``."""
    if pair.table.shape != (len(pair.first.labels), len(pair.second.labels)):
        return f"{len(pair.table)} pairs"  # the table has no row and column of labels that lack the other's
    shown = [
        f"{label} with {pair.second.labels[int(row.argmax())]}"
        for label, row in zip(pair.first.labels, pair.table, strict=True)
    ]
    return ", ".join(shown[:_EXAMPLES]) + (f" and {len(shown) - _EXAMPLES} more" if len(shown) > _EXAMPLES else "")


def _beside_the_graph(pair: _Pair, edges: Sequence[tuple[str, str]]) -> Iterator[Finding]:
    """Find an edge between concepts whose labels are independent, and dependence that the graph does not explain."""
    a, b = pair.names
    v, p = pair.summary.association, pair.summary.p_value
    measured = f"Cramér's V {v:.2f}, p {'< 1e-10' if p < 1e-10 else f'= {p:.1g}'} after correction"
    facts = {"association": v, "p_value": p}
    if pair.summary.graph == "edge":
        parent, child = (a, b) if (a, b) in edges else (b, a)
        if p > _SURE or v < _WEAK:
            yield Finding(
                "edge_against", "note", (parent, child),
                f"the edge {parent}:{child} joins concepts whose labels are {'' if p > _SURE else 'all but '}"
                f"independent in these cells ({measured}): the data give no reason for it. Knowledge may; the edge "
                f"then acts through expression alone, and do({parent}) should change few labels of {child}",
                facts,
            )  # fmt: skip
        elif not pair.is_determined:
            yield Finding(
                "edge_for", "note", (parent, child),
                f"the edge {parent}:{child} agrees with the labels, which depend on each other ({measured}); in which "
                "direction, they can't say",
                facts,
            )  # fmt: skip
    elif pair.summary.graph == "none" and v >= _STRONG and p < _SURE and not pair.is_determined:
        yield Finding(
            "no_path", "note", (a, b),
            f"{a} and {b} depend on each other ({measured}), and no edge, path or common cause in the graph joins "
            f"them: do({a}) leaves {b} as it is. If one causes the other, add the edge; if sampling or batches made "
            "it so, leave it, and read effects of either with that in mind",
            facts,
        )  # fmt: skip


def _join(a: str, b: str, edges: Sequence[tuple[str, str]]) -> str:
    if (a, b) in edges or (b, a) in edges:
        return "edge"
    above_a, above_b = _ancestors(a, edges), _ancestors(b, edges)
    if a in above_b or b in above_a:
        return "path"
    return "common cause" if above_a & above_b else "none"


def _ancestors(name: str, edges: Sequence[tuple[str, str]]) -> set[str]:
    found: set[str] = set()
    frontier = {name}
    while frontier:
        frontier = {parent for parent, child in edges if child in frontier} - found
        found |= frontier
    return found
