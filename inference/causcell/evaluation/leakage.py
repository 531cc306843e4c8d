"""Leakage within groups: labels read from an embedding that should not tell them, among cells of one other label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from causcell._internal.stages import Report, at_intervals
from causcell.concepts import UNEXPLAINED, UNLABELLED, ConceptSchema
from causcell.evaluation.data import EvaluationData
from causcell.evaluation.labelling_probes import read_by_neighbours, read_by_regression
from causcell.evaluation.network_probe import read_by_network
from causcell.evaluation.predictor import Embeddings
from causcell.evaluation.table import Table

Probe = Literal["linear", "neighbours", "network"]

PROBES: tuple[Probe, ...] = get_args(Probe)
"""Readers: multinomial logistic regression, a vote of the 15 nearest cells, a network of one hidden layer."""

_READERS: dict[Probe, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "linear": read_by_regression,
    "neighbours": read_by_neighbours,
    "network": read_by_network,
}

_FOLDS = 5
_SHUFFLES = 3
_MIN_CELLS = 10
_MOST_GROUPS = 12
_MOST_LABELS = 12


@dataclass(frozen=True)
class LeakageWithin:
    """How well labels are read within groups, beside what the same probes read of shuffled labels.

    Attributes
    ----------
    accuracy
        By probe: the share of cells whose label is read right.
    chance
        By probe: the same of labels shuffled within groups, averaged over three shuffles.
    majority
        Share of cells that carry their group's most frequent label.
    cells
        Cells read.
    groups
        Groups read, and groups with any labelled cell.
    """

    accuracy: dict[Probe, float]
    chance: dict[Probe, float]
    majority: float
    cells: int
    groups: tuple[int, int]

    @property
    def errors(self) -> dict[str, float]:
        """Standard error of each accuracy, as of independent cells."""
        return {probe: float(np.sqrt(a * (1 - a) / self.cells)) for probe, a in self.accuracy.items()}


def measure_leakage_within(
    embedding: np.ndarray, labels: np.ndarray, groups: np.ndarray, *, seed: int = 0
) -> LeakageWithin | None:
    """Read labels from an embedding within groups of cells, by fresh probes of each group.

    A cell is read by probes that are fitted on four fifths of its group, without it. For the level of chance the same
    probes are fitted and tested on labels that are shuffled within each group and fold.

    Parameters
    ----------
    embedding
        Embedding of the cells, [n x k].
    labels
        Label codes, int [n]; -1 is unlabelled. Within a group the twelve most frequent labels are read, of those that
        ten cells carry at least.
    groups
        Group codes, int [n]; -1 is none. The twelve largest groups are read, of those with two labels that are.
    seed
        Seed of folds and shuffles.

    Returns
    -------
    Averages over groups, weighted by their cells; `None` where no group has two labels of ten cells.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> labels, groups = np.arange(200) % 2, np.arange(200) // 100
    >>> found = measure_leakage_within(labels[:, None] + rng.normal(0, 0.1, (200, 3)), labels, groups)
    >>> found.accuracy["linear"], found.majority, found.cells
    (1.0, 0.5, 200)
    """
    labelled = (labels != UNLABELLED) & (groups != UNLABELLED)
    members = [_choose_cells(labels, labelled & (groups == group)) for group in np.unique(groups[labelled])]
    read = sorted((rows for rows in members if len(rows)), key=len, reverse=True)[:_MOST_GROUPS]
    if not read:
        return None
    right: dict[Probe, np.ndarray] = {probe: np.zeros(1 + _SHUFFLES) for probe in PROBES}
    most = 0
    for rows in read:
        codes = np.unique(labels[rows], return_inverse=True)[1]
        rng = np.random.default_rng((seed, len(rows)))
        folds = _split_in_folds(codes, rng)
        labellings = np.stack([codes, *(_shuffle_within(codes, folds, rng) for _ in range(_SHUFFLES))])
        for probe, reader in _READERS.items():
            right[probe] += (reader(embedding[rows], labellings, folds) == labellings).sum(axis=1)
        most += int(np.bincount(codes).max())
    cells = sum(map(len, read))
    return LeakageWithin(
        accuracy={probe: float(counts[0] / cells) for probe, counts in right.items()},
        chance={probe: float(counts[1:].mean() / cells) for probe, counts in right.items()},
        majority=most / cells,
        cells=cells,
        groups=(len(read), len(members)),
    )


def _choose_cells(labels: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Find the rows of a group's cells that carry its frequent labels; none, if there are not two such labels."""
    counts = np.bincount(labels[members])
    frequent = [code for code in np.argsort(-counts, kind="stable")[:_MOST_LABELS] if counts[code] >= _MIN_CELLS]
    return np.flatnonzero(members & np.isin(labels, frequent)) if len(frequent) > 1 else np.empty(0, dtype=np.int64)


def _split_in_folds(codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Assign cells to folds, int [n], so that every label is spread evenly over them."""
    folds = np.empty(len(codes), dtype=np.int64)
    start = 0
    for code in np.unique(codes):
        rows = np.flatnonzero(codes == code)
        folds[rng.permutation(rows)] = (start + np.arange(len(rows))) % _FOLDS
        start += len(rows)
    return folds


def _shuffle_within(codes: np.ndarray, folds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    shuffled = codes.copy()
    for fold in range(_FOLDS):
        rows = np.flatnonzero(folds == fold)
        shuffled[rows] = codes[rng.permutation(rows)]
    return shuffled


def list_leaks(schema: ConceptSchema) -> list[tuple[str, str, str | None]]:
    """List what no embedding should tell: names of the embedding, of the concept told, and of the groups' concept.

    By the structural causal model the unexplained embedding is independent of all labels, the exogenous embedding of a
    concept of its ancestors' labels, and, among cells of one label of its own, of all other concepts' (training asks
    the same). What is independent of several labels is read within those of each other; of one alone, over all cells.

    Examples
    --------
    >>> from causcell.concepts import Concept, ConceptSchema
    >>> schema = ConceptSchema((Concept("donor", ("a", "b")), Concept("stim", ("no", "yes"))))
    >>> list_leaks(schema)[0], list_leaks(schema)[2]
    (('unexplained', 'donor', 'stim'), ('donor', 'stim', 'donor'))
    """
    names = schema.names
    found = _pair_up(UNEXPLAINED, names)
    for i, source in enumerate(names):
        ancestors = [name for j, name in enumerate(names) if j != i and i in schema.descendants({j})]
        found += _pair_up(source, ancestors)
        found += [(source, name, source) for name in names if name != source and name not in ancestors]
    return found


def _pair_up(source: str, told: Sequence[str]) -> list[tuple[str, str, str | None]]:
    if len(told) == 1:
        return [(source, told[0], None)]
    return [(source, name, group) for name in told for group in told if group != name]


def tabulate_leakage_within(data: EvaluationData, seed: int = 0, *, report: Report | None = None) -> Table:
    """Read labels, within groups of test cells, from embeddings that should not tell them; see `list_leaks`.

    Parameters
    ----------
    data
        The model and its cells.
    seed
        Seed of folds and shuffles.
    report
        Called with what is read, at most every three seconds.

    Returns
    -------
    A table with a row ``embedding of <source>, <concept> within <group>`` each (``within all cells`` without groups;
    ``<source> (exogenous)`` for concepts). Columns are the accuracies ``linear``, ``neighbours`` and ``network``, each
    beside its ``<probe>, by chance`` (labels shuffled); ``most frequent label``; the numbers ``cells`` and ``groups``
    that were read, and ``groups left out``.
    """
    schema, embeddings = data.schema, data.test_embeddings or Embeddings({})
    sources = {name: each for name, each in embeddings.concepts.items() if name == UNEXPLAINED} | {
        **embeddings.exogenous
    }
    codes = dict(zip(schema.names, data.test_labels.T, strict=True))
    rows: dict[str, dict[str, float | None]] = {}
    errors: dict[str, dict[str, float]] = {}
    tell = at_intervals(report)
    for source, label, group in (each for each in list_leaks(schema) if each[0] in sources):
        tell(f"leakage within groups: {label} from {source}")
        groups = np.zeros(len(data.test_rows), dtype=np.int64) if group is None else codes[group]
        found = measure_leakage_within(sources[source], codes[label], groups, seed=seed)
        if found is None:
            continue
        shown = source if source == UNEXPLAINED else f"{source} (exogenous)"
        name = f"embedding of {shown}, {label} within {group or 'all cells'}"
        rows[name], errors[name] = {}, found.errors
        for probe in PROBES:
            rows[name] |= {probe: found.accuracy[probe], f"{probe}, by chance": found.chance[probe]}
        rows[name] |= {
            "most frequent label": found.majority,
            "cells": found.cells,
            "groups": found.groups[0],
            "groups left out": found.groups[1] - found.groups[0],
        }
    return Table.of(
        "Leakage within groups",
        rows,
        interpretation="Accuracy of labels read from an embedding that should not tell them, among cells that share "
        "the label of another concept, by fresh probes of each group (logistic regression, 15 neighbours, a network of "
        "32 hidden units), fitted and tested on different judged cells; by chance: the same probes of labels shuffled "
        "within the group. Averages are weighted by cells. An embedding that leaks nothing is at chance.",
        limitations=f"Groups without two labels of {_MIN_CELLS} cells, labels with fewer, and all but the "
        f"{_MOST_GROUPS} largest groups and {_MOST_LABELS} most frequent labels are left out. Small groups hide weak "
        "leaks, and labels that go with a cause that no concept covers (what cells a sample holds) are told rightly.",
        errors=errors,
        roles=dict.fromkeys(rows, "model"),
        better=dict.fromkeys(PROBES, "lower"),
        counts=("cells", "groups", "groups left out"),
    )
