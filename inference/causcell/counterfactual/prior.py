"""Priors of concepts over an engine: a concept's embedding given its value, p(z | value)."""

from __future__ import annotations

import numpy as np

from causcell.concepts import Concept, ConceptSchema
from causcell.engine.protocol import Engine
from causcell.randomness import Purpose, normals
from causcell.repository.manifest import PRIOR

VALUES = "values"
"""Input of the graphs ``prior`` and ``abduction``: the values of cells' concepts, side by side."""


class ConceptPrior:
    """Embeddings of concepts by their values, and the values of cells, as the graphs of a model take them.

    Parameters
    ----------
    engine
        Evaluates the ONNX graph ``prior``.

    Attributes
    ----------
    numeric
        Indices of the concepts whose values are numbers: arrays of numbers have a column for each.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.schema: ConceptSchema = engine.manifest.concept_schema
        self.numeric = self.schema.numeric
        self._tables: list[np.ndarray] | None = None
        self._evaluated: dict[tuple[int, str], tuple[np.ndarray, np.ndarray]] = {}

    @property
    def exists(self) -> bool:
        """Tell whether the model has priors: plain models have none."""
        return PRIOR in self.engine.manifest.graphs

    def encode_values(self, labels: np.ndarray, numbers: np.ndarray | None = None) -> np.ndarray:
        """Return the values of cells as graphs take them.

        Parameters
        ----------
        labels
            Label codes, int32 [B x m].
        numbers
            Standardised numbers of the concepts that have some, float32 [B x c]; those of the labels, if not given.

        Returns
        -------
        float32 [B x V], NaN where a concept is not labelled.
        """
        if self._tables is None:
            self._tables = [_label_table(concept) for concept in self.schema.concepts]
        parts = [table[labels[:, i]] for i, table in enumerate(self._tables)]  # -1, unlabelled, takes the last row
        if numbers is not None:
            for place, concept in enumerate(self.numeric):
                parts[concept] = numbers[:, [place]]
        return np.concatenate(parts, axis=1)

    def label_numbers(self, labels: np.ndarray) -> np.ndarray:
        """Return the standardised numbers of labels, float32 [B x c], NaN for the unlabelled: medians of bins."""
        return np.concatenate([_label_table(self.schema.concepts[i])[labels[:, i]] for i in self.numeric], axis=1)

    def vector(self, concept: int, text: str) -> np.ndarray:
        """Return a concept's value, float32 [width], of its canonical text."""
        return self.schema.concepts[concept].parse_value(text)

    def evaluate(self, concept: int, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and deviation, each float32 [k], of p(z | value) of one concept; each value is evaluated once.

        It is evaluated alone: beside others its last bit might depend on them.
        """
        found = self._evaluated.get((concept, text))
        if found is None:
            slices = self.schema.value_slices
            values = np.zeros((1, slices[-1].stop), dtype=np.float32)
            values[0, slices[concept]] = self.vector(concept, text)
            outputs = self.engine.run(PRIOR, {VALUES: values}, ("mean", "logvar"))
            found = outputs["mean"][0, concept].copy(), np.exp(0.5 * outputs["logvar"][0, concept])
            self._evaluated[concept, text] = found
        return found

    def own_means(self, labels: np.ndarray, numbers: np.ndarray | None) -> np.ndarray:
        """Return the means of p(z_i | value) at cells' own values, float32 [B x m x k]; see `encode_values`.

        Those of a concept that a cell is not labelled with mean nothing.
        """
        values = np.nan_to_num(self.encode_values(labels, numbers))
        return self.engine.run(PRIOR, {VALUES: values}, ("mean",))["mean"]

    def draw(self, concept: int, text: str, keys: np.ndarray, draw: int) -> np.ndarray:
        """Draw a concept's embedding for each cell.

        The normal numbers are keyed by cell, concept and draw, not by the value: a cell's course over a grid of values
        is as smooth as the prior's mean and deviation.

        Parameters
        ----------
        concept, text
            Index of the concept, and the canonical text of its value.
        keys
            Keys of the cells, uint64 [n x 2].
        draw
            Index of the draw.

        Returns
        -------
        float32 [n x k].
        """
        mean, deviation = self.evaluate(concept, text)
        return np.asarray(mean + deviation * normals(keys, len(mean), Purpose.PRIOR, draw=draw, step=concept))


def _label_table(concept: Concept) -> np.ndarray:
    """Return the value of each label, then NaN for the unlabelled, float32 [labels + 1 x width]."""
    values = concept.values
    return np.concatenate([values, np.full((1, values.shape[1]), np.nan, dtype=np.float32)])
