"""Concepts, their labels, and the directed acyclic graph of causal edges between them.

Arrays have a concept axis: the m observed concepts in the schema's order, then, where it is M = m + 1 long, the
unexplained concept. Labels are coded by their place in `Concept.labels`.
"""

from __future__ import annotations

import graphlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from causcell._internal.choices import as_pairs as as_pairs
from causcell._internal.choices import suggest
from causcell._internal.labels import find_label
from causcell.concept_encoding import encode_codes, encode_column
from causcell.concept_encoding import unseen_combinations as unseen_combinations
from causcell.concept_values import ConceptValue
from causcell.errors import ConceptError, ConceptGraphError, UnknownConceptError, format_list

if TYPE_CHECKING:
    import pandas as pd

Mechanism = Literal["linear", "nonlinear"]
"""How causes act on a concept: their embeddings add up, times a weight each, or any function of them does."""

UNEXPLAINED = "unexplained"
"""Name of the concept for what no labelled concept explains; always last, without labels and without edges."""

UNLABELLED = -1
"""Code of a cell without a label of a concept."""
_RESERVED_CHARACTERS = "=:,;|/"  # they separate concepts, labels and cells in options, obs_names and atlases

EXTRAPOLATED = "extrapolated"
"""Column of results that marks values beyond those trained on, where concepts have values."""

_RESERVED_NAMES = (UNEXPLAINED, "exogenous", "source_cell", "intervention", "draw", "unseen_combination")
"""Names that arrays and columns of results already have."""


@dataclass(frozen=True)
class Concept:
    """A labelled concept, such as the cell type.

    Attributes
    ----------
    name
        Column of ``obs`` that holds the labels.
    labels
        All labels, in the order of their codes.
    kind
        ``ordinal`` keeps the order of an ordered categorical column; ``categorical`` labels, which may also be given
        as ``labels``, are sorted; labels of ``continuous`` concepts are bins, and of ``set`` concepts combinations.
    value
        Encoding of values, where they are more than labels; `None` for plain ones, ordered or not.

    Raises
    ------
    ConceptError
        The name is reserved, or there are fewer than two labels, or one twice.

    Examples
    --------
    >>> stim = Concept("stim", ("IFN", "ctrl"))
    >>> stim.code("ctrl")
    1
    """

    name: str
    labels: tuple[str, ...]
    kind: Literal["categorical", "labels", "ordinal", "continuous", "set"] = "categorical"
    value: ConceptValue | None = None

    def __post_init__(self) -> None:
        bad = [character for character in _RESERVED_CHARACTERS if character in self.name]
        if not self.name or bad or self.name in _RESERVED_NAMES:
            raise ConceptError(
                f"concept name {self.name!r} can't be used: it must not be empty, contain any of "
                f"{_RESERVED_CHARACTERS!r} or be one of {format_list(_RESERVED_NAMES)}; rename the column of obs"
            )
        if len(set(self.labels)) < 2:
            raise ConceptError(
                f"concept {self.name!r} has {len(set(self.labels))} label ({format_list(self.labels)}); a concept "
                "needs at least two: leave it out, or give cells of another label"
            )
        if len(set(self.labels)) != len(self.labels):
            raise ConceptError(f"concept {self.name!r} names a label twice: {format_list(self.labels)}")
        if self.kind == "labels":
            object.__setattr__(self, "kind", "categorical")  # the name that files have had from the first
        if (self.value is None and self.kind in ("continuous", "set")) or (
            self.value is not None and self.value.kind.replace("features", "categorical") != self.kind
        ):
            raise ConceptError(f"concept {self.name!r} of kind {self.kind} needs values of its kind")
        if self.value is not None:
            self.value.check_labels(self.labels, self.name)

    def code(self, label: object) -> int:
        """Return the code of a label, its place in `labels`.

        A number finds its label however it is written: 35, 35.0, "35" and "35.0" the label "35"; a label's own text
        goes first.

        Raises
        ------
        UnknownLabelError
            The concept has no such label, or several that are the same number.
        """
        return find_label(label, self.labels, self.name)

    @property
    def values(self) -> np.ndarray:
        """Value of each label, float32 [labels x width]; one-hot for plain labels."""
        if self.value is None:
            return np.eye(len(self.labels), dtype=np.float32)
        return self.value.of_labels(self.labels, self.name)

    def parse_value(self, given: object) -> np.ndarray:
        """Return the value, float32 [width], that a label, a number, or members joined by ``+`` or in a list mean.

        Raises
        ------
        UnknownLabelError
            What is given is no value of this concept.
        """
        if self.value is None:
            return np.asarray(self.values[self.code(given)])
        return self.value.parse(given, self.labels, self.name)

    def extrapolates(self, value: np.ndarray) -> bool:
        """Tell whether a value, float32 [width], lies beyond the cells trained on.

        A number outside their range, a set that none of them has, or a label known by its features alone.
        """
        return self.value is not None and self.value.extrapolates(value, self.labels, self.name)

    def describe_value(self, value: np.ndarray) -> str:
        """Return the text of a value, float32 [width]: a label, the shortest number, or members joined by ``+``."""
        if self.value is None:
            return self.labels[int(np.argmax(value))]
        return self.value.describe(value, self.name)


@dataclass(frozen=True)
class Edge:
    """A causal edge between two concepts.

    Attributes
    ----------
    parent, child
        Names of the concepts: the parent is a cause of the child.
    weight
        A[parent, child] of the SCM z = A^T z + eps; with nonlinear mechanisms of its linear part.
    """

    parent: str
    child: str
    weight: float = 1.0


@dataclass(frozen=True)
class ConceptSchema:
    """The observed concepts and the causal edges between them: a directed acyclic graph.

    Attributes
    ----------
    concepts
        Observed concepts, in the order of every array's concept axis.
    edges
        Causal edges between them.
    mechanism
        How causes act on a concept: ``linear``, or ``nonlinear`` by the graph ``scm`` alone, which weights don't tell.

    Raises
    ------
    ConceptError
        There is no concept, or two have one name or names that results mix up.
    ConceptGraphError
        An edge names no concept, is given twice or closes a cycle.

    Examples
    --------
    >>> donor, cell_type = Concept("donor", ("d1", "d2")), Concept("cell_type", ("B", "NK", "T"))
    >>> schema = ConceptSchema((cell_type, donor), (Edge("donor", "cell_type"),))
    >>> schema.order  # parents first
    (1, 0)
    >>> schema.size  # with the unexplained concept
    3
    """

    concepts: tuple[Concept, ...]
    edges: tuple[Edge, ...] = ()
    mechanism: Mechanism = "linear"

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
                        f"edge {parent}:{child} names {name!r}, which is no concept; {suggest(name, names)}the "
                        f"concepts are {format_list(names)}"
                    )
        if self.has_values and EXTRAPOLATED in names:
            raise ConceptError(
                f"concept {EXTRAPOLATED!r} has the name of the column that marks values beyond those trained on; "
                "rename the column of obs"
            )
        if len(set(pairs)) != len(pairs):
            raise ConceptGraphError(f"an edge is given twice: {format_list(f'{p}:{c}' for p, c in pairs)}")
        _ = self.order  # a cycle is found when the schema is made, not when it is used

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the observed concepts, in the order of the concept axis."""
        return tuple(concept.name for concept in self.concepts)

    @property
    def size(self) -> int:
        """Number of concepts with the unexplained one, M = m + 1."""
        return len(self.concepts) + 1

    @property
    def has_values(self) -> bool:
        """Tell whether any concept's values are more than labels: such models have a graph ``prior``."""
        return any(concept.value is not None for concept in self.concepts)

    @cached_property
    def numeric(self) -> tuple[int, ...]:
        """Indices of the concepts whose values are numbers, ordinal and continuous ones."""
        return tuple(i for i, each in enumerate(self.concepts) if each.value is not None and each.value.is_number)

    @cached_property
    def value_slices(self) -> tuple[slice, ...]:
        """Columns of each concept's value among the values of all, of width V together."""
        widths = [len(each.labels) if each.value is None else each.value.width for each in self.concepts]
        ends = np.cumsum(widths).tolist()
        return tuple(slice(end - width, end) for end, width in zip(ends, widths, strict=True))

    @property
    def cell_type_like(self) -> str:
        """Name of the concept within whose labels cells are compared.

        The first concept with ``type`` in its name; if there is none, the one with the most labels.
        """
        types = [name for name in self.names if "type" in name.lower()]
        return types[0] if types else max(self.concepts, key=lambda concept: len(concept.labels)).name

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Topological order: indices of the observed concepts, parents before children."""
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
        """Return the index of a concept on the concept axis.

        Raises
        ------
        UnknownConceptError
            There is no concept of that name.
        """
        try:
            return self.names.index(name)
        except ValueError:
            raise UnknownConceptError(
                f"there is no concept {name!r}; {suggest(name, self.names)}the concepts are {format_list(self.names)}"
            ) from None

    def __getitem__(self, name: str) -> Concept:
        return self.concepts[self.index(name)]

    def parents(self, index: int) -> tuple[int, ...]:
        """Return the indices of a concept's direct causes."""
        return tuple(self.names.index(e.parent) for e in self.edges if e.child == self.names[index])

    def descendants(self, indices: Iterable[int]) -> frozenset[int]:
        """Return the indices of all descendants of concepts, these included only where one descends from another."""
        reached: set[int] = set()
        frontier = set(indices)
        while frontier:
            children = {i for i in range(len(self.concepts)) if frontier & set(self.parents(i))}
            frontier = children - reached
            reached |= children
        return frozenset(reached)

    def adjacency(self) -> np.ndarray:
        """Return the weighted adjacency matrix A of the linear SCM z = A^T z + eps.

        Returns
        -------
        float64 [M x M]; A[i, j] is the weight of the edge from i to j, 0 where there is none. The unexplained concept
        has no edge.

        Raises
        ------
        ConceptGraphError
            The mechanisms are not linear, so that no matrix holds them.
        """
        if self.mechanism != "linear":
            raise ConceptGraphError(
                f"mechanism={self.mechanism!r}: no adjacency matrix holds what causes do; ask the model for effects "
                "(Generator.counterfactual, or its graph scm), or train with model.mechanism=linear"
            )
        adjacency = np.zeros((self.size, self.size))
        for edge in self.edges:
            adjacency[self.names.index(edge.parent), self.names.index(edge.child)] = edge.weight
        return adjacency

    def label_names(self, codes: np.ndarray, concept: str) -> pd.Categorical:
        """Decode the labels of one concept.

        Parameters
        ----------
        codes
            Codes of labels, int [n] (other shapes are flattened).
        concept
            Name of the concept.

        Returns
        -------
        Categorical [n] over all labels, ordered where the concept is ordinal or continuous; `UNLABELLED` becomes NaN.

        Raises
        ------
        UnknownConceptError
            There is no concept of that name.
        """
        import pandas as pd

        found = self[concept]
        return pd.Categorical.from_codes(
            np.asarray(codes).ravel(), categories=list(found.labels), ordered=found.kind in ("ordinal", "continuous")
        )

    def encode(self, obs: pd.DataFrame) -> np.ndarray:
        """Encode the labels of cells.

        Parameters
        ----------
        obs
            Annotations of cells, with a column for each concept. A concept without a column, or a missing value in
            it, is `UNLABELLED`.

        Returns
        -------
        Codes of labels, int32 [cells x m].

        Raises
        ------
        ConceptError
            A column holds infinite numbers, or values that are no labels.
        UnknownLabelError
            A label is none of its concept's, nor the same number as one; set it to NaN to have the cell treated as
            unlabelled.
        """
        codes = np.full((len(obs), len(self.concepts)), UNLABELLED, dtype=np.int32)
        for i, concept in enumerate(self.concepts):
            if concept.name in obs:
                codes[:, i] = encode_codes(obs, concept.name, concept.labels, concept.value)
        return codes

    def encode_values(self, obs: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Encode the labels and the values of cells; arguments and errors as for `encode`.

        Returns
        -------
        codes
            int32 [cells x m]; `UNLABELLED` also for a value that is none of the labels, such as a set never seen.
        values
            float32 [cells x V], the concepts' values side by side (`value_slices`); NaN where there is none.
        """
        codes = np.full((len(obs), len(self.concepts)), UNLABELLED, dtype=np.int32)
        values = np.full((len(obs), self.value_slices[-1].stop), np.nan, dtype=np.float32)
        for i, (concept, place) in enumerate(zip(self.concepts, self.value_slices, strict=True)):
            if concept.name in obs:
                codes[:, i], values[:, place] = encode_column(obs, concept.name, concept.labels, concept.value)
        return codes, values
