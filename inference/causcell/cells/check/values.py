"""Findings in concepts that are more than labels: what is seen of their values, and what they can be asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from causcell._internal.labels import label_text
from causcell.cells.check.report import Finding
from causcell.concept_values import ConceptValue
from causcell.concepts import Concept
from causcell.errors import format_list

_FEW_NUMBERS = 3

_MANY_LABELS = 20


def value_findings(concept: Concept, cells: Mapping[str, int], unlabelled: int) -> Iterator[Finding]:
    """Tell what is seen of a concept's values; nothing of plain labels.

    Parameters
    ----------
    concept
        The concept.
    cells
        Number of cells of each label.
    unlabelled
        Number of cells without a value.
    """
    value = concept.value
    if value is None:
        return
    if value.is_number:
        yield from _numbers(concept, value, len(cells))
    elif value.kind == "set":
        yield from _sets(concept, value, cells)
    else:
        yield from _features(concept, value)
    if unlabelled:
        yield Finding(
            "unlabelled", "note", (concept.name,),
            f"{concept.name}: {unlabelled} of {unlabelled + sum(cells.values())} cells carry no value; they are "
            "trained on, and this concept learns nothing from them",
            {"cells": unlabelled},
        )  # fmt: skip


def _numbers(concept: Concept, value: ConceptValue, labels: int) -> Iterator[Finding]:
    low, high = label_text(value.low), label_text(value.high)
    units = "ranks" if value.ranks else "numbers"
    shown = f"{labels} bins" if value.kind == "continuous" else f"{labels} labels"
    missing = [rank for rank in value.ranks if rank not in concept.labels]
    between = f"; no cell carries {format_list(missing)}, which do() can ask for" if missing else ""
    yield Finding(
        "values", "note", (concept.name,),
        f"{concept.name}: {value.kind}, {units} from {low} to {high} in {shown}{between}. do() of a number between is "
        "interpolated; beyond, it is extrapolated, and marked",
        {"low": value.low, "high": value.high, "labels": labels},
    )  # fmt: skip
    if len(set(value.numbers)) < _FEW_NUMBERS:
        yield Finding(
            "few_values", "warning", (concept.name,),
            f"{concept.name}: {value.kind} with {len(set(value.numbers))} different {units}: what lies between them is "
            "a guess. Give cells of a third, or take it as labels",
            {"labels": labels},
        )  # fmt: skip
    if value.kind == "ordinal" and labels > _MANY_LABELS:
        yield Finding(
            "many_values", "warning", (concept.name,),
            f"{concept.name}: ordinal with {labels} labels; take it as {concept.name}:continuous, whose labels are "
            "bins, for tables and plots that can be read",
            {"labels": labels},
        )  # fmt: skip


def _sets(concept: Concept, value: ConceptValue, cells: Mapping[str, int]) -> Iterator[Finding]:
    members = {label: value.split(label, concept.name) for label in cells}
    alone = {each[0] for each in members.values() if len(each) == 1}
    largest = max(map(len, members.values()))
    never = [member for member in value.members if member not in alone]
    control = f"; {value.control!r} is the set without members" if value.control is not None else ""
    yield Finding(
        "values", "note", (concept.name,),
        f"{concept.name}: sets of {len(value.members)} members, of at most {largest} each, in {len(cells)} "
        f"combinations{control}. do() of another combination of these members is extrapolated, and marked",
        {"members": len(value.members), "combinations": len(cells), "largest": largest},
    )  # fmt: skip
    if largest < 2:
        yield Finding(
            "single_members", "warning", (concept.name,),
            f"{concept.name}: no cell has more than one member: what two do together can only be added up, and nothing "
            "judges it. Give cells with several, or take it as labels",
            {"members": len(value.members)},
        )  # fmt: skip
    elif never:
        yield Finding(
            "never_alone", "warning", (concept.name,),
            f"{concept.name}: {format_list(never, 4)} {'is' if len(never) == 1 else 'are'} carried by no cell alone: "
            "their own effect and that of what they come with are told apart by other combinations, if at all",
            {"members": never},
        )  # fmt: skip
    looks = [each for each in value.members if each.casefold() in ("control", "ctrl", "nt", "non-targeting", "none")]
    if looks and value.control is None:
        yield Finding(
            "control_member", "warning", (concept.name,),
            f"{concept.name}: {format_list(looks)} {'is' if len(looks) == 1 else 'are'} taken as a member; if these "
            f"cells have none, say so: set_control='{concept.name}={looks[0]}'",
            {"members": looks},
        )  # fmt: skip


def _features(concept: Concept, value: ConceptValue) -> Iterator[Finding]:
    others = value.known[len(concept.labels) :]
    yield Finding(
        "values", "note", (concept.name,),
        f"{concept.name}: {len(concept.labels)} labels with {value.width} features; {len(others)} more labels are "
        f"known by their features alone{': ' + format_list(others, 4) if others else ''}. do() of these is "
        "extrapolated, and marked",
        {"labels": len(concept.labels), "features": value.width, "others": len(others)},
    )  # fmt: skip
    if value.width >= len(concept.labels):
        yield Finding(
            "many_features", "note", (concept.name,),
            f"{concept.name}: {value.width} features of {len(concept.labels)} labels: a line through the labels fits "
            "whatever they are, so that labels without cells are a guess; take fewer features, such as their first "
            "principal components",
            {"features": value.width, "labels": len(concept.labels)},
        )  # fmt: skip
