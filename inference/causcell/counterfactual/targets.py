"""What an intervention sets a concept to: a label that reference cells carry, or a value that its prior is told.

A label is a *reference* target: embeddings are those of drawn reference cells. A value that is no label (``age=30``
between trained ages, ``perturbation=A+B`` never seen together, a drug known by its features) is a *prior* target, as
is every target with ``target="prior"``: embeddings are drawn from p(z | value), the model's graph ``prior``.

With ``target="own"`` nothing is drawn: a cell keeps what sets its embedding apart from the mean of its own label or
value, beside the mean of the target (of reference cells for labels, of the prior for values). This is Pearl's
counterfactual of z_i = m_i(y) + u_i, with the cell's own u_i.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Literal, get_args

import numpy as np

from causcell.concept_encoding import encode_numbers
from causcell.concepts import Concept, ConceptSchema
from causcell.errors import InterventionError, UnknownLabelError, format_list

TargetKind = Literal["reference", "prior", "own"]
TARGET_KINDS: tuple[TargetKind, ...] = get_args(TargetKind)

UNSEEN = -2
"""Code of a value that is none of the concept's labels; no cell carries it, so that it equals no cell's own."""

_LABELS_SHOWN = 6

_MOST_POINTS = 10_000
"""Values of a grid's axis at most."""


@dataclass(frozen=True)
class Target:
    """Label or value that one concept is set to.

    Attributes
    ----------
    code
        Code of the label; of the label whose bin a number falls into; `UNSEEN` for a value that is no label.
    text
        The label, or the canonical text of the value.
    by_value
        Embeddings are drawn from the prior.
    """

    code: int
    text: str
    by_value: bool


def resolve_target(concept: Concept, given: object, target: TargetKind = "reference") -> Target:
    """Find what a label or value means that an intervention gives.

    Parameters
    ----------
    concept
        The concept that is set.
    given
        A label, a number, or members of a set (text, ``A+B``, or a list).
    target
        ``prior``: by the prior even where reference cells carry the label.

    Raises
    ------
    UnknownLabelError
        It is neither a label nor a value of the concept.
    """
    if concept.value is None:
        code = concept.code(given)
        return Target(code, concept.labels[code], target == "prior")
    label = _find_label(concept, given)
    if label is not None:
        if target != "prior":
            return Target(label, concept.labels[label], False)
        return Target(label, concept.describe_value(concept.values[label]), True)
    text = concept.describe_value(concept.parse_value(given))
    return Target(_code_of(concept, text), text, True)


def find_code(concept: Concept, given: object) -> int:
    """Return the code of a label, or of the bin that a number falls into; raises `UnknownLabelError` for others."""
    code = resolve_target(concept, given).code
    return concept.code(given) if code == UNSEEN else code


def _find_label(concept: Concept, given: object) -> int | None:
    """Return the code of the label that is meant, whatever order a set's members are in; `None` if it is none."""
    assert concept.value is not None
    if concept.value.kind == "set":
        given = concept.describe_value(concept.parse_value(given))
    try:
        return concept.code(given)
    except UnknownLabelError:
        return None


def _code_of(concept: Concept, text: str) -> int:
    """Return the code of the bin that a number falls into, the nearest for one beyond all; else `UNSEEN`."""
    value = concept.value
    assert value is not None
    return int(encode_numbers(np.array([float(text)]), value)[0][0]) if value.kind == "continuous" else UNSEEN


@dataclass(frozen=True)
class Axis:
    """Labels or values that a grid sets one concept to, in turn.

    Attributes
    ----------
    concept
        Name of the concept.
    values
        Its labels, or numbers as text.
    is_range
        They are numbers of a range: all are drawn from the prior, labels among them too, so that a cell's course over
        the range has no step where a label is.
    """

    concept: str
    values: tuple[str, ...]
    is_range: bool


def read_axis(schema: ConceptSchema, text: str) -> Axis:
    """Read a grid's axis: ``NAME``, or ``NAME=START:STOP:STEP``.

    Raises
    ------
    UnknownConceptError
        There is no such concept.
    InterventionError
        A range of another form, of a concept without numbers, or of more than 10,000 values.

    Examples
    --------
    >>> from causcell.concepts import Concept, ConceptSchema
    >>> read_axis(ConceptSchema((Concept("stim", ("IFN", "ctrl")),)), "stim").values
    ('IFN', 'ctrl')
    """
    name, equals, points = text.partition("=")
    concept = schema[name]
    value = concept.value
    if not equals:
        if value is not None and value.kind == "continuous":  # bins are no values: their cells' medians are
            return Axis(name, tuple(concept.describe_value(row) for row in concept.values), False)
        return Axis(name, concept.labels, False)
    if value is None or not value.is_number:
        raise InterventionError(
            f"grid={text!r} asks for a range, and {name!r} has labels without numbers between them; take every label "
            f"(grid={name!r}), or name a concept that is continuous or ordinal"
        )
    return Axis(name, tuple(read_range(points, text)), True)


def read_range(points: str, text: str) -> list[str]:
    """Return the numbers, as text, of ``START:STOP:STEP``; the stop is among them where it falls on the grid.

    Raises
    ------
    InterventionError
        Another form, a step that leads nowhere, or more than 10,000 numbers.

    Examples
    --------
    >>> read_range("0:1:0.25", "dose=0:1:0.25")
    ['0', '0.25', '0.5', '0.75', '1']
    >>> read_range("3:0:-1.5", "dose=3:0:-1.5")
    ['3', '1.5', '0']
    """
    try:
        start, stop, step = (Decimal(part.strip()) for part in points.split(":"))
        steps = int((stop - start) / step)
        finite = all(number.is_finite() for number in (start, stop, step))
    except (InvalidOperation, ValueError, ArithmeticError):
        finite, steps = False, 0
    if not finite or steps < 0 or steps >= _MOST_POINTS:
        raise InterventionError(
            f"grid={text!r} is no range: give NAME=START:STOP:STEP, three numbers whose step leads from start to stop "
            f"in fewer than {_MOST_POINTS:,} steps, such as dose=0:10:0.5"
        )
    return [f"{(start + i * step).normalize():f}" for i in range(steps + 1)]


def describe_training(concept: Concept) -> str:
    """Say what values of a concept a model was trained on, such as ``age from 3 to 80``."""
    value = concept.value
    if value is not None and value.is_number:
        return f"{concept.name} {_range(concept)}"
    if value is not None and value.kind == "set":
        return f"{concept.name}: {len(concept.labels)} combinations of {len(value.members)} members"
    return f"{concept.name}: {format_list(concept.labels)}"


def describe_concept(concept: Concept) -> str:
    """Describe a concept's labels, or its kind and the values that the model was trained on, in a line."""
    value = concept.value
    if value is None:
        return _shorten(concept.labels)
    if value.is_number:
        of_labels = _shorten(concept.labels) if value.kind == "ordinal" else f"bins {_shorten(concept.labels)}"
        return f"{value.kind}, {_range(concept)}: {of_labels}"
    if value.kind == "set":
        control = "" if value.control is None else f", control {value.control}"
        return f"set of {len(value.members)} members{control}: {_shorten(concept.labels)}"
    known = len(value.known) - len(concept.labels)
    return f"labels with {value.width} features, {known} more known by these alone: {_shorten(concept.labels)}"


def _range(concept: Concept) -> str:
    value = concept.value
    assert value is not None
    low, high = (concept.describe_value(value.standardise(np.array([end]))) for end in (value.low, value.high))
    return f"from {low} to {high}"


def _shorten(labels: tuple[str, ...]) -> str:
    more = len(labels) - _LABELS_SHOWN
    return ", ".join(labels[:_LABELS_SHOWN]) + (f" and {more} more" if more > 0 else "")
