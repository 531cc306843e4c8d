"""Findings in the labels of one concept: what looks missing, written twice, measured rather than named, or too rare."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping

from causcell._internal.labels import number_text
from causcell.cells.check.report import Finding
from causcell.errors import format_list

_MISSING = {
    "", "nan", "NaN", "NAN", "-nan", "NA", "N/A", "n/a", "#N/A", "<NA>", "None", "NaT", "null", "NULL",
}  # fmt: skip
"""What programs write for a missing value; "Na", "na" and "none" may be labels."""

_UNDECIDED = {"unknown", "unassigned", "undefined", "undetermined", "not available", "missing", "?", "-", "na"}

_MANY_NUMBERS = 20

_FEW_CELLS = 10

_CELLS_A_LABEL = 5
"""Below so many cells a label, on average, a column names cells rather than kinds of them."""


def label_findings(concept: str, cells: Mapping[str, int], unlabelled: int) -> Iterator[Finding]:
    """Find what is odd about the labels of a concept.

    Parameters
    ----------
    concept
        Name of the concept.
    cells
        Number of cells of each label.
    unlabelled
        Number of cells without a label.
    """
    yield from _missing(concept, cells)
    yield from _blanks(concept, cells)
    yield from _near_duplicates(concept, cells)
    yield from _numbers(concept, cells)
    yield from _rare(concept, cells)
    undecided = [label for label in cells if label.strip() not in _MISSING and label.strip().casefold() in _UNDECIDED]
    if undecided:
        yield Finding(
            "undecided",
            "note",
            (concept,),
            f"{concept}: {_with_cells(cells, undecided)} may stand for cells that nobody could label; as it is, it "
            "is a label like any other. If so, make them missing (NaN): such cells are trained on without this label",
            {"labels": undecided},
        )
    if unlabelled:
        total = unlabelled + sum(cells.values())
        yield Finding(
            "unlabelled",
            "note",
            (concept,),
            f"{concept}: {unlabelled} of {total} cells carry no label; they are trained on, and this concept learns "
            "nothing from them",
            {"cells": unlabelled},
        )


def _missing(concept: str, cells: Mapping[str, int]) -> Iterator[Finding]:
    missing = [label for label in cells if label.strip() in _MISSING]
    if missing:
        yield Finding(
            "missing_text",
            "warning",
            (concept,),
            f"{concept}: {_with_cells(cells, missing)} look{'s' if len(missing) == 1 else ''} like a missing value "
            f"written as text (astype(str) does that), and would be trained as a label. If so, make it missing: "
            f"adata.obs[{concept!r}] = adata.obs[{concept!r}].replace({missing!r}, np.nan)",
            {"labels": missing, "cells": sum(cells[label] for label in missing)},
        )


def _blanks(concept: str, cells: Mapping[str, int]) -> Iterator[Finding]:
    padded = [label for label in cells if label != label.strip() and label.strip() not in _MISSING]
    if padded:
        twins = [label for label in padded if label.strip() in cells]
        two = f", so that {twins[0].strip()!r} and {twins[0]!r} are two labels" if twins else ""
        yield Finding(
            "blanks",
            "warning",
            (concept,),
            f"{concept}: {_with_cells(cells, padded)} begin or end with blanks, which are part of a label{two}; take "
            f"them off: adata.obs[{concept!r}] = adata.obs[{concept!r}].str.strip()",
            {"labels": padded},
        )


def _near_duplicates(concept: str, cells: Mapping[str, int]) -> Iterator[Finding]:
    alike: dict[str, list[str]] = defaultdict(list)
    for label in cells:
        alike[_fold(label)].append(label)
    groups = [group for group in alike.values() if len({label.strip() for label in group}) > 1]
    if groups:
        told = "; ".join(_with_cells(cells, group) for group in groups[:3])
        rest = f" (and {len(groups) - 3} more such groups)" if len(groups) > 3 else ""
        yield Finding(
            "near_duplicates",
            "warning",
            (concept,),
            f"{concept}: {told}{rest} differ in case, blanks, dashes or the writing of a number alone, and are "
            f"labels of their own to the model; if they are one, write them alike: adata.obs[{concept!r}].replace("
            f"{groups[0][-1]!r}, {groups[0][0]!r})",
            {"groups": groups},
        )


def _fold(label: str) -> str:
    number = number_text(label) or number_text(label.strip().lstrip("0"))
    if number is not None:
        return number
    plain = unicodedata.normalize("NFKC", label).strip().casefold()
    return re.sub(r"(?<=[^\W_])[-_\s]+(?=[^\W_])", " ", plain)  # CD4+ and CD4- stay apart


def _numbers(concept: str, cells: Mapping[str, int]) -> Iterator[Finding]:
    numbers = [label for label in cells if number_text(label) is not None]
    if len(numbers) > _MANY_NUMBERS:
        yield Finding(
            "numbers",
            "warning",
            (concept,),
            f"{concept}: holds {len(numbers)} different numbers, from {min(numbers, key=float)} to "
            f"{max(numbers, key=float)}; each is a label of its own, with neither order nor distance to the others. "
            "Cut a measured quantity into a few ordered bins (pandas.cut, or pandas.qcut for equally many cells)",
            {"numbers": len(numbers)},
        )


def _rare(concept: str, cells: Mapping[str, int]) -> Iterator[Finding]:
    total = sum(cells.values())
    if len(cells) > _FEW_CELLS and total < _CELLS_A_LABEL * len(cells):
        yield Finding(
            "identifier",
            "warning",
            (concept,),
            f"{concept}: has {len(cells)} labels in {total} labelled cells, {total / len(cells):.1f} cells a label; it "
            "names cells rather than kinds of them (an identifier, a clonotype, a measurement?), and no effect of a "
            "label can be learnt from so few cells",
            {"labels": len(cells), "cells": total},
        )
        return
    single = [label for label, count in cells.items() if count == 1]
    if single:
        yield Finding(
            "single_cells",
            "warning",
            (concept,),
            f"{concept}: {format_list(single)} {'has' if len(single) == 1 else 'have'} one cell each; what do() of "
            "such a label shows is that cell, and no held-out cell can judge it. Merge the label with another, or "
            "make it missing (NaN)",
            {"labels": single},
        )
    few = [label for label, count in cells.items() if 1 < count < _FEW_CELLS]
    if few:
        yield Finding(
            "few_cells",
            "note",
            (concept,),
            f"{concept}: {_with_cells(cells, few)} {'has' if len(few) == 1 else 'have'} fewer than {_FEW_CELLS} cells; "
            "effects of do() of such a label are unsure",
            {"labels": few},
        )


def _with_cells(cells: Mapping[str, int], labels: list[str], limit: int = 6) -> str:
    """Format labels with their numbers of cells: ``'IFN' (120 cells), 'ifn' (3)``."""
    shown = [f"{label!r} ({cells[label]})" for label in labels[:limit]]
    shown[0] = f"{labels[0]!r} ({cells[labels[0]]} cells)"
    rest = f" and {len(labels) - limit} more" if len(labels) > limit else ""
    return ", ".join(shown) + rest
