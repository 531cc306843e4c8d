"""Values of concepts that are more than labels: ordered or measured numbers, sets of members, labels with features.

Beside its code every cell has a *value* of each concept, a float32 vector: what priors over embeddings, interventions
on values and regression read. By kind:

========== ================================================ =========================================
kind       value                                            labels
========== ================================================ =========================================
labels     one-hot over the labels                          the labels
features   the label's features, standardised               the labels that training cells carry
ordinal    the label's number or rank, standardised         the labels, in order
continuous the number, standardised                         bins of training cells, ``[0, 12)``
set        1 for each member, else 0                        the combinations that training cells carry
========== ================================================ =========================================

A plain concept has no `ConceptValue`, and its value is one-hot. NaN in all of a value's numbers: not labelled.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from causcell._internal.choices import suggest
from causcell._internal.labels import find_label, label_text, number_text
from causcell.errors import ConceptError, UnknownLabelError, format_list

ValueKind = Literal["ordinal", "continuous", "set", "features"]

JOIN = "+"
"""Sign between the members of a set."""

_LARGEST_WIDTH = 2**20


@dataclass(frozen=True)
class ConceptValue:
    """Encoding of a concept's values as vectors.

    Attributes
    ----------
    kind
        Kind of the values; see `causcell.concept_values`.
    width
        Length of a value's vector.
    mean, deviation
        Mean and standard deviation by which numbers are standardised: of the training cells (``ordinal``,
        ``continuous``), or of the trained labels, a pair for each feature (``features``); empty for ``set``.
    low, high
        Range of the training cells' numbers, in the data's units (ranks, where labels are no numbers).
    numbers
        Number of each label: its own or its rank (``ordinal``), the median of its training cells (``continuous``).
    bounds
        Bounds between bins, ascending (``continuous``).
    ranks
        Names of all ranks in order, those of labels that no training cell carries included; empty where labels are
        numbers (``ordinal``).
    members
        All members, sorted; those learned by a training that started from a run stand behind the others (``set``).
    control
        Label of the cells that have no member (``set``).
    feature_names
        Names of the features (``features``).
    known
        Labels whose features are known, those that were trained on first (``features``).
    features
        Features of each of them, in the table's units.

    Raises
    ------
    ConceptError
        The parts do not fit each other.

    Examples
    --------
    >>> value = ConceptValue("set", 2, members=("A", "B"), control="ctrl")
    >>> value.parse("B+A", ("A", "B", "ctrl"), "perturbation").tolist()
    [1.0, 1.0]
    """

    kind: ValueKind
    width: int
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    low: float | None = None
    high: float | None = None
    numbers: tuple[float, ...] = ()
    bounds: tuple[float, ...] = ()
    ranks: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    control: str | None = None
    feature_names: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    features: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        numbers = (*self.mean, *self.deviation, *self.numbers, *self.bounds, *(n for row in self.features for n in row))
        if not 1 <= self.width <= _LARGEST_WIDTH or not all(map(math.isfinite, numbers)):
            raise ConceptError(f"values of width {self.width}, or with numbers that are not finite, can't be used")
        if self.kind == "set":
            wrong = self.width != len(self.members) or len(set(self.members)) != len(self.members)
        else:
            wrong = not len(self.mean) == len(self.deviation) == self.width or min(self.deviation) <= 0
        if self.is_number:
            ordered = self.low is not None and self.high is not None and self.low < self.high
            wrong = wrong or self.width != 1 or not ordered or list(self.bounds) != sorted(set(self.bounds))
        if self.kind == "features":
            wrong = wrong or len(self.feature_names) != self.width or len(self.known) != len(self.features)
            wrong = wrong or any(len(row) != self.width for row in self.features)
        if wrong:
            raise ConceptError(f"the description of {self.kind} values of width {self.width} contradicts itself")

    @property
    def is_number(self) -> bool:
        """Tell whether values are single numbers: of ``ordinal`` and ``continuous`` concepts."""
        return self.kind in ("ordinal", "continuous")

    def check_labels(self, labels: Sequence[str], concept: str) -> None:
        """Raise `ConceptError` unless the values are those of a concept with these labels."""
        if self.is_number:
            fits = len(self.numbers) == len(labels)
            fits = fits and (self.kind == "ordinal" or len(self.bounds) == len(labels) - 1)
        elif self.kind == "set":
            fits = {m for label in labels for m in self.split(label, concept)} <= set(self.members)
        else:
            fits = tuple(self.known[: len(labels)]) == tuple(labels)
        if not fits:
            raise ConceptError(f"the {self.kind} values of concept {concept!r} are not those of its labels")

    def standardise(self, numbers: np.ndarray) -> np.ndarray:
        """Standardise numbers or features [... x width], in the data's units, to float32."""
        return np.asarray((numbers - np.array(self.mean)) / np.array(self.deviation), dtype=np.float32)

    def in_units(self, values: np.ndarray) -> np.ndarray:
        """Return numbers or features, float64 [... x width], in the data's units, of standardised ones."""
        numbers: np.ndarray = np.asarray(values, dtype=np.float64) * np.array(self.deviation) + np.array(self.mean)
        return numbers

    @cached_property
    def _rows(self) -> np.ndarray:
        return self.standardise(np.array(self.features))

    def of_labels(self, labels: Sequence[str], concept: str) -> np.ndarray:
        """Return the value of each label, float32 [labels x width]."""
        if self.is_number:
            return self.standardise(np.array(self.numbers)[:, None])
        if self.kind == "features":
            return np.asarray(self._rows[: len(labels)])
        return np.array([self._multi_hot(self.split(label, concept)) for label in labels], dtype=np.float32)

    def parse(self, given: Any, labels: Sequence[str], concept: str) -> np.ndarray:
        """Return the vector, float32 [width], of a value as people write it; see `causcell.concepts.Concept`."""
        if self.kind == "set":
            return self._multi_hot(self.split(given, concept))
        if self.kind == "features":
            if isinstance(given, str) and given in self.known:
                return np.asarray(self._rows[self.known.index(given)])
            return np.asarray(self._rows[find_label(given, self.known, concept)])
        if isinstance(given, str) and given in labels:
            return self.standardise(np.array([self.numbers[labels.index(given)]]))
        if isinstance(given, str) and given in self.ranks:
            return self.standardise(np.array([float(self.ranks.index(given))]))
        text = number_text(given)
        if text is None:
            named = f"; {suggest(str(given), self.ranks)}or one of {format_list(self.ranks, 40)}" if self.ranks else ""
            raise UnknownLabelError(
                f"concept {concept!r} is {self.kind}, and {str(given)[:100]!r} is no number; give a number, such as "
                f"{label_text(self.high)} (training cells have {label_text(self.low)} to {label_text(self.high)})"
                f"{named}"
            )
        return self.standardise(np.array([float(text)]))

    def split(self, given: Any, concept: str) -> tuple[str, ...]:
        """Return the members, sorted, of a set given as text, ``A+B``, or as a list.

        Raises
        ------
        UnknownLabelError
            A member that the concept does not have, or none.
        """
        members = split_members(given, self.control, concept)
        strange = [member for member in members if member not in self.members]
        if strange:
            raise UnknownLabelError(
                f"concept {concept!r} has no member {strange[0]!r}; {suggest(strange[0], self.members)}its members are "
                f"{format_list(self.members, 40)}"
            )
        return members

    def _multi_hot(self, members: Collection[str]) -> np.ndarray:
        return np.array([member in members for member in self.members], dtype=np.float32)

    def extrapolates(self, value: np.ndarray, labels: Sequence[str], concept: str) -> bool:
        """Tell whether a value, float32 [width], lies beyond what was trained on."""
        if self.is_number:
            low, high = (self.standardise(np.array([bound])) for bound in (self.low, self.high))
            return bool((value < low).any() or (value > high).any())
        return not bool((self.of_labels(labels, concept) == value).all(axis=1).any())

    def describe(self, value: np.ndarray, concept: str) -> str:
        """Return the text of a value, float32 [width]: a label, members joined by ``+``, or the shortest number.

        Raises
        ------
        ConceptError
            Features that no label has.
        """
        if self.kind == "set":
            members = [member for member, there in zip(self.members, value, strict=True) if there > 0.5]
            return JOIN.join(sorted(members)) if members else self.control or ""
        if self.kind == "features":
            same = np.flatnonzero((self._rows == value).all(axis=1))
            if not len(same):
                raise ConceptError(f"no label of concept {concept!r} has these features: {value[:4]}")
            return self.known[int(same[0])]
        text = self._shortest(np.float32(value[0]))
        if self.ranks and text.isdigit() and int(text) < len(self.ranks):
            return self.ranks[int(text)]
        return text

    def _shortest(self, standardised: np.float32) -> str:
        """Return the shortest decimal text whose number has this standardised value."""
        number = float(self.in_units(np.array([standardised]))[0])
        rounded = (round(number, decimals) for decimals in range(-15, 20))
        precise = (float(f"{number:.{digits}g}") for digits in range(1, 18))
        for near in (*rounded, *precise):
            if self.standardise(np.array([near]))[0] == standardised:
                return label_text(near)
        return label_text(number)


def split_members(given: Any, control: str | None, concept: str) -> tuple[str, ...]:
    """Return the members, sorted, of a set given as text, ``A+B``, or as a list; none for the control label.

    Raises
    ------
    UnknownLabelError
        A member that is empty, or no text.

    Examples
    --------
    >>> split_members("KLF1 + MAP2K6", "ctrl", "perturbation"), split_members("ctrl", "ctrl", "perturbation")
    (('KLF1', 'MAP2K6'), ())
    """
    if control is not None and (given == control or (isinstance(given, list | tuple | set | frozenset) and not given)):
        return ()
    if isinstance(given, list | tuple | set | frozenset):
        parts = [part if isinstance(part, str) else label_text(part) for part in given if part != control]
        if not parts and len(given):
            return ()
    else:
        parts = (given if isinstance(given, str) else label_text(given)).split(JOIN)
    members = tuple(sorted({part.strip() for part in parts}))
    if not all(members) or not members or any(JOIN in member for member in members):
        raise UnknownLabelError(
            f"concept {concept!r} is a set, and {str(given)[:100]!r} is none: give members joined by {JOIN!r}, such as "
            f"A{JOIN}B, or a list of them" + ("" if control is None else f"; {control!r} is the set without members")
        )
    return members
