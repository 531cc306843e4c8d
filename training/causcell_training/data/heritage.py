"""What a training takes over from the finished run that it starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from torch import Tensor

from causcell.concepts import ConceptSchema
from causcell.preprocessing import Preprocessing
from causcell_training.data.split import Part

if TYPE_CHECKING:
    import pandas as pd

Groups = dict[str, np.ndarray]
"""Statistics of training cells by their labels; see `causcell_training.data.groups`."""


@dataclass(frozen=True)
class HeldOutCells:
    """Held-out cells of a run: expression, float32 CSR [n x G], columns of concepts [n x m], names and parts [n]."""

    expression: sparse.csr_matrix
    obs: pd.DataFrame
    names: np.ndarray
    part: np.ndarray


@dataclass(frozen=True)
class ReplayedCells:
    """The reference cells of a run, decoded by its model to cells that stand for those it was trained on.

    Attributes
    ----------
    expression
        A draw of each reference cell on the log scale, float32 CSR [P x G].
    labels
        Codes of their labels, int32 [P x m].
    offset
        Exogenous embedding of each reference cell less that which the run's model reads from the draw, float32
        [P x M x k]: what decoding and encoding again does not give back.
    combinations
        Every combination of labels among the run's training cells, int32 [C x m].
    numbers
        Standardised numbers of continuous concepts, whose labels are bins, float32 [P x 1] by index of the concept.
    """

    expression: sparse.csr_matrix
    labels: np.ndarray
    offset: np.ndarray
    combinations: np.ndarray
    numbers: Mapping[int, np.ndarray] = field(default_factory=dict)

    def encode_values(self, schema: ConceptSchema) -> dict[int, np.ndarray]:
        """Encode the cells' values, float32 [P x width], of concepts that have more than labels, by index.

        ``schema`` may have grown since: places of labels and of members are what they were.
        """
        values = {}
        for i, concept in enumerate(schema.concepts):
            if concept.value is not None:
                codes = self.labels[:, i]
                own = self.numbers[i] if i in self.numbers else concept.values[codes]
                values[i] = np.where(codes[:, None] < 0, np.float32(np.nan), own)
        return values


@dataclass(frozen=True)
class Heritage:
    """Inheritance of a training from the run that it starts from.

    Attributes
    ----------
    digest
        SHA-256 of the run's ``run.json``, which has the digests of its other files.
    origin
        Facts of the run for provenance: its name, digests, concepts and cells.
    ancestors
        Such facts of the runs that it descends from itself, the nearest first.
    weights
        The model's weights by name.
    schema
        Concepts and graph.
    preprocessing
        Gene panel and standardisation.
    split
        Part of each of its cells by name, and of those of runs that it descends from.
    held_out
        Held-out cells.
    groups
        Statistics of its training cells; `None` for a run of a version that kept none.
    replayed
        Its reference cells, decoded.
    """

    digest: str
    origin: Mapping[str, Any]
    ancestors: tuple[Mapping[str, Any], ...]
    weights: Mapping[str, Tensor]
    schema: ConceptSchema
    preprocessing: Preprocessing
    split: Mapping[str, Part]
    held_out: HeldOutCells
    groups: Groups | None
    replayed: ReplayedCells

    def new_labels(self, schema: ConceptSchema) -> dict[str, list[str]]:
        """List the labels of each concept that a schema has and the run had not."""
        added = {
            concept.name: list(concept.labels[len(known.labels) :])
            for concept, known in zip(schema.concepts, self.schema.concepts, strict=True)
        }
        return {name: labels for name, labels in added.items() if labels}

    def lineage(self, schema: ConceptSchema) -> list[dict[str, Any]]:
        """List the runs that a model of this schema descends from, the nearest first, with the labels added since."""
        return [dict(self.origin) | {"new_labels": self.new_labels(schema)}, *map(dict, self.ancestors)]
