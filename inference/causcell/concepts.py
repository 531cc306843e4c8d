"""Concepts, their labels and the directed acyclic graph that ties them together."""

from __future__ import annotations

import graphlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from causcell.errors import (
    ConceptError,
    ConceptGraphError,
    UnknownConceptError,
    UnknownLabelError,
    format_list,
)

if TYPE_CHECKING:
    import pandas as pd

UNEXPLAINED = "unexplained"
"""Name of the concept that takes what no labelled concept explains; always last, without labels and without edges."""


UNLABELLED = -1
"""Code of a cell that carries no label of a concept."""


_MOST_LABELS = 1000


_RESERVED_CHARACTERS = "=:,;|/"  # they separate concepts, labels and cells in options, obs_names and stores


_RESERVED_NAMES = (UNEXPLAINED, "exogenous", "source_cell", "intervention", "draw", "unseen_combination")
"""Names that embeddings and results give to something else."""


@dataclass(frozen=True)
class Concept:
    """A labelled concept.

    Attributes
    ----------
    name
        Column of ``obs`` that holds the labels.
    labels
        All labels, in the order of their codes.
    kind
        ``ordinal`` keeps the order of an ordered categorical column; ``categorical`` labels are sorted.
    """

    name: str
    labels: tuple[str, ...]
    kind: Literal["categorical", "ordinal"] = "categorical"

    def __post_init__(self) -> None:
        bad = [character for character in _RESERVED_CHARACTERS if character in self.name]
        if not self.name or bad or self.name in _RESERVED_NAMES:
            raise ConceptError(
                f"concept name {self.name!r} can't be used: it must not be empty, contain any of "
                f"{_RESERVED_CHARACTERS!r} or be one of {format_list(_RESERVED_NAMES)}; rename the column of obs"
            )
        if len(set(self.labels)) < 2:
            raise ConceptError(
                f"concept {self.name!r} has {len(set(self.labels))} label ({format_list(self.labels)}); a "
                f"concept needs at "
                "least two: leave it out, or give cells of another label"
            )
        if len(set(self.labels)) != len(self.labels):
            raise ConceptError(f"concept {self.name!r} names a label twice: {format_list(self.labels)}")

    def code(self, label: str) -> int:
        """Code of a label, its place in :attr:`labels`; raises `UnknownLabelError`."""
        try:
            return self.labels.index(label)
        except ValueError:
            raise UnknownLabelError(
                f"concept {self.name!r} has no label {label!r}; its labels are {format_list(self.labels, 40)}"
            ) from None


@dataclass(frozen=True)
class Edge:
    """A causal edge: ``parent`` is a cause of ``child``, with its weight in the linear SCM."""

    parent: str
    child: str
    weight: float = 1.0


@dataclass(frozen=True)
class ConceptSchema:
    """The observed concepts and their graph. Raises `ConceptGraphError` if the edges are no DAG over the concepts."""

    concepts: tuple[Concept, ...]
    edges: tuple[Edge, ...] = ()

    def __post_init__(self) -> None:
        if not self.concepts:
            raise ConceptError("no concept was named; at least one labelled concept is needed")
        names = [concept.name for concept in self.concepts]
        if len(set(names)) != len(names):
            raise ConceptError(f"a concept is named twice: {format_list(names)}")
        clash = [name for name in names if name.removesuffix("_factual") in names and name.endswith("_factual")]
        if clash:
            raise ConceptError(
                f"concept {clash[0]!r} has the name that results give to the factual label of another concept; "
                "rename the column of obs"
            )
        pairs = [(edge.parent, edge.child) for edge in self.edges]
        for parent, child in pairs:
            for name in (parent, child):
                if name not in names:
                    raise ConceptGraphError(
                        f"edge {parent}:{child} names {name!r}, which is no concept; the concepts are "
                        f"{format_list(names)}"
                    )
        if len(set(pairs)) != len(pairs):
            raise ConceptGraphError(f"an edge is given twice: {format_list(f'{p}:{c}' for p, c in pairs)}")
        _ = self.order  # a cycle is found when the schema is made, not when it is used

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the observed concepts, in the order of every array's concept axis."""
        return tuple(concept.name for concept in self.concepts)

    @property
    def size(self) -> int:
        """M: observed concepts and the unexplained one."""
        return len(self.concepts) + 1

    @property
    def cell_type_like(self) -> str:
        """The concept within whose labels cells are compared: the first with ``type`` in its name, else the finest."""
        types = [name for name in self.names if "type" in name.lower()]
        return types[0] if types else max(self.concepts, key=lambda concept: len(concept.labels)).name

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Indices of the observed concepts, parents before children, otherwise in their own order."""
        sorter = graphlib.TopologicalSorter({i: self.parents(i) for i in range(len(self.concepts))})
        try:
            return tuple(sorter.static_order())
        except graphlib.CycleError as error:
            cycle = " -> ".join(self.names[i] for i in error.args[1])  # each a parent of the next
            raise ConceptGraphError(
                f"the concept graph has a cycle: {cycle}; a structural causal model needs an acyclic graph: "
                "leave one of these edges out"
            ) from None

    def index(self, name: str) -> int:
        """Place of a concept on the concept axis; raises `UnknownConceptError`."""
        try:
            return self.names.index(name)
        except ValueError:
            raise UnknownConceptError(
                f"there is no concept {name!r}; the concepts are {format_list(self.names)}"
            ) from None

    def __getitem__(self, name: str) -> Concept:
        return self.concepts[self.index(name)]

    def parents(self, index: int) -> tuple[int, ...]:
        """Indices of a concept's direct causes."""
        return tuple(self.names.index(e.parent) for e in self.edges if e.child == self.names[index])

    def descendants(self, indices: Iterable[int]) -> frozenset[int]:
        """Indices of everything downstream of the given concepts, themselves left out unless downstream of another."""
        reached: set[int] = set()
        frontier = set(indices)
        while frontier:
            children = {i for i in range(len(self.concepts)) if frontier & set(self.parents(i))}
            frontier = children - reached
            reached |= children
        return frozenset(reached)

    def adjacency(self) -> np.ndarray:
        """A, float64 [M x M]: A[i, j] is the weight of the edge from i to j; the unexplained concept has none."""
        adjacency = np.zeros((self.size, self.size))
        for edge in self.edges:
            adjacency[self.names.index(edge.parent), self.names.index(edge.child)] = edge.weight
        return adjacency

    def label_names(self, codes: np.ndarray, concept: str) -> pd.Categorical:
        """Labels of one concept from codes (int, any shape flattened), as a categorical; unlabelled become NaN."""
        import pandas as pd

        found = self[concept]
        return pd.Categorical.from_codes(
            np.asarray(codes).ravel(), categories=list(found.labels), ordered=found.kind == "ordinal"
        )

    def encode(self, obs: pd.DataFrame) -> np.ndarray:
        """Codes of the labels in ``obs``, int32 [cells x m].

        A concept without a column, or a missing value in it, is `UNLABELLED`. A label that the model does not know
        raises `UnknownLabelError`: set it to NaN to have the cell treated as unlabelled.
        """
        import pandas as pd

        codes = np.full((len(obs), len(self.concepts)), UNLABELLED, dtype=np.int32)
        for i, concept in enumerate(self.concepts):
            if concept.name not in obs:
                continue
            values = label_column(obs, concept.name)
            known = pd.Categorical(values, categories=list(concept.labels))
            codes[:, i] = known.codes
            strange = values[(known.codes == UNLABELLED) & values.notna().to_numpy()]
            if len(strange):
                raise UnknownLabelError(
                    f"obs[{concept.name!r}] has labels that the model was not trained on: "
                    f"{format_list(sorted(strange.unique()))} in {len(strange)} cells; it knows "
                    f"{format_list(concept.labels, 40)}. Set them to NaN to treat those cells as unlabelled"
                )
        return codes


def label_column(obs: pd.DataFrame, name: str) -> pd.Series:
    """A concept's column as strings, missing values kept; raises for a missing or a continuous column."""
    import pandas as pd

    if name not in obs:
        raise UnknownConceptError(
            f"obs has no column {name!r} for a concept; its columns are {format_list(obs.columns, 40)}"
        )
    column = obs[name]
    values = column.cat.categories.to_series() if isinstance(column.dtype, pd.CategoricalDtype) else column.dropna()
    if pd.api.types.is_float_dtype(values.dtype):
        odd = values[~(np.isfinite(values) & (values == values.round()))]
        if len(odd):
            raise ConceptError(
                f"obs[{name!r}] holds continuous or infinite numbers (such as {odd.iloc[0]:g}); a concept has labels: "
                "cut it into bins first (pandas.cut)"
            )
        column = column.astype("Int64")  # 3.0 and 3 are one label
    return column.astype("string").astype(object).where(column.notna(), None)


def schema_from_obs(obs: pd.DataFrame, concepts: Sequence[str], edges: Iterable[tuple[str, str]] = ()) -> ConceptSchema:
    """The schema that a table of cells and a list of edges (parent, child) imply.

    Labels are sorted (by value where all are whole numbers), except those of an ordered categorical column, which
    keep its order; labels that no cell carries are left out.
    """
    import pandas as pd

    found = []
    for name in concepts:
        values = label_column(obs, name)
        present = set(values.dropna().unique())
        dtype = obs[name].dtype
        ordered = isinstance(dtype, pd.CategoricalDtype) and bool(dtype.ordered)
        if ordered:
            in_order = pd.DataFrame({name: pd.Categorical(dtype.categories, dtype=dtype)})
            names = label_column(in_order, name).tolist()  # the same text as the labels of cells
        else:
            names = _sorted_labels(present)
        if len(present) > _MOST_LABELS:
            raise ConceptError(
                f"obs[{name!r}] has {len(present)} distinct labels in {len(obs)} cells, more than {_MOST_LABELS}; "
                "is it an identifier? Name a column of labels, or cut it into bins (pandas.cut)"
            )
        labels = tuple(label for label in names if label in present)
        found.append(Concept(name, labels, "ordinal" if ordered else "categorical"))
    return ConceptSchema(tuple(found), tuple(Edge(parent, child) for parent, child in edges))


def _sorted_labels(labels: set[str]) -> list[str]:
    if all(label.removeprefix("-").isdecimal() for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))  # "1" and "01" are one value, but two labels
    return sorted(labels)


def unseen_combinations(codes: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Which rows of label codes [n x m] match no row of ``seen`` [s x m]; an unlabelled concept matches any label.

    Returns
    -------
    bool [n]
    """
    distinct, inverse = np.unique(codes, axis=0, return_inverse=True)
    known = {tuple(row) for row in seen.tolist()}
    unseen = np.zeros(len(distinct), dtype=bool)
    for i, row in enumerate(distinct):
        labelled = row != UNLABELLED
        unseen[i] = tuple(row.tolist()) not in known and not (
            not labelled.all() and (seen[:, labelled] == row[labelled]).all(axis=1).any()
        )
    return unseen[inverse.ravel()]


def as_pairs(texts: Iterable[str], form: str, separator: str) -> list[tuple[str, str]]:
    """Pairs from strings such as ``a=b`` or ``a:b``; raises `ConceptError` naming the malformed one."""
    pairs = []
    for text in texts:
        left, _, right = text.partition(separator)
        if not (left and right):
            raise ConceptError(f"{text!r} is not of the form {form.upper()}")
        pairs.append((left, right))
    return pairs
