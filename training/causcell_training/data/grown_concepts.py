"""Concepts that grow with new cells: labels, members and features behind those that a run has, whose places stay.

Networks read codes and standardised values, so that none of what a run's model learned may move: new labels stand
behind the old ones, new members of a set behind the old ones, numbers are standardised as they were, and bins stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from causcell._internal.labels import MOST_LABELS, find_label, label_text, number_text, read_labels
from causcell.concept_encoding import number_column, set_column
from causcell.concept_reading import LabelFeatures
from causcell.concept_values import JOIN, ConceptValue
from causcell.concepts import Concept, ConceptSchema
from causcell.errors import ConceptError, UnknownLabelError, format_list

if TYPE_CHECKING:
    import pandas as pd


def grow_schema(
    schema: ConceptSchema,
    obs: pd.DataFrame,
    *,
    features: Mapping[str, LabelFeatures] | None = None,
    rows: np.ndarray | None = None,
) -> ConceptSchema:
    """Add what cells have and concepts do not have yet behind what they have, whose codes and values stay.

    By kind: labels; combinations and members of sets; labels with features, taken from the table that the run had or
    from one given now; numbers of ordinal concepts beyond the last one. Numbers widen the range of a concept; an
    ordinal one's that lie between or below its own become values and no labels.

    Parameters
    ----------
    schema
        Concepts of the run.
    obs
        Annotations of all cells.
    features
        Tables of label features by concept, with all rows that the run knew.
    rows
        Training rows, int64, which say what numbers, sets and labels with features there are; all where none are given.

    Raises
    ------
    ConceptError
        More labels than a concept may have, a new label of an ordered concept whose place is not behind all others, a
        label without features, or a table that contradicts the run's.
    UnknownConceptError, UnknownLabelError
        There is no such column or concept; or a label is the number of several labels.

    Examples
    --------
    >>> import pandas as pd
    >>> schema = ConceptSchema((Concept("donor", ("d2", "d3")),))
    >>> grow_schema(schema, pd.DataFrame({"donor": ["d3", "d1", None]})).concepts[0].labels
    ('d2', 'd3', 'd1')
    """
    for name in features or {}:
        schema.index(name)  # raises for what is no concept
    trained = obs if rows is None else obs.iloc[rows]
    grown = []
    for concept in schema.concepts:
        table = (features or {}).get(concept.name)
        kind = "labels" if concept.value is None else concept.value.kind
        if table is not None and kind != "features":
            raise ConceptError(
                f"label features {table.source!r} are given for concept {concept.name!r}, which the run that training "
                "starts from learned without any; leave them out, or train anew"
            )
        if concept.value is None:
            grown.append(_grow_labels(concept, obs))
        elif kind == "set":
            grown.append(_grow_set(concept, concept.value, trained))
        elif kind == "features":
            grown.append(_grow_featured(concept, concept.value, trained, table))
        elif kind == "continuous":
            grown.append(_widen(concept, concept.value, number_column(trained, concept.name, kind)))
        else:
            grown.append(_grow_ordinal(concept, concept.value, trained))
    return replace(schema, concepts=tuple(grown))


def _grow_labels(concept: Concept, obs: pd.DataFrame) -> Concept:
    labels, ordered = read_labels(obs, concept.name)
    known = [_is_known(label, concept) for label in labels]
    new = [label for label, is_known in zip(labels, known, strict=True) if not is_known]
    if new and concept.kind == "ordinal":
        behind = ordered and known == sorted(known, reverse=True) and (not any(known) or _names_last(concept, labels))
        if not behind:
            raise _not_behind(concept, new)
    return replace(concept, labels=_append(concept, new))


def _append(concept: Concept, new: list[str]) -> tuple[str, ...]:
    """Return a concept's labels with new ones behind them; raises `ConceptError` for too many."""
    if len(concept.labels) + len(new) > MOST_LABELS:
        raise ConceptError(
            f"concept {concept.name!r} has {len(concept.labels)} labels, and obs[{concept.name!r}] {len(new)} new "
            f"ones, more than the {MOST_LABELS} that a concept may have"
        )
    return (*concept.labels, *new)


def _not_behind(concept: Concept, new: list[str]) -> ConceptError:
    return ConceptError(
        f"concept {concept.name!r} is ordered ({format_list(concept.labels)}), and new labels "
        f"{format_list(new)} can only stand behind its last one; give obs[{concept.name!r}] as an ordered "
        f"categorical in which they follow {concept.labels[-1]!r}, or train anew"
    )


def _names_last(concept: Concept, labels: tuple[str, ...]) -> bool:
    """Tell whether the file's order has the concept's labels in their own order."""
    codes = [concept.code(label) for label in labels if _is_known(label, concept)]
    return codes == sorted(codes)


def _is_known(label: str, concept: Concept) -> bool:
    """Tell whether a label is one of a concept's; raises `UnknownLabelError` for the number of several of them."""
    return _find(label, concept.labels, concept) is not None


def _find(label: str, labels: tuple[str, ...], concept: Concept) -> int | None:
    """Find a label's place among some, none where it is not there; raises for the number of several of them."""
    try:
        return find_label(label, labels, concept.name)
    except UnknownLabelError:
        number = number_text(label)
        if number is not None and any(number_text(each) == number for each in labels):
            raise
        return None


def _grow_set(concept: Concept, value: ConceptValue, obs: pd.DataFrame) -> Concept:
    carried = set(set_column(obs, concept.name, value.control).dropna().unique())
    new = sorted(carried - set(concept.labels))
    members = sorted({member for label in new if label != value.control for member in label.split(JOIN)})
    members = [*value.members, *(member for member in members if member not in value.members)]
    return replace(
        concept, labels=_append(concept, new), value=replace(value, width=len(members), members=tuple(members))
    )


def _grow_featured(concept: Concept, value: ConceptValue, obs: pd.DataFrame, table: LabelFeatures | None) -> Concept:
    if table is not None:
        value = _add_rows(concept, value, table)
    places = {label: _find(label, value.known, concept) for label in read_labels(obs, concept.name)[0]}
    if absent := [label for label, place in places.items() if place is None]:
        raise ConceptError(
            f"concept {concept.name!r} has no features of {format_list(absent)}, which cells carry; give the run's "
            f"table with a row for each (--label-features {concept.name}=FILE.csv), or set these cells' labels to NaN"
        )
    labels = len(concept.labels)
    new = [place for place in places.values() if place is not None and place >= labels]
    taken: dict[tuple[float, ...], str] = dict(zip(value.features[:labels], value.known, strict=False))
    for place in new:
        if value.features[place] in taken:
            raise ConceptError(
                f"the features of {taken[value.features[place]]!r} and {value.known[place]!r} of concept "
                f"{concept.name!r} are the same numbers, so that nothing tells them apart; make them one label"
            )
        taken[value.features[place]] = value.known[place]
    order = [*range(labels), *new, *(i for i in range(labels, len(value.known)) if i not in new)]
    known, rows = tuple(value.known[i] for i in order), tuple(value.features[i] for i in order)
    appended = _append(concept, list(known[labels : labels + len(new)]))
    return replace(concept, labels=appended, value=replace(value, known=known, features=rows))


def _add_rows(concept: Concept, value: ConceptValue, table: LabelFeatures) -> ConceptValue:
    """Add the labels of a table to those whose features are known; raises `ConceptError` where it contradicts them."""
    if table.names != value.feature_names:
        raise ConceptError(
            f"label features {table.source!r} of concept {concept.name!r} has features {format_list(table.names)}, and "
            f"the run that training starts from {format_list(value.feature_names)}; give the same columns in the same "
            "order"
        )
    for label, row in zip(value.known, value.features, strict=True):
        if label in table.rows and table.rows[label] != row:
            raise ConceptError(
                f"label features {table.source!r} has other numbers for {label!r} of concept {concept.name!r} than the "
                "run that training starts from; give the numbers it had, or train anew"
            )
    new = [label for label in table.rows if label not in value.known]
    return replace(value, known=(*value.known, *new), features=(*value.features, *(table.rows[label] for label in new)))


def _widen(concept: Concept, value: ConceptValue, numbers: np.ndarray) -> Concept:
    """Widen a concept's range, encoded by ``value``, to numbers of training cells, float64 [n]; NaN is none."""
    known = numbers[np.isfinite(numbers)]
    if not len(known) or value.low is None or value.high is None:
        return concept
    low, high = min(value.low, float(known.min())), max(value.high, float(known.max()))
    return replace(concept, value=replace(value, low=low, high=high))


def _grow_ordinal(concept: Concept, value: ConceptValue, obs: pd.DataFrame) -> Concept:
    if value.ranks:
        return _grow_ranks(concept, value, obs)
    numbers = number_column(obs, concept.name, value.kind)
    last = max(value.numbers)
    new = [number for number in np.unique(numbers[np.isfinite(numbers)]).tolist() if number > last]
    value = replace(value, numbers=(*value.numbers, *new))
    labels = _append(concept, [label_text(number) for number in new])
    return _widen(replace(concept, labels=labels, value=value), value, numbers)


def _grow_ranks(concept: Concept, value: ConceptValue, obs: pd.DataFrame) -> Concept:
    """Add the names of ordered categories behind the last rank; a rank that no cell carried stays one without label."""
    labels, ordered = read_labels(obs, concept.name)
    new = [label for label in labels if label not in value.ranks]
    own = [value.ranks.index(label) for label in labels if label in value.ranks]
    behind = ordered and list(labels[: len(own)]) == [value.ranks[place] for place in sorted(own)]
    if new and not behind:
        raise _not_behind(concept, new)
    ranks = (*value.ranks, *new)
    last = max(value.numbers)
    added = [label for label in labels if ranks.index(label) > last]
    numbers = np.array([float(ranks.index(label)) for label in labels])
    value = replace(value, ranks=ranks, numbers=(*value.numbers, *(float(ranks.index(label)) for label in added)))
    return _widen(replace(concept, labels=_append(concept, added), value=value), value, numbers)
