"""Concepts of each kind read from columns of ``obs``: their labels, and the encoding of their values."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from causcell._internal.choices import suggest
from causcell._internal.labels import MOST_LABELS, label_text, number_text, read_labels
from causcell.concept_encoding import number_column, set_column
from causcell.concept_values import JOIN, ConceptValue
from causcell.concepts import Concept
from causcell.errors import ConceptError, format_list

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("labels", "ordinal", "continuous", "set")
"""Kinds that a concept can be asked for as."""

MOST_BINS = 8
"""Bins of a continuous concept."""

_LARGEST_NUMBER = 1e30

_LARGEST_TABLE = 2**26
"""Values of a table of label features at most."""


@dataclass(frozen=True)
class LabelFeatures:
    """Features of labels.

    Attributes
    ----------
    names
        Names of the features.
    rows
        Features of each label, by label.
    source
        Name of the file, for messages.
    """

    names: tuple[str, ...]
    rows: Mapping[str, tuple[float, ...]]
    source: str


def split_kind(text: str) -> tuple[str, str | None]:
    """Split ``NAME:KIND`` into the name of a concept and its kind; `None` without one.

    Raises
    ------
    ConceptError
        There is no such kind.

    Examples
    --------
    >>> split_kind("age:continuous"), split_kind("stim")
    (('age', 'continuous'), ('stim', None))
    """
    name, found, kind = text.partition(":")
    if found and kind not in KINDS:
        raise ConceptError(
            f"concept {text!r} names no kind; {suggest(kind, KINDS)}give NAME or NAME:KIND, kinds are "
            f"{format_list(KINDS)}"
        )
    return name, kind if found else None


def read_label_features(path: str | os.PathLike[str]) -> LabelFeatures:
    """Read a CSV file of features: a header, then a label and its numbers in each row.

    Raises
    ------
    ConceptError
        The file can't be read, or is no such table.
    """
    source = os.fspath(path)
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeError, csv.Error) as error:
        raise ConceptError(f"label features {source!r} can't be read ({error}); name a CSV file") from error
    if len(rows) < 2 or len(rows[0]) < 2:
        raise ConceptError(
            f"label features {source!r} has no table: give a header (label, then a name for each feature), and a row "
            "for each label"
        )
    names = tuple(rows[0][1:])
    if len(set(names)) != len(names):
        raise ConceptError(f"label features {source!r} names a feature twice; rename one of {format_list(names)}")
    if len(names) * len(rows) > _LARGEST_TABLE:
        raise ConceptError(f"label features {source!r} has more than {_LARGEST_TABLE} numbers; give fewer features")
    found: dict[str, tuple[float, ...]] = {}
    for label, *numbers in rows[1:]:
        if len(numbers) != len(names):
            raise ConceptError(
                f"label features {source!r}: the row of {label!r} has {len(numbers)} numbers, the header {len(names)} "
                "features; give one for each"
            )
        if label in found:
            raise ConceptError(f"label features {source!r} has two rows of {label!r}; leave one out")
        found[label] = tuple(_feature(number, name, label, source) for number, name in zip(numbers, names, strict=True))
    return LabelFeatures(names, found, source)


def _feature(text: str, name: str, label: str, source: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or abs(number) > _LARGEST_NUMBER:
        raise ConceptError(
            f"label features {source!r} has {text[:40]!r} for {name!r} of {label!r}; features are finite numbers"
        )
    return number


def read_concept(
    obs: pd.DataFrame,
    name: str,
    kind: str | None = None,
    *,
    features: LabelFeatures | None = None,
    control: str | None = None,
    rows: np.ndarray | None = None,
) -> Concept:
    """Make the concept of a column.

    Parameters
    ----------
    obs
        Annotations of cells, with the column.
    name
        Name of the column.
    kind
        One of `KINDS`; without one, labels in the order of an ordered categorical column, or sorted.
    features
        Features of the labels.
    control
        Label of the cells without members, of a set.
    rows
        Rows of the training cells, int64: numbers are standardised and binned by these, and sets, ordinal labels and
        labels with features are those that they carry. All rows, where none are given.

    Raises
    ------
    UnknownConceptError
        There is no such column.
    ConceptError
        The column is not of this kind, or what is given is for another kind.
    """
    if features is not None and kind not in (None, "labels"):
        raise ConceptError(f"concept {name!r} of kind {kind} takes no label features; they are for kind labels")
    if control is not None and kind != "set":
        raise ConceptError(f"concept {name!r} of kind {kind or 'labels'} takes no control label; it is for kind set")
    if kind == "ordinal":
        return _ordinal(obs, name, rows)
    if kind == "continuous":
        return _continuous(obs, name, rows)
    if kind == "set":
        return _set(obs, name, control, rows)
    labels, ordered = read_labels(obs if features is None or rows is None else obs.iloc[rows], name)
    if features is not None:
        return _with_features(name, labels, features)
    return Concept(name, labels, "ordinal" if ordered and kind is None else "categorical")


def _with_features(name: str, labels: tuple[str, ...], table: LabelFeatures) -> Concept:
    by_number = {number_text(label) or label: label for label in table.rows}
    own = {label: label if label in table.rows else by_number.get(number_text(label) or label) for label in labels}
    absent = [label for label, found in own.items() if found is None]
    if absent:
        raise ConceptError(
            f"label features {table.source!r} has no row of {format_list(absent)}, which cells of concept {name!r} "
            "carry; add a row for each label, the control's too, or set these cells' labels to NaN"
        )
    trained = [table.rows[found] for found in own.values() if found is not None]
    seen: dict[tuple[float, ...], str] = {}
    for label, row in zip(labels, trained, strict=True):
        if row in seen:
            raise ConceptError(
                f"label features {table.source!r} gives {seen[row]!r} and {label!r} of concept {name!r} the same "
                "numbers, so that nothing tells them apart; add a feature that does, or make them one label"
            )
        seen[row] = label
    others = [label for label in table.rows if label not in own.values()]
    values = np.array(trained)
    deviation = values.std(axis=0)
    value = ConceptValue(
        "features",
        len(table.names),
        mean=tuple(values.mean(axis=0).tolist()),
        deviation=tuple(np.where(deviation > 0, deviation, 1.0).tolist()),
        feature_names=table.names,
        known=(*labels, *others),
        features=(*trained, *(table.rows[label] for label in others)),
    )
    return Concept(name, labels, "categorical", value)


def _describe_numbers(
    kind: Literal["ordinal", "continuous"],
    training: np.ndarray,
    numbers: tuple[float, ...],
    *,
    bounds: tuple[float, ...] = (),
    ranks: tuple[str, ...] = (),
) -> ConceptValue:
    return ConceptValue(
        kind,
        1,
        mean=(float(training.mean()),),
        deviation=(float(training.std()),),
        low=float(training.min()),
        high=float(training.max()),
        numbers=numbers,
        bounds=bounds,
        ranks=ranks,
    )


def _require_two(numbers: np.ndarray, name: str, kind: str) -> None:
    """Raise `ConceptError` unless there are two distinct training numbers, float64 [n]."""
    distinct = np.unique(numbers)
    if len(distinct) < 2:
        found = "none" if not len(distinct) else f"one, {label_text(float(distinct[0]))}"
        raise ConceptError(
            f"obs[{name!r}] has too few distinct numbers in the cells to train on ({found}); a concept of kind {kind} "
            "needs at least two: leave it out, or give cells of another number"
        )
    low, high = float(distinct[0]), float(distinct[-1])
    largest = max(abs(low), abs(high))
    if largest > _LARGEST_NUMBER or high - low < max(1e-30, 1e-12 * largest):
        raise ConceptError(
            f"obs[{name!r}] has numbers from {label_text(low)} to {label_text(high)}, which can't be told apart in "
            "computing; give them in another unit, or less a constant"
        )


def _chosen(values: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
    chosen = values if rows is None else values[rows]
    return np.asarray(chosen[~np.isnan(chosen)])


def _ordinal(obs: pd.DataFrame, name: str, rows: np.ndarray | None) -> Concept:
    labels, ordered = read_labels(obs if rows is None else obs.iloc[rows], name)
    ranks: tuple[str, ...] = ()
    numeric = [number_text(label) for label in labels]
    numbers = [float(number) for number in numeric if number is not None]
    if ordered and (len(numbers) < len(labels) or numbers != sorted(numbers)):
        ranks = tuple(label_text(label) for label in obs[name].cat.categories)
        place = {label: float(rank) for rank, label in enumerate(ranks)}
        numbers = [place[label] for label in labels]
        codes = obs[name].cat.codes.to_numpy()
        training = _chosen(np.where(codes < 0, np.nan, codes.astype(np.float64)), rows)
    else:
        training = _chosen(number_column(obs, name, "ordinal"), rows)  # tells what is no number
        if len(set(numbers)) < len(labels):
            raise ConceptError(
                f"obs[{name!r}] writes one number in two ways among {format_list(labels)}; write it alike "
                "(pandas.to_numeric)"
            )
    _require_two(training, name, "ordinal")
    return Concept(name, labels, "ordinal", _describe_numbers("ordinal", training, tuple(numbers), ranks=ranks))


def _continuous(obs: pd.DataFrame, name: str, rows: np.ndarray | None) -> Concept:
    training = _chosen(number_column(obs, name, "continuous"), rows)
    _require_two(training, name, "continuous")
    bounds, labels = _bins(training)
    codes = np.searchsorted(bounds, training, side="right")
    medians = tuple(float(np.median(training[codes == code])) for code in range(len(labels)))
    value = _describe_numbers("continuous", training, medians, bounds=tuple(bounds))
    return Concept(name, labels, "continuous", value)


def _bins(numbers: np.ndarray) -> tuple[list[float], tuple[str, ...]]:
    """Cut numbers into bins of about equal numbers of cells: bounds between them, and the bins' labels."""
    distinct = np.unique(numbers)
    low, high = float(distinct[0]), float(distinct[-1])
    shares = np.arange(1, MOST_BINS) / MOST_BINS
    cuts = np.unique(np.quantile(numbers, shares, method="higher"))
    gap = min([high - low, *np.diff(cuts).tolist()])
    decimals = min(300, max(0, 1 - math.floor(math.log10(gap))))
    cuts = np.round(cuts, decimals)
    bounds = [cut for cut in np.unique(cuts).tolist() if low < cut <= high]
    bounds = bounds or [float(distinct[1])]
    while len(bounds) > 1:
        cells = np.bincount(np.searchsorted(bounds, numbers, side="right"), minlength=len(bounds) + 1)
        empty = np.flatnonzero(cells == 0)
        if not len(empty):
            break
        bounds.pop(max(0, int(empty[0]) - 1))
    outer = (_round_outwards(low, decimals, math.floor), _round_outwards(high, decimals, math.ceil))
    texts = [label_text(edge) for edge in (outer[0], *bounds, outer[1])]
    last = len(texts) - 2
    return bounds, tuple(f"[{texts[i]}, {texts[i + 1]}{']' if i == last else ')'}" for i in range(last + 1))


def _round_outwards(number: float, decimals: int, to: Callable[[float], int]) -> float:
    """Round a number down or up to some decimals, for a bin's text; a number with no more than those stays."""
    near = round(number, decimals)
    scaled = number * 10.0**decimals
    return near if near == number or not math.isfinite(scaled) else round(to(scaled) / 10.0**decimals, decimals)


def _set(obs: pd.DataFrame, name: str, control: str | None, rows: np.ndarray | None) -> Concept:
    texts = set_column(obs, name, control)
    labels = sorted((texts if rows is None else texts.iloc[rows]).dropna().unique())
    if len(labels) > MOST_LABELS:
        raise ConceptError(
            f"obs[{name!r}] has {len(labels)} distinct sets, more than the {MOST_LABELS} labels that a concept may have"
        )
    if control is not None and control not in labels:
        raise ConceptError(
            f"no cell to train on carries {control!r}, the control label of concept {name!r}; "
            f"{suggest(control, labels)}its labels are {format_list(labels)}"
        )
    members = sorted({member for label in labels if label != control for member in label.split(JOIN)})
    return Concept(
        name, tuple(labels), "set", ConceptValue("set", len(members), members=tuple(members), control=control)
    )
