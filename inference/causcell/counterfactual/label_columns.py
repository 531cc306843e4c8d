"""Columns of ``obs`` that hold a concept in results: its labels, or its numbers in the data's units.

Numbers (float64, NaN where unlabelled) of continuous concepts, and of ordinal ones whose labels are numbers; else a
categorical of the labels, with the values that interventions set and no label is: ``A+B`` never seen together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from causcell.concept_encoding import encode_numbers
from causcell.concept_values import ConceptValue
from causcell.concepts import UNLABELLED, Concept, ConceptSchema
from causcell.counterfactual.interventions import Intervention
from causcell.counterfactual.targets import UNSEEN

_MOST_DECIMALS = 12


@dataclass(frozen=True)
class LabelColumn:
    """The form of one concept's column in the results of a request.

    Attributes
    ----------
    concept
        The concept.
    index
        Its place among the concepts.
    place
        Its place among those that have numbers; `None` where it has none.
    texts
        Text of the value that each intervention sets it to, by the intervention's place; values that are no labels.
    """

    concept: Concept
    index: int
    place: int | None
    texts: dict[int, str]

    @property
    def holds_numbers(self) -> bool:
        """Tell whether the column holds numbers in the data's units, not labels."""
        value = self.concept.value
        return value is not None and value.is_number and not value.ranks

    @property
    def categories(self) -> list[str]:
        """All labels that the column may have, in order; values that are no labels come last, or between ranks."""
        value = self.concept.value
        known = list(value.ranks or self.concept.labels) if value is not None else list(self.concept.labels)
        extra = [text for text in dict.fromkeys(self.texts.values()) if text not in known]
        if value is None or not value.ranks:
            return known + extra
        return sorted(known + extra, key=lambda text: float(self.concept.parse_value(text)[0]))

    def values(
        self, codes: np.ndarray, numbers: np.ndarray | None, interventions: np.ndarray | None = None
    ) -> np.ndarray | Any:
        """Return the column of some rows.

        Parameters
        ----------
        codes
            Label codes of the concept, int32 [rows].
        numbers
            Standardised numbers of the concepts that have some, float32 [rows x c]; `None` where none do.
        interventions
            Place of each row's intervention, int [rows]; `None` for the cells' own labels.

        Returns
        -------
        float64 [rows], or a categorical.
        """
        import pandas as pd

        value = self.concept.value
        own = None if numbers is None or self.place is None else numbers[:, self.place]
        if self.holds_numbers:
            assert value is not None and own is not None
            return shortest_numbers(own, value)
        categories = self.categories
        place_of = {text: place for place, text in enumerate(categories)}
        lookup = np.array([place_of[label] for label in self.concept.labels])
        places = np.where(codes >= 0, lookup[codes], UNLABELLED)
        if own is not None and value is not None:  # ranks that no training cell has
            untold = (codes == UNLABELLED) & ~np.isnan(own)
            for text in value.ranks:
                same = untold & (own == self.concept.parse_value(text)[0])
                places[same] = place_of[text]
        for place, text in self.texts.items() if interventions is not None else ():
            places[(codes == UNSEEN) & (interventions == place)] = place_of[text]
        ordered = self.concept.kind == "ordinal"
        return pd.Categorical.from_codes(places, categories=categories, ordered=ordered)

    def read(self, stored: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Read back label codes, int32, and standardised numbers, float32 (or `None`), from what results hold.

        Parameters
        ----------
        stored
            Numbers, or the codes of `categories`.
        """
        value = self.concept.value
        if self.holds_numbers:
            assert value is not None
            codes, numbers = encode_numbers(stored.astype(np.float64), value)
            return codes, numbers[:, 0]
        categories, labels = self.categories, self.concept.labels
        lookup = [labels.index(text) if text in labels else UNLABELLED for text in categories]
        codes = np.array([*lookup, UNLABELLED], dtype=np.int32)[stored]
        if self.place is None:
            return codes, None
        of_texts = [float(self.concept.parse_value(text)[0]) for text in categories]
        return codes, np.array([*of_texts, np.nan], dtype=np.float32)[stored]


def label_columns(schema: ConceptSchema, interventions: Sequence[Intervention]) -> tuple[LabelColumn, ...]:
    """Return the form of each concept's column in the results of these interventions."""
    unseen: dict[int, dict[int, str]] = {}
    for place, each in enumerate(interventions):
        texts = dict(each.values)
        for concept, code in each.targets:
            if code == UNSEEN:
                unseen.setdefault(concept, {})[place] = texts[concept]
    numeric = {concept: place for place, concept in enumerate(schema.numeric)}
    return tuple(
        LabelColumn(concept, i, numeric.get(i), unseen.get(i, {})) for i, concept in enumerate(schema.concepts)
    )


def shortest_numbers(standardised: np.ndarray, value: ConceptValue) -> np.ndarray:
    """Return numbers in the data's units as shortly written as tells their standardised float32 values apart.

    A number of the data comes back as it was, 12.3 and not 12.299999714.

    Parameters
    ----------
    standardised
        float32 [n]; NaN stays.
    value
        Encoding of the concept's values.

    Returns
    -------
    float64 [n].
    """
    exact = value.in_units(standardised[:, None])[:, 0]
    found = exact.copy()
    left = ~np.isnan(exact)
    for decimals in range(_MOST_DECIMALS + 1):
        if not left.any():
            break
        rounded = np.round(exact, decimals)
        same = left & (value.standardise(rounded[:, None])[:, 0] == standardised)
        found[same] = rounded[same]
        left &= ~same
    return np.asarray(found + 0.0)  # -0 is 0
