"""Cells that carry a value of a concept which no training cell has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from causcell._internal.telling import warn
from causcell.cells.collection import Cells
from causcell.concept_encoding import encode_column
from causcell.concepts import UNLABELLED, ConceptSchema
from causcell.errors import format_list


def warn_of_untrained(parts: Sequence[Cells], schema: ConceptSchema, codes: np.ndarray) -> None:
    """Warn of cells whose set, or label known by its features alone, no training cell has.

    Such a value is no label, and abduction is not told it: the cell is read from its expression alone, as one without
    a label is. (A number is told whatever it is.)

    Parameters
    ----------
    parts
        The cells, file by file.
    schema
        Concepts of the model.
    codes
        Label codes of all cells, int32 [n x m].
    """
    for i, concept in enumerate(schema.concepts):
        if concept.value is None or concept.value.is_number:
            continue
        found, first = [], 0
        for part in parts:
            unlabelled = codes[first : first + len(part), i] == UNLABELLED
            first += len(part)
            if unlabelled.any() and concept.name in part.columns:
                column = part.column(concept.name)[unlabelled].to_frame()
                found.append(encode_column(column, concept.name, concept.labels, concept.value)[1])
        values = np.concatenate(found) if found else np.empty((0, concept.value.width), dtype=np.float32)
        values = values[np.isfinite(values).all(axis=1)]
        if len(values):
            names = [concept.describe_value(each) for each in np.unique(values, axis=0)]
            warn(
                f"{len(values)} cells carry {format_list(names, 4)} of {concept.name!r}, which no training cell has: "
                "they are read from their expression alone, as cells without a label are"
            )
